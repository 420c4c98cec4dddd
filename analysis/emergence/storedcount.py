"""Path-count emergence of a stored graph: one count, a sweep, an interval, a full report, or positions.

The options say which. All are runs of one analysis; each has rows for some of its result tables.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.activity.options import ActivityOptions, ActivityRule
from emergraph.analysis.activity.rules import activity_scores
from emergraph.analysis.emergence.analysis import (
    BASELINES,
    BY_LAYER,
    BY_THRESHOLD,
    COMPLEXITY,
    COUNTS,
    INTERVALS,
    NULLS,
    POSITIONS,
    has_interval,
)
from emergraph.analysis.emergence.options import ExtentOptions, ReportOptions
from emergraph.analysis.emergence.views import value_of
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.errors import UsageError
from emergraph.graphstore.results import ResultTable

if TYPE_CHECKING:  # a count needs neither null models nor a model
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from emergraph.analysis.access import GraphAccess
    from emergraph.analysis.activity.scores import ActivityScores
    from emergraph.analysis.activity.unittrace import UnitTrace
    from emergraph.analysis.emergence.fullreport import EmergenceReport
    from emergraph.analysis.emergence.intervals import BootstrapResult
    from emergraph.analysis.emergence.positionrun import PositionReport
    from emergraph.analysis.emergence.remeasure import ModelActivity
    from emergraph.analysis.emergence.result import EmergenceResult, Magnitude
    from emergraph.analysis.emergence.thresholds import ThresholdSweep
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.unitgraph import UnitGraph

    AnyResult = EmergenceResult | ThresholdSweep | BootstrapResult | EmergenceReport | PositionReport

Rows = dict[str, pl.DataFrame]


def stored_emergence(
    at: "GraphAccess",
    activity: ActivityOptions,
    report: ReportOptions,
    extent: ExtentOptions,
    conventions: EmergenceOptions,
) -> "AnyResult":
    """Count the paths of a stored graph, to the extent that is asked for.

    Args:
        at: The graph.
        activity: Which units are active.
        report: Thresholds of a sweep, draws of an interval, null models.
        extent: What else is asked for, and the model for what runs it.
        conventions: Of the count.

    Raises:
        UsageError: The graph has no such trace, or an option does not make sense.
        InvalidInputError: The model is not the graph's, or the inputs are not the trace's.
        LimitError: The model hit a limit, or counts of positions are beyond float64.
    """
    if extent.model is not None and not extent.runs_model and not at.in_place:
        raise UsageError("--model and --nulls are for null models: add --full")
    several = extent.positions or extent.full or report.thresholds is not None
    if extent.carried is not None and (several or has_interval(activity, report)):
        raise UsageError("--carried is for a single count: no --full, --positions, --thresholds, --draws")
    at.leave_out(activity, report, extent)
    at.keep(rule=str(activity.rule))
    if extent.positions:
        at.leave_out(conventions)
        return _positions(at, activity, extent)
    if extent.full:
        return _full(at, activity, report, extent, conventions)
    if report.thresholds is not None:
        return _sweep(at, activity, report, conventions)
    if has_interval(activity, report):
        return _interval(at, activity, report, conventions)
    return _count(at, activity, extent, conventions)


def _count(
    at: "GraphAccess", activity: ActivityOptions, extent: ExtentOptions, conventions: EmergenceOptions
) -> "EmergenceResult":
    from emergraph.analysis.emergence.pathcount import path_count_emergence, with_scale_free

    graph, scores, measured = _scored(at, activity)
    removed = _removed(at, graph, extent.reference, conventions)
    active = scores.above(activity.threshold)
    result = path_count_emergence(graph, active, options=conventions, removed=removed)
    at.keep(activity=result.activity, threshold=result.threshold, reference=extent.reference)
    if extent.carried is not None:
        from emergraph.analysis.emergence.carried import carrying_graph

        strong = carrying_graph(at.reader, graph, extent.carried)
        counts = path_count_emergence(strong, active, options=conventions).counts
        result = replace(result, carried=counts, carried_share=extent.carried)
        at.keep(carried=extent.carried)
    return result if measured is None else with_scale_free(result, graph, scores.rule, measured)


def _sweep(
    at: "GraphAccess", activity: ActivityOptions, report: ReportOptions, conventions: EmergenceOptions
) -> "ThresholdSweep":
    from emergraph.analysis.emergence.thresholds import default_thresholds, threshold_sweep

    graph, scores, _ = _scored(at, activity)
    grid = default_thresholds(scores, n=report.grid) if isinstance(report.grid, int) else report.grid
    sweep = threshold_sweep(graph, scores, grid, options=conventions)
    at.keep(activity=sweep.rule, area_rule=sweep.area_rule, thresholds=report.kept()["thresholds"])
    return sweep


def _interval(
    at: "GraphAccess", activity: ActivityOptions, report: ReportOptions, conventions: EmergenceOptions
) -> "BootstrapResult":
    from emergraph.analysis.emergence.intervals import bootstrap_emergence

    measured = at.trace(activity.trace)
    result = bootstrap_emergence(
        at.units(),
        measured,
        activity.rule,
        threshold=activity.threshold,
        options=conventions,
        n_draws=report.n_draws,
        seed=report.seed,
    )
    at.keep(activity=result.activity, level=result.level, trace=measured.name)
    at.keep(threshold=activity.threshold, draws=report.n_draws, seed=report.seed)
    return result


def _full(
    at: "GraphAccess",
    activity: ActivityOptions,
    report: ReportOptions,
    extent: ExtentOptions,
    conventions: EmergenceOptions,
) -> "EmergenceReport":
    from emergraph.analysis.emergence.fullreport import full_report

    files = _files(at, extent)
    report = replace(report, nulls=report.null_kinds(runs_model=files is not None))
    graph, scores, measured = _scored(at, activity)
    if measured is None and (activity.trace is not None or at.reader.traces().height):
        measured = at.trace(activity.trace)

    def open_model() -> "ModelActivity":
        from emergraph.analysis.emergence.remeasure import ModelActivity

        if files is None:
            raise UsageError("null models of weights that run the model need its file")
        rule, threshold = activity.rule, activity.threshold
        return ModelActivity(at.reader, graph, files, trace=activity.trace, rule=rule, threshold=threshold)

    found = full_report(
        graph,
        scores,
        trace=measured,
        threshold=activity.threshold,
        options=conventions,
        report=report,
        removed=_removed(at, graph, extent.reference, conventions),
        open_model=None if files is None else open_model,
    )
    at.keep(activity=found.sweep.rule, full=True, threshold=activity.threshold, reference=extent.reference)
    at.keep(**report.to_dict(), **({} if files is None else files.kept()))
    return found


def _positions(at: "GraphAccess", activity: ActivityOptions, extent: ExtentOptions) -> "PositionReport":
    from emergraph.analysis.emergence.positionrun import position_report
    from emergraph.analysis.emergence.remeasure import trace_row

    files = _files(at, extent)
    if files is None:
        raise UsageError("--positions runs the model: give --model FILE, and no --full or --before")
    rule, threshold = activity.rule, activity.threshold
    report = position_report(at.reader, files, rule=rule, threshold=threshold, trace=activity.trace)
    at.keep(threshold=report.threshold, positions=True, trace=trace_row(at.reader, activity.trace)["name"])
    at.keep(**files.kept())
    return report


def _files(at: "GraphAccess", extent: ExtentOptions) -> "ModelFiles | None":
    """The model and its inputs; None without a model."""
    if at.files is not None or extent.model is None:
        return at.files
    from emergraph.analysis.modelruns.files import ModelFiles

    return ModelFiles(model=extent.model, inputs=extent.inputs, root=at.root)


def _scored(
    at: "GraphAccess", activity: ActivityOptions
) -> "tuple[UnitGraph, ActivityScores, UnitTrace | None]":
    """The graph, the scores of its units, and the trace that they are of, if any."""
    graph = at.units()
    if activity.rule is ActivityRule.WEIGHT_CHANGE:
        if activity.before is None:
            raise UsageError("Rule 'weight_change' compares two snapshots: name the earlier graph")
        at.keep(before=activity.before)
        earlier = read_unit_graph(at.store.graph(activity.before))
        return graph, activity_scores(activity.rule, graph, before=earlier), None
    if activity.before is not None:
        raise UsageError(f"Rule '{activity.rule}' looks at one graph: an earlier one is for weight_change")
    measured = at.trace(activity.trace)
    at.keep(trace=measured.name)
    return graph, activity_scores(activity.rule, graph, trace=measured), measured


def _removed(
    at: "GraphAccess", graph: "UnitGraph", reference: str | int | None, conventions: EmergenceOptions
) -> "NDArray[np.float64] | None":
    """What pruning removed, for the edge form; None where no reference is named."""
    if reference is None:
        return None
    from emergraph.analysis.emergence.edgeform import removed_in_degree

    dense = None if reference == "full" else read_unit_graph(at.store.graph(reference))
    return removed_in_degree(graph, dense, options=conventions)


def emergence_rows(result: "AnyResult") -> Rows:
    """Return the rows of a run by result table."""
    found: Rows = _ROWS[type(result).__name__](result)
    return found


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
        for count in result.named_counts
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


def _sweep_rows(sweep: "ThresholdSweep") -> Rows:
    names = [str(summary.interior) for summary in sweep.summaries]
    if "log10_printed" in sweep.frame.columns:
        names.append("printed")
    rows = pl.concat(
        sweep.frame.select(
            pl.lit(name).alias("interior"),
            "threshold",
            pl.col("n_active").cast(pl.Float64),
            "share_active",
            pl.col(f"emergence_{name}").alias("emergence"),
            pl.col(f"log10_{name}").alias("log10"),
        )
        for name in names
    )
    return {BY_THRESHOLD.name: rows}


def _interval_rows(result: "BootstrapResult") -> Rows:
    rows: list[dict[str, object]] = [
        {
            "interior": str(found.interior),
            "activity": result.activity,
            "emergence": found.observed.value,
            "median": None if found.median is None else found.median.value,
            **{name: None if end is None else end.value for name, end in found.ends().items()},
            "level": result.level,
            "n_draws": result.n_draws,
            "n_samples": result.n_samples,
        }
        for found in result.ranges
    ]
    return {INTERVALS.name: _frame(INTERVALS, rows)}


def _report_rows(report: "EmergenceReport") -> Rows:
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
    return tables


def _position_rows(report: "PositionReport") -> Rows:
    from emergraph.analysis.emergence.positionrun import by_form

    return {POSITIONS.name: pl.DataFrame(by_form(report), schema=POSITIONS.schema, infer_schema_length=None)}


def _frame(table: ResultTable, rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=table.schema)


def _size(magnitude: "Magnitude") -> dict[str, object]:
    return {"emergence": magnitude.value, "log10": magnitude.to_dict()["log10"]}


_ROWS: "Mapping[str, Callable[..., Rows]]" = {
    "EmergenceResult": _count_rows,
    "ThresholdSweep": _sweep_rows,
    "BootstrapResult": _interval_rows,
    "EmergenceReport": _report_rows,
    "PositionReport": _position_rows,
}
