"""`emergraph percolate`: what grows together as edges are added one by one."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.percolation.options import (
    CollapseOptions,
    ConceptOptions,
    LogColumns,
    OrderName,
    OrderOptions,
    PairColumns,
    PercolationOptions,
)
from emergraph.analysis.view import BRIEF_ROWS, View, beside
from emergraph.graphstore.results import Column, ResultTable
from emergraph.optionforms import TableForm

if TYPE_CHECKING:
    import polars as pl

    from emergraph.analysis.access import GraphAccess
    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.percolation.concepts import ConceptResult
    from emergraph.analysis.percolation.result import PercolationResult
    from emergraph.analysis.percolation.training import TrainingResult

THRESHOLDS = ResultTable(
    "percolation",
    "One row per series of a run: the observed order of edges, and null models.",
    (
        Column("series", "VARCHAR", "observed, shuffled within blocks (the null model), or random."),
        Column("threshold", "DOUBLE", "Edges at the peak of the susceptibility, mean over seeds."),
        Column("low", "DOUBLE", "Lower end of its 95 % interval over seeds; NULL for a single order."),
        Column("high", "DOUBLE", "Upper end of its interval."),
        Column("share", "DOUBLE", "Threshold as a share of all edges that are added, in [0, 1]."),
        Column("giant", "DOUBLE", "Share of units in the largest component at the peak, first seed."),
        Column("susceptibility", "DOUBLE", "Height of the peak, in units, first seed."),
        Column("half_reach", "BIGINT", "Edges at which half of the inputs reach an output; NULL: never."),
        Column("n_seeds", "INTEGER", "Repetitions; 1 where nothing is random."),
        Column("degree_threshold", "DOUBLE", "Edges expected from the degrees; NULL for never."),
        Column("layered_threshold", "DOUBLE", "Edges expected from edges per layer; NULL for never."),
    ),
)
CURVE = ResultTable(
    "percolation_curve",
    "One row per series and number of edges of a run.",
    (
        Column("series", "VARCHAR", "As in percolation."),
        Column("edges", "BIGINT", "Edges that have been added."),
        Column("share", "DOUBLE", "The same as a share of all, in [0, 1]."),
        Column("giant", "DOUBLE", "Share of units in the largest component, mean over seeds."),
        Column("giant_spread_low", "DOUBLE", "Percentile 2.5 of it over seeds."),
        Column("giant_spread_high", "DOUBLE", "Percentile 97.5 of it over seeds."),
        Column(
            "susceptibility",
            "DOUBLE",
            "Expected component size of a core unit, 0 in the giant one; mean.",
        ),
        Column("components", "DOUBLE", "Number of components, mean over seeds."),
        Column("reach", "DOUBLE", "Share of inputs with a directed path to an output, first seed."),
    ),
)
BY_BLOCK = ResultTable(
    "percolation_blocks",
    "One row per block of a run: the block by itself, as a bipartite graph.",
    (
        Column("block", "INTEGER", "blocks.id."),
        Column("name", "VARCHAR", "Name of the operation."),
        Column("layer", "INTEGER", "Target layer: layers.id."),
        Column("n_src", "INTEGER", "Source units with edges."),
        Column("n_dst", "INTEGER", "Target units with edges."),
        Column("n_edges", "BIGINT", "Edges."),
        Column("threshold", "BIGINT", "Edges at the peak of the susceptibility."),
        Column("predicted", "DOUBLE", "sqrt(n_src n_dst), for random pairs."),
        Column("degree_threshold", "DOUBLE", "Expected from the degrees; NULL for never."),
    ),
)
SECTION = SectionSpec(
    id="percolation",
    title="Percolation",
    lead="Edges are added one by one, and the network grows together. The null models say what is special "
    "about it.",
    tables=(
        TableSpec(
            name="percolation",
            title="Thresholds",
            definition=(
                "Threshold: edges at the peak of the susceptibility, mean and percentiles 2.5 to 97.5 over "
                "seeds; share: the same over all edges. Half reach: edges at which half of the inputs reach "
                "an output. Expected thresholds: of random graphs with these degrees, and with as many "
                "edges between layers."
            ),
            query=Query(
                name="rows",
                table="percolation",
                sql="""
SELECT series, threshold, low, high, share, half_reach, n_seeds AS seeds,
       degree_threshold AS expected_from_degrees, layered_threshold AS expected_from_layers
FROM percolation WHERE run = {run} ORDER BY series = 'observed' DESC, series""",
            ),
        ),
    ),
)


SHOWN_POINTS = 20
"""Points of the curve that people see."""


def _run(at: "GraphAccess", order: OrderOptions, options: PercolationOptions) -> "PercolationResult":
    from emergraph.analysis.percolation.percolate import contribution_key, percolate, sql_keys

    named = order.order in set(OrderName) - {OrderName.CONTRIBUTION}
    expression = order.order
    if order.order == OrderName.CONTRIBUTION:
        expression = contribution_key(at.path, at.id)
    keys = None if named else sql_keys(at.path, at.id, expression, kinds=options.kinds)
    trace = at.trace(order.trace) if order.order == OrderName.ACTIVITY else None
    at.keep(trace=None if trace is None else trace.name)
    return percolate(at.units(), order.order, keys=keys, trace=trace, options=options)


def _rows(result: "PercolationResult") -> dict[str, "pl.DataFrame"]:
    import polars as pl

    predictions = {
        "degree_threshold": finite_or_none(result.degree_threshold),
        "layered_threshold": finite_or_none(result.layered_threshold),
    }
    thresholds = result.summary().with_columns(
        pl.lit(value, dtype=pl.Float64).alias(name) for name, value in predictions.items()
    )
    blocks = result.layers.with_columns(
        pl.when(pl.col("degree_threshold").is_finite()).then("degree_threshold").alias("degree_threshold")
    )
    return {THRESHOLDS.name: thresholds, CURVE.name: result.curve(), BY_BLOCK.name: blocks}


def _finding(result: "PercolationResult") -> str:
    """Where the network grows together, and whether its weights have anything to do with it."""
    from emergraph.analysis.statistics.intervals import is_clear

    observed = result.observed
    share = f"{100 * observed.threshold / result.n_edges:.3g} %" if result.n_edges else "-"
    said = f"The network grows together at {observed.threshold:,.0f} of {result.n_edges:,} edges ({share})"
    shuffled = next((row for row in result.comparisons() if row["null"] != "random"), None)
    if shuffled is None:
        return f"{said}; without a null model (--nulls 5) that says little."
    z = shuffled["z"]
    if not isinstance(z, float):
        return f"{said}; the null model '{shuffled['null']}' does not vary here, so nothing can be compared."
    null = next(series for series in result.series if series.name == shuffled["null"])
    n_draws = len(null.curves)
    order = beside(
        z,
        clear=is_clear(z, n_draws),
        above="later than",
        below="earlier than",
        neither="no clear difference from",
    )
    return (
        f"{said}, {order} the {null.threshold:,.0f} where the weights are {shuffled['null']} (z = {z:.2g}, "
        f"{n_draws} draws)."
    )


def _show(result: "PercolationResult") -> View:
    facts: dict[str, object] = {
        "graph": result.graph,
        "order": result.order,
        "units": result.n_units,
        "edges added": result.n_edges,
        "edges there from the start": result.n_given,
        "units that end up connected": result.observed.curves[0].n_core,
        "expected from degrees": f"{result.degree_threshold:.6g} edges",
        "expected from layers": f"{result.layered_threshold:.6g} edges",
    }
    notes = []
    for row in result.comparisons():
        told = "no variance, degenerate" if row["z"] is None else f"z = {row['z']:.3g}"
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.4g}"
        facts[f"threshold / {row['null']}"] = f"{ratio} ({told})"
    if result.n_without_key:
        notes.append(
            f"{result.n_without_key} of {result.n_edges} edges have no key, such as units without a recorded "
            "activity: they are added last"
        )
    if result.has_ties:
        n_seeds = len(result.observed.curves)
        notes.append(f"some keys are equal: their order is random, over {n_seeds} seed{'s' * (n_seeds > 1)}")
    curve = result.curve().filter(series="observed").drop("series")
    every = max(1, curve.height // SHOWN_POINTS)
    series = result.summary()
    return View(
        finding=_finding(result),
        rows=series,
        details=curve.gather_every(every),
        brief=[series.select("series", "threshold", "low", "high", "share", "half_reach", "n_seeds")],
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.percolation import figures

    return figures.FIGURES


def _headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str:
    thresholds = {series: (edges, share) for series, edges, share in rows}
    edges, share = thresholds.pop("observed")
    others = " and ".join(f"{other:,.0f} ({series})" for series, (other, _) in thresholds.items())
    beside_it = f"; by chance at {others}, on average" if others else ""
    return f"The network grows together at {edges:,.0f} edges, {100 * share:.3g} % of them{beside_it}"


PERCOLATE = Analysis(
    name="percolate",
    summary="Add the edges one by one, strongest first, and find the percolation threshold.",
    of=Subject.GRAPH,
    options=(OrderOptions, PercolationOptions),
    examples="""
    emergraph percolate net.duckdb
    emergraph percolate net.duckdb --order l2 --seeds 10 --format json
    emergraph percolate net.duckdb --order activity --trace digits --nulls 20
    """,
    run=_run,
    rows=_rows,
    show=_show,
    tables=(THRESHOLDS, CURVE, BY_BLOCK),
    section=SECTION,
    figures=_figures,
    measures=(
        Query(
            name="percolation",
            table="percolation",
            sql="""
            SELECT 'threshold, share of edges, ' || series, share, low / threshold * share,
                   high / threshold * share
            FROM percolation WHERE run = {run} AND threshold > 0 ORDER BY series
        """,
        ),
    ),
    headline=Headline(
        query=Query(
            name="percolation",
            table="percolation",
            sql="SELECT series, threshold, share FROM percolation WHERE run = {run} ORDER BY series",
        ),
        text=_headline,
    ),
)


def _run_concepts(
    table: "pl.DataFrame",
    columns: PairColumns,
    options: ConceptOptions,
    _form: TableForm,
    *,
    progress: "Callable[[float, float], None] | None" = None,
) -> "ConceptResult":
    from emergraph.analysis.percolation.concepts import concept_percolation

    return concept_percolation(table, columns=columns, options=options, progress=progress)


def _show_concepts(result: "ConceptResult") -> View:
    share = "-" if result.inferable_share is None else f"{result.inferable_share:.4g}"
    facts: dict[str, object] = {
        "entities |E|": result.n_entities,
        "properties |K|": result.n_properties,
        "rows": result.n_observations,
        "distinct pairs M": result.n_pairs,
        "threshold M_c = sqrt(|E||K|)": f"{result.expected_threshold:.6g} pairs",
        "M / M_c": f"{result.relative:.4g}",
        "connected pairs": f"{result.connected} of {result.n_possible} ({result.connected_share:.4g})",
        "inferable though unseen": f"{result.inferable} ({share} of unseen)",
    }
    if result.classes.height > 1:
        facts["threshold M_c = sqrt(|E||K|)"] = (
            f"{result.expected_threshold:.6g} pairs, summed over {result.classes.height} classes"
        )
    notes = [f"{result.n_left_out} rows lack an entry and are left out"] if result.n_left_out else []
    every = max(1, result.curve.height // SHOWN_POINTS)
    shown = result.curve.drop("random_spread_low", "random_spread_high", "observations", strict=False)
    details = shown.gather_every(every) if result.classes.height == 1 else result.classes
    side = "above" if result.relative > 1 else "below"
    return View(
        finding=f"{result.n_pairs:,} distinct pairs, {result.relative:.3g} times the percolation threshold, "
        f"{side} it; {share} of the unseen pairs can be inferred.",
        rows=result.thresholds,
        details=details,
        brief=[result.thresholds]
        if result.classes.height == 1
        else [result.thresholds, details.head(BRIEF_ROWS)],
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )


CONCEPTS = Analysis(
    name="concepts",
    summary=(
        "Find which unseen pairs entity-property data connect, and where they percolate (arXiv 2408.12578)."
    ),
    of=Subject.FILE,
    file="Parquet or CSV, one row per pair seen; - for CSV on stdin.",
    options=(PairColumns, ConceptOptions, TableForm),
    examples="""
    emergraph concepts pairs.parquet
    emergraph concepts stream.csv --time seen_at --class kind --format json
    emergraph concepts facts.csv --entity who --property what --entities 900 --properties 18000
    """,
    run=_run_concepts,
    show=_show_concepts,
)


def _run_transition(
    table: "pl.DataFrame",
    columns: LogColumns,
    options: CollapseOptions,
    _form: TableForm,
    *,
    progress: "Callable[[float, float], None] | None" = None,
) -> "TrainingResult":
    from emergraph.analysis.percolation.training import training_transitions

    return training_transitions(
        table,
        columns=columns,
        draws=options.draws,
        seed=options.seed,
        margin=options.margin,
        progress=progress,
    )


def _show_transition(result: "TrainingResult") -> View:
    facts: dict[str, object] = {"metric": result.metric, "runs": len(result.fits)}
    facts |= {f"best described by {sort}": n for sort, n in result.preferred().items() if n}
    if result.exponent is not None:
        told = result.exponent
        facts["exponent of |E||K|"] = told.text
        facts["prediction 0.5"] = f"{told.verdict} (margin {told.margin:g})"
    notes = [f"left out: {reason}" for reason in result.left_out]
    if result.exponents:
        notes.append(result.statement)
    else:
        notes.append("no exponent: it needs at least three runs, of two sizes, that have a transition")
    finding = f"{len(result.fits)} runs give no exponent: three with a transition, of two sizes, would."
    if (power := result.exponent) is not None:
        finding = (
            f"The transition moves with |E||K| to the power {power.exponent:.3g} ({power.low:.3g} to "
            f"{power.high:.3g}); the predicted 0.5 is {power.verdict} at a margin of {power.margin:g}."
        )
    return View(
        finding=finding,
        rows=result.runs(),
        details=result.exponent_table() if result.exponents else None,
        facts=facts,
        document=result.to_dict(),
        notes=notes,
        columns=(
            *("run", "n_entities", "n_properties", "n_points", "threshold", "threshold_spread_low"),
            *("threshold_spread_high", "middle", "bic_percolation", "bic_logistic", "bic_power", "best"),
        ),
    )


TRANSITION = Analysis(
    name="transition",
    summary="Fit the transition of each training run, and the exponent with which it moves with |E||K|.",
    details=(
        "A percolation curve is compared with smooth ones. Only the exponent, 0.5, is predicted, not the "
        "step."
    ),
    of=Subject.FILE,
    file="Parquet or CSV, one row per run and step; - for CSV on stdin.",
    options=(LogColumns, CollapseOptions, TableForm),
    examples="""
    emergraph transition log.csv --metric accuracy
    emergraph transition runs.parquet --metric type_check --run seed,batch --format json
    """,
    run=_run_transition,
    show=_show_transition,
)
