"""Path counts as rows of a store: the result tables of `emergence`, and the runs that fill them."""

import polars as pl

from emergraph.analysis.emergence.fullreport import EmergenceReport
from emergraph.analysis.emergence.intervals import BootstrapResult
from emergraph.analysis.emergence.positionrun import PositionReport, by_form
from emergraph.analysis.emergence.result import EmergenceResult, Magnitude
from emergraph.analysis.emergence.thresholds import ThresholdSweep
from emergraph.graphstore.results import Column, ResultTable, register
from emergraph.graphstore.store import Store

COMMAND = "emergence"

COUNTS = register(
    ResultTable(
        "emergence",
        "One row per interior of a run: E, the number of paths from inactive to active units.",
        (
            Column("interior", "VARCHAR", "Where paths run: active (through active units only) or any."),
            Column("activity", "VARCHAR", "Which units are active, in words."),
            Column("threshold", "DOUBLE", "Threshold of the activity rule; NULL for none."),
            Column("emergence", "DOUBLE", "E; infinite beyond 1.8e308."),
            Column("log10", "DOUBLE", "Decimal logarithm of E; NULL where E is 0."),
            Column("exact", "VARCHAR", "E as an integer; NULL where it was not counted exactly."),
            Column("per_param", "DOUBLE", "E / non-zero parameters; NULL without parameters."),
            Column("per_dense_param", "DOUBLE", "E / parameters before pruning; NULL without parameters."),
            Column(
                "per_density", "DOUBLE", "E / (share of parameters that remain); NULL without parameters."
            ),
            Column("n_active", "INTEGER", "Active units."),
            Column("n_inactive", "INTEGER", "Inactive units that count."),
        ),
    )
)
BY_LAYER = register(
    ResultTable(
        "emergence_layers",
        "One row per interior and layer of a run: how much of E starts in the layer.",
        (
            Column("interior", "VARCHAR", "As in emergence."),
            Column("layer", "INTEGER", "layers.id."),
            Column("n_active", "INTEGER", "Active units."),
            Column("n_inactive", "INTEGER", "Inactive units."),
            Column("n_transparent", "INTEGER", "Units where paths pass, but neither start nor end."),
            Column("share", "DOUBLE", "Share of E that starts in the layer, in [0, 1]; NULL where E is 0."),
            Column("log10", "DOUBLE", "Decimal logarithm of that part of E; NULL where it is 0."),
        ),
    )
)
BY_THRESHOLD = register(
    ResultTable(
        "emergence_thresholds",
        "One row per interior and threshold of a sweep.",
        (
            Column("interior", "VARCHAR", "As in emergence."),
            Column("threshold", "DOUBLE", "Threshold of the activity rule."),
            Column("n_active", "DOUBLE", "Active units; for rule per_sample the mean over samples."),
            Column("share_active", "DOUBLE", "Their share of the units that count, in [0, 1]."),
            Column("emergence", "DOUBLE", "E; infinite beyond 1.8e308."),
            Column("log10", "DOUBLE", "Decimal logarithm of E; NULL where E is 0."),
        ),
    )
)
INTERVALS = register(
    ResultTable(
        "emergence_intervals",
        "One row per interior of a bootstrap over the samples of a trace.",
        (
            Column("interior", "VARCHAR", "As in emergence."),
            Column("activity", "VARCHAR", "Which units are active, in words."),
            Column("emergence", "DOUBLE", "E on all samples; for rule per_sample the mean over samples."),
            Column("low", "DOUBLE", "Lower end of the interval."),
            Column("high", "DOUBLE", "Upper end of the interval."),
            Column("confidence", "DOUBLE", "Confidence of the interval, in (0, 1)."),
            Column("n_draws", "INTEGER", "Draws with replacement."),
            Column("n_samples", "INTEGER", "Samples drawn from."),
        ),
    )
)

NULLS = register(
    ResultTable(
        "emergence_nulls",
        "One row per null model and interior of a run: E beside E where chance decides.",
        (
            Column("null_model", "VARCHAR", "What is drawn at random, such as activity_in_layers."),
            Column("interior", "VARCHAR", "As in emergence."),
            Column("activity", "VARCHAR", "shuffled, measured again (the model ran), or held fixed."),
            Column("emergence", "DOUBLE", "E as observed."),
            Column("mean", "DOUBLE", "Mean of the draws."),
            Column("sd", "DOUBLE", "Their standard deviation, of E or of its logarithm, see scale."),
            Column("z", "DOUBLE", "(E - mean) / sd; NULL for a degenerate null."),
            Column("scale", "VARCHAR", "count, or log10 where counts are beyond 1.8e308."),
            Column("p_two_sided", "DOUBLE", "Empirical p value, in (0, 1]."),
            Column("degenerate", "BOOLEAN", "All draws are equal: the null says nothing."),
            Column("n_draws", "INTEGER", "Draws."),
            Column("noise", "DOUBLE", "Size of weight_noise, relative to each tensor's root mean square."),
        ),
    )
)
BASELINES = register(
    ResultTable(
        "emergence_baselines",
        "One row per run: simple figures that a claim about E has to beat.",
        (
            Column("activity_sparsity", "DOUBLE", "Share of the units that count that are inactive."),
            Column("weight_sparsity", "DOUBLE", "Share of the parameters that are exactly zero."),
            Column("weight_l1", "DOUBLE", "Sum of the absolute weights of edges."),
            Column("weight_l2", "DOUBLE", "Root of the sum of their squares."),
            Column("weight_max_abs", "DOUBLE", "Largest absolute weight."),
        ),
    )
)
COMPLEXITY = register(
    ResultTable(
        "emergence_complexity",
        "One row per layer of a run: how far the layer is from a linear map of its input.",
        (
            Column("layer", "INTEGER", "layers.id."),
            Column("unexplained", "DOUBLE", "Share of variance that no linear map explains, held out."),
            Column("status", "VARCHAR", "ok, or why there is no figure."),
        ),
    )
)
POSITIONS = register(
    ResultTable(
        "emergence_positions",
        "One row per form and interior of a run: E between the positions of a convolutional network.",
        (
            Column("form", "VARCHAR", "positions, channels, or filters, as printed."),
            Column("interior", "VARCHAR", "As in emergence; - for the form as printed."),
            Column("emergence", "DOUBLE", "E."),
            Column("log10", "DOUBLE", "Decimal logarithm of E; NULL where E is 0."),
            Column("n_active", "BIGINT", "Active units."),
            Column("n_units", "BIGINT", "Units that count."),
        ),
    )
)
Rows = dict[str, pl.DataFrame]


def save_emergence(store: Store, graph: int, result: EmergenceResult, **about: object) -> int:
    """Write a path count to a store; return the id of the run.

    Args:
        store: Open for writing.
        graph: Id of the graph.
        result: The count.
        about: Parameters of the run beside the options and the activity, such as the trace.
    """
    parameters = {
        "activity": result.activity,
        "threshold": result.threshold,
        **result.options.to_dict(),
        **about,
    }
    return store.record_run(graph, COMMAND, parameters, result_tables=_count_rows(result))


def _count_rows(result: EmergenceResult) -> Rows:
    counts = [
        {
            "interior": str(count.interior),
            "activity": result.activity,
            "threshold": result.threshold,
            **_size(count.emergence),
            "exact": None if count.exact is None else str(count.exact),
            "per_param": _value(count.per_param),
            "per_dense_param": _value(count.per_dense_param),
            "per_density": _value(count.per_density),
            "n_active": result.n_active,
            "n_inactive": result.n_inactive,
        }
        for count in result.counts
    ]
    layers = pl.concat(
        result.layers.select(
            pl.lit(str(count.interior)).alias("interior"),
            *("layer", "n_active", "n_inactive", "n_transparent"),
            pl.col(f"start_{count.interior}").alias("share"),
            pl.col(f"log10_start_{count.interior}").alias("log10"),
        )
        for count in result.counts
    )
    return {COUNTS.name: _frame(COUNTS, counts), BY_LAYER.name: layers}


def save_sweep(store: Store, graph: int, sweep: ThresholdSweep, **about: object) -> int:
    """Write a threshold sweep to a store; return the id of the run. Arguments as in `save_emergence`."""
    parameters = {"activity": sweep.rule, "area_rule": sweep.area_rule, **sweep.options.to_dict(), **about}
    return store.record_run(graph, COMMAND, parameters, result_tables=_sweep_rows(sweep))


def _sweep_rows(sweep: ThresholdSweep) -> Rows:
    rows = pl.concat(
        sweep.frame.select(
            pl.lit(str(summary.interior)).alias("interior"),
            "threshold",
            pl.col("n_active").cast(pl.Float64),
            "share_active",
            pl.col(f"emergence_{summary.interior}").alias("emergence"),
            pl.col(f"log10_{summary.interior}").alias("log10"),
        )
        for summary in sweep.summaries
    )
    return {BY_THRESHOLD.name: rows}


def save_intervals(store: Store, graph: int, result: BootstrapResult, **about: object) -> int:
    """Write bootstrap intervals to a store; return the id of the run. Arguments as in `save_emergence`."""
    parameters = {"activity": result.activity, "confidence": result.confidence, **about}
    return store.record_run(
        graph, COMMAND, parameters, seed=result.seed, result_tables=_interval_rows(result)
    )


def _interval_rows(result: BootstrapResult) -> Rows:
    rows = [
        {
            "interior": str(interval.interior),
            "activity": result.activity,
            "emergence": interval.observed.value,
            "low": interval.low.value,
            "high": interval.high.value,
            "confidence": result.confidence,
            "n_draws": result.n_draws,
            "n_samples": result.n_samples,
        }
        for interval in result.intervals
    ]
    return {INTERVALS.name: _frame(INTERVALS, rows)}


def save_report(store: Store, graph: int, report: EmergenceReport, **about: object) -> int:
    """Write everything of a full report as one run; return its id. Arguments as in `save_emergence`."""
    tables = _sweep_rows(report.sweep)
    if report.result is not None:
        tables |= _count_rows(report.result)
    if report.interval is not None:
        tables |= _interval_rows(report.interval)
    rows = [
        {
            "null_model": null.kind.value,
            "interior": comparison.interior.value,
            "activity": null.activity,
            "emergence": comparison.observed.value,
            "mean": comparison.mean.value,
            "n_draws": null.n_draws,
            "noise": null.noise,
            **{n: getattr(comparison, n) for n in ("sd", "z", "scale", "p_two_sided", "degenerate")},
        }
        for null in report.nulls
        for comparison in null.comparisons
    ]
    tables[NULLS.name] = _frame(NULLS, rows)
    tables[BASELINES.name] = _frame(BASELINES, [report.baselines.to_dict()])
    if report.complexity is not None:
        tables[COMPLEXITY.name] = report.complexity.select(
            pl.col("layer").cast(pl.Int32), "unexplained", "status"
        )
    parameters = {"activity": report.sweep.rule, **report.sweep.options.to_dict(), **about}
    seed = about.get("seed")
    return store.record_run(
        graph, COMMAND, parameters, seed=int(str(seed)) if seed is not None else None, result_tables=tables
    )


def save_positions(store: Store, graph: int, report: PositionReport, **about: object) -> int:
    """Write position-level counts to a store; return the id of the run. Arguments as in `save_emergence`."""
    rows = pl.DataFrame(by_form(report), schema=POSITIONS.schema, infer_schema_length=None)
    parameters = {"rule": report.rule.value, "threshold": report.threshold, "positions": True, **about}
    return store.record_run(graph, COMMAND, parameters, result_tables={POSITIONS.name: rows})


def _frame(table: ResultTable, rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=table.schema)


def _size(magnitude: Magnitude) -> dict[str, object]:
    return {"emergence": magnitude.value, "log10": magnitude.to_dict()["log10"]}


def _value(magnitude: Magnitude | None) -> float | None:
    return None if magnitude is None else magnitude.value
