"""Everything that is said about one E at once: sweep, interval, null models, baselines, edge form."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import ActivityScores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.baselines import Baselines, baselines
from emergraph.analysis.emergence.complexity import MINIMUM_SAMPLES, effective_complexity
from emergraph.analysis.emergence.intervals import BootstrapResult, bootstrap_emergence, no_range
from emergraph.analysis.emergence.nulls import NullResult, null_model
from emergraph.analysis.emergence.options import ACTIVITY_NULLS, NullKind, ReportOptions
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.result import EmergenceResult
from emergraph.analysis.emergence.thresholds import ThresholdSweep, default_thresholds, threshold_sweep
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.emergence.remeasure import ModelActivity

Floats = NDArray[np.float64]
OpenModel = Callable[[], "AbstractContextManager[ModelActivity]"]
"""Opens the model for weight nulls; closed when they are done."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EmergenceReport(ShownInNotebooks):
    """E with what says where it comes from and whether it is more than chance or sparsity."""

    result: EmergenceResult | None
    """None for rule per_sample, whose E is the mean over samples in `interval`."""
    sweep: ThresholdSweep
    interval: BootstrapResult | None
    """None where there are no samples to draw from: rule weight_change, or a trace without values."""
    nulls: tuple[NullResult, ...]
    baselines: Baselines
    complexity: pl.DataFrame | None
    """Per layer, see `effective_complexity`; None without enough samples."""
    left_out: dict[str, str] = field(default_factory=dict)
    """What could not be measured, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "count": None if self.result is None else self.result.to_dict(),
            "sweep": self.sweep.to_dict(),
            "interval": None if self.interval is None else self.interval.to_dict(),
            "nulls": {null.kind.value: null.to_dict() for null in self.nulls},
            "baselines": self.baselines.to_dict(),
            "effective_complexity": None if self.complexity is None else self.complexity.to_dicts(),
            "left_out": self.left_out,
        }


def full_report(
    graph: UnitGraph,
    scores: ActivityScores,
    *,
    trace: UnitTrace | None = None,
    threshold: float | None = None,
    options: EmergenceOptions | None = None,
    report: ReportOptions | None = None,
    removed: Floats | None = None,
    open_model: OpenModel | None = None,
) -> EmergenceReport:
    """Count, sweep, draw and compare.

    Args:
        graph: The graph.
        scores: Activity scores by any rule.
        trace: The activations behind them, for the interval and effective complexity.
        threshold: Default: the rule's own.
        options: Conventions of the count.
        report: How much of everything.
        removed: For the edge form, see `edgeform.removed_in_degree`.
        open_model: For nulls of weights: measures activity by running the model. Without it they hold the
            activity fixed and say so; weight_noise is then left out.

    Raises:
        UsageError: An option makes no sense for the graph.
    """
    options, report = options or EmergenceOptions(), report or ReportOptions()
    activity = scores.above(threshold)
    grid = report.grid
    if isinstance(grid, int):
        grid = default_thresholds(scores, n=grid).tolist()
    left_out: dict[str, str] = {}
    single = scores.rule is not ActivityRule.PER_SAMPLE
    result = path_count_emergence(graph, activity, options=options, removed=removed) if single else None
    sweep = threshold_sweep(graph, scores, grid, options=options)
    interval = None
    if trace is None or trace.samples is None:
        left_out["interval"] = f"rule {scores.rule} has no samples to draw from"
    elif reason := no_range(scores.rule):
        left_out["interval"] = f"rule {scores.rule} {reason}"
    else:
        interval = bootstrap_emergence(
            graph,
            trace,
            scores.rule,
            threshold=threshold,
            options=options,
            n_draws=report.n_draws,
            seed=report.seed,
        )
    nulls: list[NullResult] = []
    if single:
        kinds = report.null_kinds(runs_model=False)
        runs_model = open_model is not None and not ACTIVITY_NULLS.issuperset(kinds)
        with open_model() if runs_model and open_model is not None else nullcontext() as measure:
            for kind in kinds:
                found = _null_of(graph, kind, scores, threshold, options, report, measure, left_out)
                nulls += [] if found is None else [found]
    else:
        left_out["nulls"] = "rule per_sample has no one activity to compare"
    return EmergenceReport(
        result=result,
        sweep=sweep,
        interval=interval,
        nulls=tuple(nulls),
        baselines=baselines(graph, activity, options=options),
        complexity=_complexity(graph, trace, left_out),
        left_out=left_out,
    )


def _null_of(
    graph: UnitGraph,
    kind: NullKind,
    scores: ActivityScores,
    threshold: float | None,
    options: EmergenceOptions,
    report: ReportOptions,
    measure: "ModelActivity | None",
    left_out: dict[str, str],
) -> NullResult | None:
    """One null model; None, with the reason, where the model cannot be run with its weights."""
    of_weights = kind not in ACTIVITY_NULLS
    if kind is NullKind.WEIGHT_NOISE and measure is None:
        left_out[kind.value] = "noise leaves the graph as it is: the model must run again (--model)"
        return None
    try:
        return null_model(
            graph,
            scores.above(threshold),
            kind,
            options=options,
            n_draws=report.weight_draws if of_weights else report.null_draws,
            seed=report.seed,
            measure_activity=measure if of_weights else None,
            noise=report.noise if kind is NullKind.WEIGHT_NOISE else None,
            keep=() if measure is None else measure.kept_blocks(kind),
        )
    except UsageError as error:
        if not of_weights:
            raise
        left_out[kind.value] = str(error)
        return None


def _complexity(graph: UnitGraph, trace: UnitTrace | None, left_out: dict[str, str]) -> pl.DataFrame | None:
    n = 0 if trace is None or trace.samples is None else len(trace.samples)
    if trace is None or n < MINIMUM_SAMPLES:
        left_out["effective_complexity"] = f"needs {MINIMUM_SAMPLES} samples with values, not {n}"
        return None
    return effective_complexity(graph, trace)
