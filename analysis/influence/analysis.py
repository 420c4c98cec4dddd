"""`emergraph influence`: what each unit does to the outputs, by knocking it out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.influence.options import (
    CircuitOptions,
    ContributionOptions,
    InfluenceOptions,
    ModelRunOptions,
)
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    import polars as pl

    from emergraph.analysis.access import GraphAccess
    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.influence.contributions import ContributionResult
    from emergraph.analysis.influence.results import CircuitResult, InfluenceResult
    from emergraph.analysis.view import View
    from emergraph.options import Options

UNITS = ResultTable(
    "unit_influence",
    "One row per knock-out of a run: a layer, a head or a unit, its activation replaced by a baseline.",
    (
        Column("what", "VARCHAR", "layer, head or unit."),
        Column("layer", "INTEGER", "layers.id."),
        Column("unit", "INTEGER", "units.id; NULL for layers and heads."),
        Column("head", "INTEGER", "The head's attention score: units.id; NULL for layers and units."),
        Column("n_units", "INTEGER", "Units that were replaced together."),
        Column("measure", "VARCHAR", "What effect is: kl, in nats, or mse, in squared units of the output."),
        Column("effect", "DOUBLE", "Change of the output, mean over samples; NULL for no sample."),
        Column("low", "DOUBLE", "Lower end of its conservative 95 % interval over samples; NULL for none."),
        Column("high", "DOUBLE", "Upper end of it."),
        Column("largest", "DOUBLE", "Largest effect on a sample."),
        Column("target_change", "DOUBLE", "Change of the number looked at, mean over samples."),
        Column(
            "target_low", "DOUBLE", "Lower end of its conservative 95 % interval over samples; NULL for none."
        ),
        Column("target_high", "DOUBLE", "Upper end of it."),
        Column("decisions", "DOUBLE", "Share of decisions that changed, in [0, 1]."),
        Column("moved", "BOOLEAN", "Whether the output changed on some sample by more than rounding."),
        Column("n", "INTEGER", "Samples; fewer for what was left behind in a short budget."),
        Column("runs", "VARCHAR", "How knock-outs were put into runs, or why there was none."),
    ),
)
ATTRIBUTIONS = ResultTable(
    "unit_attributions",
    "One row per unit that gradients were computed of: what they give to it, beside its knock-out.",
    (
        Column("layer", "INTEGER", "layers.id."),
        Column("unit", "INTEGER", "units.id."),
        Column(
            "method",
            "VARCHAR",
            "gradient: activation less baseline, times the gradient of the target; integrated: times its "
            "mean on the way from the baseline.",
        ),
        Column(
            "attribution",
            "DOUBLE",
            "That, summed over positions, mean over samples: the part of the target that the unit gives.",
        ),
        Column("attribution_abs", "DOUBLE", "Mean of its absolute value."),
        Column("knockout", "DOUBLE", "What knocking it out takes from the target: -target_change, the mean."),
        Column("knockout_abs", "DOUBLE", "Mean of its absolute value."),
        Column("n", "INTEGER", "Samples."),
    ),
)
AGREEMENT = ResultTable(
    "attribution_agreement",
    "One row per comparison of two orders of units: by attribution, and by knock-outs.",
    (
        Column("scope", "VARCHAR", "all: all units; within layers: ranks less their layer's mean; layer."),
        Column("layer", "INTEGER", "layers.id; NULL for several."),
        Column("n_units", "INTEGER", "Units compared; 2,000 drawn at random where there are more."),
        Column("rho", "DOUBLE", "Spearman's correlation of attribution_abs and knockout_abs; NULL for none."),
        Column("low", "DOUBLE", "Lower end of its 95 % interval over units (jackknife); NULL for none."),
        Column("high", "DOUBLE", "Upper end of it."),
    ),
)
SECTION = SectionSpec(
    id="influence",
    title="Influence",
    lead="What units do on inputs: the model runs with the activation of a layer, a head or a unit replaced. "
    "An edge says what can influence what, a knock-out what does, on these inputs and from this baseline.",
    tables=(
        TableSpec(
            name="influence",
            title="Largest effects",
            definition=(
                "Change of the output when a unit's activation is replaced by the baseline: KL divergence in "
                "nats, or mean squared difference; mean over samples with its 95 % interval, largest, and "
                "the share of decisions that changed."
            ),
            query=Query(
                name="rows",
                table="unit_influence",
                sql="""
SELECT i.what, l.name AS layer, i.unit - l.first_unit AS unit, i.effect, i.low, i.high, i.largest,
       i.decisions, i.n
FROM unit_influence AS i JOIN runs AS r ON r.id = i.run
JOIN layers AS l ON l.graph = r.graph AND l.id = i.layer
WHERE i.run = {run} AND i.effect IS NOT NULL ORDER BY i.what, i.effect DESC LIMIT 30""",
            ),
        ),
    ),
    command="emergraph influence STORE --graph GRAPH --model MODEL --inputs FILE.npz",
)


def _check(run: ModelRunOptions, _asked: "Options") -> None:
    from emergraph.errors import UsageError

    for name in ("model", "inputs"):
        if getattr(run, name) is None:
            raise UsageError(f"--{name} FILE is needed: the model runs on samples")


def _run(at: "GraphAccess", run: ModelRunOptions, asked: InfluenceOptions) -> "InfluenceResult":
    from emergraph.analysis.influence.influences import measure_influence

    _check(run, asked)
    return measure_influence(at, run, asked)


def _rows(result: "InfluenceResult") -> "Mapping[str, pl.DataFrame]":
    found = {UNITS.name: result.frame}
    if result.attributions is not None and result.agreement is not None:
        found |= {ATTRIBUTIONS.name: result.attributions, AGREEMENT.name: result.agreement}
    return found


def _show(result: "InfluenceResult") -> "View":
    from emergraph.analysis.influence.views import influence_view

    return influence_view(result)


def _headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str | None:
    if not rows:
        return None
    layer, unit, effect, measure = rows[0]
    return f"unit {unit} of {layer} moves the output most ({measure} {effect:.3g})"


INFLUENCE = Analysis(
    name="influence",
    summary="Knock out layers, heads and units, and say what that does to the model's outputs.",
    of=Subject.GRAPH,
    options=(ModelRunOptions, InfluenceOptions),
    examples="""
    emergraph influence net.duckdb --model model.onnx --inputs inputs.npz
    emergraph influence net.duckdb --model model.onnx --inputs inputs.npz --target logits:3 --baseline zero
    emergraph influence net.duckdb --model model.onnx --inputs clean.npz --patch corrupted.npz --only-layers
    emergraph influence net.duckdb --model model.onnx --inputs inputs.npz --units "layer = 'fc1'" --budget 60
    emergraph influence net.duckdb --model model.onnx --inputs inputs.npz --method integrated
    """,
    check=_check,
    run=_run,
    rows=_rows,
    show=_show,
    tables=(UNITS, ATTRIBUTIONS, AGREEMENT),
    section=SECTION,
    headline=Headline(
        query=Query(
            name="influence",
            table="unit_influence",
            sql="""
SELECT l.name, i.unit - l.first_unit, i.effect, i.measure
FROM unit_influence AS i JOIN runs AS r ON r.id = i.run
JOIN layers AS l ON l.graph = r.graph AND l.id = i.layer
WHERE i.run = {run} AND i.what = 'unit' AND i.effect IS NOT NULL ORDER BY i.effect DESC LIMIT 1""",
        ),
        text=_headline,
    ),
)


CONTRIBUTIONS = ResultTable(
    "edge_contributions",
    "One row per edge that was measured: what its source adds to its target on samples, and biases.",
    (
        Column("src", "INTEGER", "Source unit: units.id; NULL for biases and constants."),
        Column("dst", "INTEGER", "Target unit: units.id."),
        Column("kind", "VARCHAR", "As in edges; or bias."),
        Column(
            "mean",
            "DOUBLE",
            "Mean over samples and the target's positions; all rows of a target sum to its pre-activation.",
        ),
        Column("mean_abs", "DOUBLE", "Mean of the absolute values."),
        Column("share", "DOUBLE", "Part of the sum of mean_abs over all that flows into the target."),
        Column("n", "INTEGER", "Samples."),
    ),
)
CONTRIBUTION_SECTION = SectionSpec(
    id="contributions",
    title="Contributions",
    lead="What flows along edges on inputs: the activation that an operation reads times the weight. An edge "
    "with a large weight from a silent unit carries nothing.",
    tables=(
        TableSpec(
            name="contributions",
            title="Edges that carry most of their target",
            definition=(
                "Value that the operation reads times the weight, for kernels summed over taps: mean and "
                "mean absolute value over samples and positions, and its share of all that flows into the "
                "target."
            ),
            query=Query(
                name="rows",
                table="edge_contributions",
                sql="""
SELECT a.name AS source, c.src - a.first_unit AS source_unit, b.name AS target, c.dst - b.first_unit AS unit,
       c.kind, c.mean, c.mean_abs, c.share
FROM edge_contributions AS c JOIN runs AS r ON r.id = c.run
JOIN units AS s ON s.graph = r.graph AND s.id = c.src JOIN layers AS a ON a.graph = r.graph AND a.id = s.layer
JOIN units AS t ON t.graph = r.graph AND t.id = c.dst JOIN layers AS b ON b.graph = r.graph AND b.id = t.layer
WHERE c.run = {run} AND c.kind IN ('weight', 'recurrent') ORDER BY c.share DESC, c.dst, c.src LIMIT 30""",
            ),
        ),
    ),
    command="emergraph contributions STORE --graph GRAPH --model MODEL --inputs FILE.npz",
)


def _run_contributions(
    at: "GraphAccess", run: ModelRunOptions, asked: ContributionOptions
) -> "ContributionResult":
    from emergraph.analysis.influence.contributions import measure_contributions

    _check(run, asked)
    return measure_contributions(at, run, asked)


def _contribution_rows(result: "ContributionResult") -> "Mapping[str, pl.DataFrame]":
    return {CONTRIBUTIONS.name: result.frame}


def _show_contributions(result: "ContributionResult") -> "View":
    from emergraph.analysis.influence.views import contribution_view

    return contribution_view(result)


def _contribution_headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str | None:
    if not rows:
        return None
    source, place, target, unit, share = rows[0]
    return (
        f"the edge from unit {place} of {source} carries {100 * share:.3g} % of what flows into unit {unit} "
        f"of {target}, the largest share"
    )


CONTRIBUTION = Analysis(
    name="contributions",
    summary="Say what each unit adds to the units behind it on inputs, edge by edge.",
    of=Subject.GRAPH,
    options=(ModelRunOptions, ContributionOptions),
    examples="""
    emergraph contributions net.duckdb --model model.onnx --inputs inputs.npz
    emergraph contributions net.duckdb --model model.onnx --inputs inputs.npz --units "layer = 'fc1'" --top 0
    """,
    check=_check,
    run=_run_contributions,
    rows=_contribution_rows,
    show=_show_contributions,
    tables=(CONTRIBUTIONS,),
    section=CONTRIBUTION_SECTION,
    headline=Headline(
        query=Query(
            name="contributions",
            table="edge_contributions",
            sql="""
SELECT a.name, c.src - a.first_unit, b.name, c.dst - b.first_unit, c.share
FROM edge_contributions AS c JOIN runs AS r ON r.id = c.run
JOIN units AS s ON s.graph = r.graph AND s.id = c.src JOIN layers AS a ON a.graph = r.graph AND a.id = s.layer
JOIN units AS t ON t.graph = r.graph AND t.id = c.dst JOIN layers AS b ON b.graph = r.graph AND b.id = t.layer
WHERE c.run = {run} AND c.share > 0 ORDER BY c.share DESC, c.mean_abs DESC, c.dst, c.src LIMIT 1""",
        ),
        text=_contribution_headline,
    ),
)


CIRCUITS = ResultTable(
    "circuits",
    "One row per run: a set of units from which no single one can be left out, and what it keeps.",
    (
        Column(
            "measure",
            "VARCHAR",
            "What is kept small: kl, mse, or target, the squared difference of one number.",
        ),
        Column("share", "DOUBLE", "Share of the behaviour that was asked for."),
        Column("n_candidates", "INTEGER", "Units that could be left out."),
        Column("n_units", "INTEGER", "Units of the circuit."),
        Column(
            "kept", "DOUBLE", "Share that it keeps, all other candidates replaced; 1 is the model as it is."
        ),
        Column(
            "spread_low",
            "DOUBLE",
            "Lower end of its spread over samples, which chose the units; NULL for none.",
        ),
        Column("spread_high", "DOUBLE", "Upper end of it."),
        Column("kept_without", "DOUBLE", "Share that is kept with the circuit alone replaced."),
        Column("minimal", "BOOLEAN", "Whether leaving out any of its units falls below the share."),
        Column("area", "DOUBLE", "Mean kept share over log(1 + size), units by influence."),
        Column("area_magnitude", "DOUBLE", "The same, units by mean absolute activation."),
        Column("area_random", "DOUBLE", "The same, random sets with as many units of each layer."),
        Column("n_samples", "INTEGER", "Samples."),
        Column("n_runs", "INTEGER", "Runs of the whole model with units or edges replaced."),
        Column("n_edges", "INTEGER", "Weights among it, the inputs and the outputs that go on; NULL: all."),
        Column("n_edge_candidates", "INTEGER", "Those that could be left out."),
        Column("edges_kept", "DOUBLE", "Share that the circuit keeps with these edges alone."),
        Column("edges_kept_without", "DOUBLE", "Share that the whole model keeps without these edges."),
        Column("edges_minimal", "BOOLEAN", "Whether leaving out any falls below the share; NULL: not tried."),
    ),
)
CIRCUIT_UNITS = ResultTable(
    "circuit_units",
    "One row per unit of a circuit.",
    (
        Column("layer", "INTEGER", "layers.id."),
        Column("unit", "INTEGER", "units.id."),
        Column("rank", "INTEGER", "By influence alone, from 1."),
        Column("effect", "DOUBLE", "Of knocking out this unit alone, in the measure of the circuit."),
        Column("without", "DOUBLE", "Share that is kept when this unit is left out of the circuit."),
    ),
)
CIRCUIT_EDGES = ResultTable(
    "circuit_edges",
    "One row per edge that goes on among a circuit, the inputs and the outputs.",
    (
        Column("src", "INTEGER", "Source unit: units.id."),
        Column("dst", "INTEGER", "Target unit: units.id."),
        Column("kind", "VARCHAR", "As in edges."),
        Column("weight", "DOUBLE", "As in edges."),
        Column("without", "DOUBLE", "Share kept when this edge is left out, too; NULL: it was not tried."),
    ),
)
CIRCUIT_CURVE = ResultTable(
    "circuit_curve",
    "One row per ranking and size of a run: what the first units of a ranking keep.",
    (
        Column("ranking", "VARCHAR", "influence, magnitude, random, circuit, or random like the circuit."),
        Column("size", "INTEGER", "Units that go on; all other candidates are replaced."),
        Column("kept", "DOUBLE", "Share of the behaviour; of random sets the mean over draws."),
        Column("spread_low", "DOUBLE", "Lower end of its spread over samples; NULL for none."),
        Column("spread_high", "DOUBLE", "Upper end of it."),
    ),
)
CIRCUIT_SECTION = SectionSpec(
    id="circuit",
    title="Circuit",
    lead="The fewest units found that keep a share of a behaviour on these inputs, all others replaced by a "
    "baseline. Another set may do as well: kept without the circuit says whether one does.",
    tables=(
        TableSpec(
            name="circuit",
            title="What the circuit keeps",
            definition=(
                "Share of the behaviour, 1 with all units and 0 with all candidates replaced; its spread "
                "over the samples, which also chose the units; the share with the circuit alone replaced; "
                "and the area under the curve of size against kept share, by influence, by magnitude and "
                "at random."
            ),
            query=Query(
                name="rows",
                table="circuits",
                sql="""
SELECT measure, share, n_units, n_candidates, kept, spread_low, spread_high, kept_without, minimal, area,
       area_magnitude, area_random FROM circuits WHERE run = {run}""",
            ),
        ),
        TableSpec(
            name="circuit-curve",
            title="Size against kept behaviour",
            definition="What the first units of each ranking keep, and random sets of the same size.",
            query=Query(
                name="rows",
                table="circuit_curve",
                sql="""
SELECT ranking, size, kept, spread_low, spread_high FROM circuit_curve WHERE run = {run}
ORDER BY ranking, size""",
            ),
        ),
    ),
    command="emergraph circuit STORE --graph GRAPH --model MODEL --inputs FILE.npz",
)


def _run_circuit(at: "GraphAccess", run: ModelRunOptions, asked: CircuitOptions) -> "CircuitResult":
    from emergraph.analysis.influence.circuits import find_circuit

    _check(run, asked)
    return find_circuit(at, run, asked)


def _circuit_rows(result: "CircuitResult") -> "Mapping[str, pl.DataFrame]":
    from emergraph.analysis.influence.views import circuit_rows

    return circuit_rows(result)


def _show_circuit(result: "CircuitResult") -> "View":
    from emergraph.analysis.influence.views import circuit_view

    return circuit_view(result)


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.influence import figures

    return figures.FIGURES


def _circuit_headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str | None:
    if not rows:
        return None
    n, of, kept, without = rows[0]
    return (
        f"{n} of {of} units keep {kept:.2g} of the behaviour with all others replaced; the others alone keep "
        f"{without:.2g}"
    )


CIRCUIT = Analysis(
    name="circuit",
    summary="Find the fewest units that keep a share of a behaviour while all others are replaced.",
    of=Subject.GRAPH,
    options=(ModelRunOptions, CircuitOptions),
    examples="""
    emergraph circuit net.duckdb --model model.onnx --inputs inputs.npz --target logits:3
    emergraph circuit net.duckdb --model model.onnx --inputs inputs.npz --baseline resample --share 0.95
    """,
    check=_check,
    run=_run_circuit,
    rows=_circuit_rows,
    show=_show_circuit,
    tables=(CIRCUITS, CIRCUIT_UNITS, CIRCUIT_EDGES, CIRCUIT_CURVE),
    section=CIRCUIT_SECTION,
    figures=_figures,
    headline=Headline(
        query=Query(
            name="circuit",
            table="circuits",
            sql="SELECT n_units, n_candidates, kept, kept_without FROM circuits WHERE run = {run}",
        ),
        text=_circuit_headline,
    ),
)
