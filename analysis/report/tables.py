"""The tables of a report."""

from emergraph.analysis.figures.figure import Query
from emergraph.analysis.report.document import TableSpec

LAYERS = TableSpec(
    name="layers",
    title="Layers",
    definition=(
        "The 40 layers with the most parameters, in topological order. Zeros: parameters that are exactly 0."
    ),
    query=Query(
        name="rows",
        sql="""
SELECT id, name, op, kind, depth, n_units AS units, n_params AS parameters, n_zeros AS zeros, dtype FROM (
    FROM layers WHERE graph = {graph} ORDER BY n_params DESC, id LIMIT 40
) ORDER BY id""",
    ),
)
KINDS = TableSpec(
    name="edge-kinds",
    title="Edges by kind",
    definition=(
        "weight: parameters; recurrent: parameters from the previous time step; identity: junctions and "
        "fan-out; gate: products; attention: scores and contexts; norm: group statistics; opaque: an "
        "operation that is not understood."
    ),
    query=Query(
        name="rows",
        sql="""
SELECT kind, count(*) AS blocks, sum(n_edges) AS edges FROM blocks WHERE graph = {graph}
GROUP BY kind ORDER BY edges DESC""",
    ),
)
OPAQUE = TableSpec(
    name="opaque",
    title="What the tracer did not understand",
    definition="Operations whose edges are opaque, by type and reason. Paths do not follow them.",
    query=Query(
        name="rows",
        sql="""
SELECT op, reason, count(*) AS operations, sum(n_params) AS parameters FROM operations
WHERE graph = {graph} AND traced_as = 'opaque' GROUP BY op, reason ORDER BY operations DESC LIMIT 20""",
    ),
)
EMERGENCE = TableSpec(
    name="emergence",
    title="Emergence at one threshold",
    definition=(
        "E: paths from inactive to active units. Per parameter: E over the non-zero parameters; per "
        "density: E over the share of parameters that are not zero."
    ),
    query=Query(
        name="rows",
        table="emergence",
        sql="""
SELECT interior, activity, emergence, log10, per_param AS per_parameter, per_density, n_active AS active,
       n_inactive AS inactive
FROM emergence WHERE run = {run} ORDER BY interior""",
    ),
)
INTERVALS = TableSpec(
    name="emergence-intervals",
    title="Interval over samples",
    definition="Percentile interval of E when the samples of the trace are drawn again with replacement.",
    query=Query(
        name="rows",
        table="emergence_intervals",
        sql="""
SELECT interior, activity, emergence, low, high, confidence, n_draws AS draws, n_samples AS samples
FROM emergence_intervals WHERE run = {run} ORDER BY interior""",
    ),
)
NULLS = TableSpec(
    name="emergence-nulls",
    title="Null models",
    definition=(
        "E beside its mean over draws of each null model. z: distance in standard deviations, none for a "
        "degenerate null; p: share of draws at least as far away. Activity: whether the model ran again "
        "for each draw."
    ),
    query=Query(
        name="rows",
        table="emergence_nulls",
        sql="""
SELECT null_model, interior, activity, emergence, mean, sd, scale, z, p_two_sided AS p, degenerate,
       n_draws AS draws
FROM emergence_nulls WHERE run = {run} ORDER BY null_model, interior""",
    ),
)
BASELINES = TableSpec(
    name="emergence-baselines",
    title="Baselines",
    definition=(
        "Simple figures that a claim about emergence has to beat: shares of inactive units and of zero "
        "parameters, and norms of the weights."
    ),
    query=Query(
        name="rows",
        table="emergence_baselines",
        sql="""
SELECT activity_sparsity, weight_sparsity, weight_l1, weight_l2, weight_max_abs
FROM emergence_baselines WHERE run = {run}""",
    ),
)
PRUNING = TableSpec(
    name="pruning",
    title="Levels",
    definition=(
        "Level: share of the items removed. Density: non-zero parameters left over all. New dead units: "
        "hidden neurons that lose their last path between inputs and outputs."
    ),
    query=Query(
        name="rows",
        table="pruning_levels",
        sql="""
SELECT level, density, effective_sparsity, collapsed_layers, disconnected_outputs, new_dead_units,
       bottleneck_width, log10_emergence_active, accuracy
FROM pruning_levels WHERE run = {run} ORDER BY level, seed LIMIT 60""",
    ),
)
LANDSCAPE = TableSpec(
    name="landscape",
    title="Ruggedness",
    definition=(
        "Mean over repetitions (directions, walks or planes) with its interval; null: the value for a "
        "quadratic bowl, or for no relation. docs/landscape.md says what each statistic is."
    ),
    query=Query(
        name="rows",
        table="landscape",
        sql="SELECT statistic, mean, low, high, n, null_value FROM landscape WHERE run = {run}",
    ),
)
PERCOLATION = TableSpec(
    name="percolation",
    title="Thresholds",
    definition=(
        "Threshold: edges at the peak of the susceptibility, mean and percentiles 2.5 to 97.5 over seeds; "
        "share: the same over all edges. Half reach: edges at which half of the inputs reach an output. "
        "Expected thresholds: of random graphs with these degrees, and with as many edges between layers."
    ),
    query=Query(
        name="rows",
        table="percolation",
        sql="""
SELECT series, threshold, low, high, share, half_reach, n_seeds AS seeds,
       degree_threshold AS expected_from_degrees, layered_threshold AS expected_from_layers
FROM percolation WHERE run = {run} ORDER BY series = 'observed' DESC, series""",
    ),
)
TOPOLOGY = TableSpec(
    name="topology",
    title="Measures of the whole graph",
    definition=(
        "Measured on the graph, or on its backbone where there are too many edges; docs/topology.md has "
        "the definitions."
    ),
    query=Query(
        name="rows",
        table="topology",
        sql='SELECT measure, "value", "on" AS measured_on FROM topology WHERE run = {run}',
    ),
)
CENTRAL = TableSpec(
    name="central-units",
    title="The strongest units",
    definition=(
        "The ten units with the largest sum of absolute weights in and out. Coreness and PageRank by igraph."
    ),
    query=Query(
        name="rows",
        table="topology_units",
        sql="""
SELECT l.name AS layer, u.position, u.role, t.in_abs + t.out_abs AS strength, t.in_degree, t.out_degree,
       t.coreness, t.pagerank
FROM topology_units AS t
JOIN units AS u ON u.graph = {graph} AND u.id = t.unit
JOIN layers AS l ON l.graph = {graph} AND l.id = u.layer
WHERE t.run = {run} ORDER BY strength DESC, t.unit LIMIT 10""",
    ),
)
TRACES = TableSpec(
    name="traces",
    title="Activation traces",
    definition=(
        "inputs: the model ran on given inputs; random: on random inputs, so that activity says little "
        "about real use; imported: recorded elsewhere."
    ),
    query=Query(
        name="rows",
        sql="""
SELECT name, kind, source, n_samples AS samples, seed, created_at FROM traces
WHERE graph = {graph} ORDER BY id""",
    ),
)
RUNS = TableSpec(
    name="runs",
    title="Runs of this graph in the store",
    definition="Every analysis of this graph, oldest first. Parameters are in the table runs.",
    query=Query(
        name="rows",
        sql="""
SELECT id, command, result_tables, seed, duration AS seconds, tool_version, created_at
FROM runs WHERE graph = {graph} ORDER BY id""",
    ),
)
