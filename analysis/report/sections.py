"""What a report shows of a graph itself: its layers and blocks, and how the report was made."""

from emergraph.analysis.declaration import Query, SectionSpec, TableSpec

MAP = SectionSpec(
    id="map",
    title="Layers and what leads where",
    lead="The layers that the model's operations produce, and the blocks of edges between them. A unit "
    "is a neuron (a channel, a feature, a gate) or structural (a sum, a product, an attention "
    "score).",
    tables=(
        TableSpec(
            name="layers",
            title="Layers",
            definition=(
                "The 40 layers with the most parameters, in topological order. Zeros: parameters that are "
                "exactly 0."
            ),
            query=Query(
                name="rows",
                sql="""
SELECT id, name, op, kind, depth, n_units AS units, n_params AS parameters, n_zeros AS zeros, dtype FROM (
    FROM layers WHERE graph = {graph} ORDER BY n_params DESC, id LIMIT 40
) ORDER BY id""",
            ),
        ),
        TableSpec(
            name="edge-kinds",
            title="Edges by kind",
            definition=(
                "weight: parameters; recurrent: parameters from the previous time step; identity: junctions "
                "and fan-out; gate: products; attention: scores and contexts; norm: group statistics; "
                "opaque: an operation that is not understood."
            ),
            query=Query(
                name="rows",
                sql="""
SELECT kind, count(*) AS blocks, sum(n_edges) AS edges FROM blocks WHERE graph = {graph}
GROUP BY kind ORDER BY edges DESC""",
            ),
        ),
        TableSpec(
            name="opaque",
            title="What the tracer did not understand",
            definition="Operations whose edges are opaque, by type and reason. Paths do not follow them.",
            query=Query(
                name="rows",
                sql="""
SELECT op, reason, count(*) AS operations, sum(n_params) AS parameters FROM operations
WHERE graph = {graph} AND traced_as = 'opaque' GROUP BY op, reason ORDER BY operations DESC LIMIT 20""",
            ),
        ),
    ),
    command="emergraph export MODEL STORE",
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
