"""Path counts as rows of a store: the result tables of `emergence`, and the runs that fill them."""

from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.emergence.analysis import (
    BASELINES,
    BY_LAYER,
    BY_THRESHOLD,
    COMPLEXITY,
    COUNTS,
    EMERGENCE,
    INTERVALS,
    NULLS,
    POSITIONS,
)
from emergraph.analysis.emergence.views import value_of
from emergraph.graphstore.results import ResultTable
from emergraph.graphstore.store import StoreFile

if TYPE_CHECKING:  # a count needs neither null models nor a model
    from emergraph.analysis.emergence.fullreport import EmergenceReport
    from emergraph.analysis.emergence.intervals import BootstrapResult
    from emergraph.analysis.emergence.positionrun import PositionReport
    from emergraph.analysis.emergence.result import EmergenceResult, Magnitude
    from emergraph.analysis.emergence.thresholds import ThresholdSweep

Rows = dict[str, pl.DataFrame]


def save_emergence(store: StoreFile, graph: int, result: "EmergenceResult", **about: object) -> int:
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
    return store.record_run(graph, EMERGENCE.name, parameters, result_tables=_count_rows(result))


def _count_rows(result: "EmergenceResult") -> Rows:
    counts = [
        {
            "interior": str(count.interior),
            "activity": result.activity,
            "threshold": result.threshold,
            **_size(count.emergence),
            "exact": None if count.exact is None else str(count.exact),
            "per_param": value_of(count.per_param),
            "per_dense_param": value_of(count.per_dense_param),
            "per_density": value_of(count.per_density),
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


def save_sweep(store: StoreFile, graph: int, sweep: "ThresholdSweep", **about: object) -> int:
    """Write a threshold sweep to a store; return the id of the run. Arguments as in `save_emergence`."""
    parameters = {"activity": sweep.rule, "area_rule": sweep.area_rule, **sweep.options.to_dict(), **about}
    return store.record_run(graph, EMERGENCE.name, parameters, result_tables=_sweep_rows(sweep))


def _sweep_rows(sweep: "ThresholdSweep") -> Rows:
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


def save_intervals(store: StoreFile, graph: int, result: "BootstrapResult", **about: object) -> int:
    """Write bootstrap intervals to a store; return the id of the run. Arguments as in `save_emergence`."""
    parameters = {"activity": result.activity, "level": result.level, **about}
    return store.record_run(
        graph, EMERGENCE.name, parameters, seed=result.seed, result_tables=_interval_rows(result)
    )


def _interval_rows(result: "BootstrapResult") -> Rows:
    rows: list[dict[str, object]] = [
        {
            "interior": str(found.interior),
            "activity": result.activity,
            "emergence": found.observed.value,
            **{name: None if end is None else end.value for name, end in found.ends().items()},
            "level": result.level,
            "n_draws": result.n_draws,
            "n_samples": result.n_samples,
        }
        for found in result.ranges
    ]
    return {INTERVALS.name: _frame(INTERVALS, rows)}


def save_report(store: StoreFile, graph: int, report: "EmergenceReport", **about: object) -> int:
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
        graph,
        EMERGENCE.name,
        parameters,
        seed=int(str(seed)) if seed is not None else None,
        result_tables=tables,
    )


def save_positions(store: StoreFile, graph: int, report: "PositionReport", **about: object) -> int:
    """Write position-level counts to a store; return the id of the run. Arguments as in `save_emergence`."""
    from emergraph.analysis.emergence.positionrun import by_form

    rows = pl.DataFrame(by_form(report), schema=POSITIONS.schema, infer_schema_length=None)
    parameters = {"rule": report.rule.value, "threshold": report.threshold, "positions": True, **about}
    return store.record_run(graph, EMERGENCE.name, parameters, result_tables={POSITIONS.name: rows})


def _frame(table: ResultTable, rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=table.schema)


def _size(magnitude: "Magnitude") -> dict[str, object]:
    return {"emergence": magnitude.value, "log10": magnitude.to_dict()["log10"]}
