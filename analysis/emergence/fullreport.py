"""Everything that is said about one E at once: sweep, interval, null models, baselines, edge form."""

import math
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
from emergraph.analysis.emergence.intervals import BootstrapResult, bootstrap_emergence, no_range
from emergraph.analysis.emergence.nulls import NullResult, null_model
from emergraph.analysis.emergence.options import ACTIVITY_NULLS, NullKind, ReportOptions
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.result import EmergenceResult
from emergraph.analysis.emergence.thresholds import ThresholdSweep, default_thresholds, threshold_sweep
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.errors import UsageError
from emergraph.graphstore.records import PATH_KINDS

if TYPE_CHECKING:
    from emergraph.analysis.emergence.remeasure import ModelActivity


Floats = NDArray[np.float64]

# Effective complexity: how far a layer is from a linear map of its input, on the samples of a trace.

MINIMUM_SAMPLES = 10


def effective_complexity(
    graph: UnitGraph, trace: UnitTrace, *, n_folds: int = 5, seed: int = 0
) -> pl.DataFrame:
    """Share of each layer's output variance that the best linear map of its input does not explain.

    Ridge regression from the activations of a layer's direct sources to its own, over trace samples. The
    penalty is chosen within each training part by leave-one-out error; the share is `sum of squared errors /
    sum of squares about the training mean` on the held-out parts, over all units of the layer.
    0: linear; 1: no better than the mean.

    Args:
        graph: The graph.
        trace: Activations with at least 10 kept samples.
        n_folds: Parts, at least 2; each is held out once.
        seed: Seed of the partition.

    Returns:
        One row per layer that has sources: layer, name, n_inputs, n_outputs, n_samples, unexplained (null
        where sources or units are not measured or do not vary; above 1 where the map fails on held-out
        samples), and status.

    Raises:
        UsageError: Too few samples or folds.
    """
    samples = trace.kept("effective complexity").astype(np.float64)
    if len(samples) < MINIMUM_SAMPLES or not 2 <= n_folds <= len(samples) // 2:
        raise UsageError(
            f"Effective complexity needs at least {MINIMUM_SAMPLES} samples and 2 to n/2 folds, "
            f"got {len(samples)} samples and {n_folds} folds"
        )
    measured = np.asarray(~np.isnan(samples).any(axis=0))
    fold = np.random.default_rng(seed).permutation(len(samples)) % n_folds
    rows = []
    for layer_id, sources in _sources_by_layer(graph).items():
        layer = graph.layer_of(layer_id)
        outputs = np.arange(layer.first_unit, layer.first_unit + layer.n_units)
        outputs = outputs[measured[outputs]]
        row: dict[str, Any] = {
            "layer": layer.id,
            "name": layer.name,
            "n_inputs": len(sources),
            "n_outputs": len(outputs),
            "n_samples": len(samples),
            "unexplained": None,
            "status": "ok",
        }
        if not len(outputs):
            row["status"] = "units not measured"
        elif not measured[sources].all():
            row["status"] = "sources not measured"
        else:
            row["unexplained"] = held_out_share(samples[:, sources], samples[:, outputs], fold)
            if row["unexplained"] is None:
                row["status"] = "units do not vary"
        rows.append(row)
    schema = {"layer": pl.Int64, "name": pl.String, "n_inputs": pl.Int64, "n_outputs": pl.Int64}
    return pl.DataFrame(
        rows, schema=schema | {"n_samples": pl.Int64, "unexplained": pl.Float64, "status": pl.String}
    )


def _sources_by_layer(graph: UnitGraph) -> dict[int, NDArray[np.int64]]:
    """Direct sources of each layer over the kinds that paths follow, by layer id in order."""
    blocks = [block for block in graph.blocks if block.kind in PATH_KINDS and block.n_edges]
    is_source: dict[int, NDArray[np.bool_]] = {}
    streamed: list[UnitBlock] = []
    for block in blocks:
        seen = is_source.setdefault(block.layer, np.zeros(graph.n_units, dtype=bool))
        if block.dense and block.src_units is not None:
            seen[block.src_units] = True
        else:
            streamed.append(block)
    for block, edges in graph.iter_pieces(streamed, columns=("src",)):
        is_source[block.layer][edges["src"]] = True
    return {layer: np.flatnonzero(is_source[layer]) for layer in sorted(is_source)}


def held_out_share(inputs: Floats, outputs: Floats, fold: NDArray[np.int64]) -> float | None:
    """Held-out unexplained share of variance of outputs given inputs; None when the outputs do not vary.

    Args:
        inputs: (n, p).
        outputs: (n, q).
        fold: (n,) part of each sample.
    """
    error = total = 0.0
    for part in np.unique(fold):
        train, held = fold != part, fold == part
        center_in, center_out = inputs[train].mean(axis=0), outputs[train].mean(axis=0)
        target = outputs[held] - center_out
        predicted = _ridge(inputs[train] - center_in, outputs[train] - center_out, inputs[held] - center_in)
        error += float(((target - predicted) ** 2).sum())
        total += float((target**2).sum())
    scale = float((outputs**2).sum())
    return error / total if total > 1e-20 * max(scale, 1e-300) else None


def _ridge(inputs: Floats, outputs: Floats, held: Floats) -> Floats:
    """Predictions on held-out inputs with the penalty of least leave-one-out error."""
    u, s, vt = np.linalg.svd(inputs, full_matrices=False)
    keep = s > s.max(initial=0.0) * max(inputs.shape) * np.finfo(float).eps
    u, s, vt = u[:, keep], s[keep], vt[keep]
    if not len(s):
        return np.zeros((len(held), outputs.shape[1]))
    projected = u.T @ outputs
    best, choice = math.inf, s
    for penalty in float((s**2).mean()) * 10.0 ** np.arange(-10.0, 4.0):
        shrink = s**2 / (s**2 + penalty)
        # Leave-one-out residual: residual / (1 - leverage), the mean's share of the leverage included.
        leverage = (u**2) @ shrink + 1 / len(inputs)
        left = (outputs - u @ (shrink[:, None] * projected)) / np.maximum(1 - leverage, 1e-12)[:, None]
        loss = float((left**2).sum())
        if loss < best:
            best, choice = loss, shrink / s
    return np.asarray(held @ vt.T @ (choice[:, None] * projected))


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
