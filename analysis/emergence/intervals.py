"""E over the samples of a trace: an interval where it has one, the spread over resamples where it has none.

A count over units that are active above a threshold is a step function of the samples. Bootstrap draws add
the noise of the samples a second time to every unit near the threshold, always in the direction of half
active: their percentiles held the count of the whole population 81 to 99 % of the time in a network of 64
units, which is not an interval. They are given as the *spread over resamples*. The counts of `per_sample` are
independent numbers, and their median has an interval that holds whatever they are distributed like, between
two of them. Their mean has none: Student's held it 59 to 78 % of the time where counts differ by a decade,
since the few largest, which make the mean, may not be among the samples. Rule `any` has neither: no draw of
the samples shows a larger maximum than the largest of them, and its spread leaves out the truth.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.contribution import contribution_scores
from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import rule_named, trace_scores
from emergraph.analysis.activity.unittrace import PositionPooling, UnitTrace
from emergraph.analysis.emergence.cases import count_cases
from emergraph.analysis.emergence.result import Magnitude
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.paths.options import EmergenceOptions, Interior
from emergraph.analysis.paths.scaled import Scaled, weighted_mean
from emergraph.analysis.statistics.estimate import check_level
from emergraph.analysis.statistics.intervals import counts_of_draws, median_rank
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError

Floats = NDArray[np.float64]

_POOLING = {ActivityRule.MEAN_ABS: PositionPooling.ABS, ActivityRule.CONTRIBUTION: PositionPooling.ABS}
"""What a sample's value is made of, so that the mean over samples is the statistic of the rule."""


@dataclass(frozen=True, kw_only=True)
class SampleRange:
    """E with two ends, over samples."""

    interior: Interior
    observed: Magnitude
    """On all samples of the trace; for per_sample the mean over the kept ones."""
    median: Magnitude | None
    """For per_sample, the middle one of the kept samples' counts (of two, the lower); else None."""
    low: Magnitude | None
    """None where the samples are too few to tell: five or less at 95 %."""
    high: Magnitude | None

    @property
    def is_interval(self) -> bool:
        """Whether the ends are an interval of the median; else they hold most counts of resamples."""
        return self.median is not None

    def ends(self) -> dict[str, Magnitude | None]:
        """Ends by name: low and high of an interval, spread_low and spread_high of a spread."""
        low, high = (self.low, self.high) if self.is_interval else (None, None)
        spread_low, spread_high = (None, None) if self.is_interval else (self.low, self.high)
        return {"low": low, "high": high, "spread_low": spread_low, "spread_high": spread_high}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        named = {"observed": self.observed, "median": self.median, **self.ends()}
        return {
            "interior": self.interior.value,
            **{name: end.to_dict() for name, end in named.items() if end is not None},
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class BootstrapResult(ShownInNotebooks):
    """E over the samples of a trace."""

    ranges: tuple[SampleRange, ...]
    """One per interior."""
    draws: pl.DataFrame
    """One row per draw: draw, and log10_<interior> for each interior (null for 0). Empty for per_sample."""
    samples: pl.DataFrame | None
    """For per_sample, one row per sample: sample, n_active, log10_<interior>."""
    activity: str
    level: float
    """Coverage of the interval, or the share of draws between the ends of the spread."""
    n_draws: int
    """Draws with replacement; 0 for per_sample, whose interval needs none."""
    n_samples: int
    """Samples that were drawn from: those whose values the trace keeps."""
    seed: int

    def range(self, interior: Interior | str) -> SampleRange:
        """The ends of one interior."""
        for found in self.ranges:
            if found.interior == interior:
                return found
        raise UsageError(f"Interior '{interior}' was not counted: ask for it with interiors=(...)")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single draws."""
        return {
            "ranges": {r.interior.value: r.to_dict() for r in self.ranges},
            "activity": self.activity,
            "level": self.level,
            "n_draws": self.n_draws,
            "n_samples": self.n_samples,
            "seed": self.seed,
            "samples": None if self.samples is None else self.samples.to_dicts(),
        }


def bootstrap_emergence(
    graph: UnitGraph,
    trace: UnitTrace,
    rule: ActivityRule | str,
    *,
    threshold: float | None = None,
    options: EmergenceOptions | None = None,
    n_draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> BootstrapResult:
    """E over samples: the interval of its median for per_sample, else its spread over samples drawn again.

    Each draw weights the kept samples, decides the activity of every unit again and counts again; all draws
    share passes over the edges.

    Args:
        graph: The graph.
        trace: Activations with per-sample values.
        rule: Any rule but weight_change and any; contribution passes over the edges twice for each draw.
        threshold: Default: the rule's own.
        options: Conventions.
        n_draws: Draws, at least 2.
        level: Coverage of the interval, or share of the draws between the ends; between 0 and 1.
        seed: Seed of the draws.

    Raises:
        UsageError: The trace keeps no samples, the rule has neither, or a number is out of range.
    """
    options = options or EmergenceOptions()
    rule = rule_named(rule)
    check_level(level)
    if reason := no_range(rule):
        raise UsageError(f"Rule '{rule}' {reason}")
    samples = trace.kept(rule, _POOLING.get(rule, PositionPooling.MEAN)).astype(np.float64)
    scores = (
        contribution_scores(graph, trace) if rule is ActivityRule.CONTRIBUTION else trace_scores(rule, trace)
    )
    at = scores.above(threshold)
    counted = partial(count_cases, graph, known=at.known, options=options)
    if rule is ActivityRule.PER_SAMPLE:
        each = counted(lambda cases: at.active[:, cases], len(samples))
        mean = weighted_mean(each, np.full((1, len(samples)), 1 / len(samples)))
        ranges = [sample_range(name, mean[i, 0], each[i], level) for i, name in enumerate(options.interiors)]
        per_sample = _sample_frame(each, at.active, at.known, options)
        draws, n_draws = _log_frame("draw", each[:, :0], options), 0
    else:
        weights = counts_of_draws(len(samples), n_draws, seed=seed)
        observed = counted(lambda _: at.active[:, None], 1)
        limit = math.nan if at.threshold is None else at.threshold
        drawn = counted(lambda cases: _drawn_activity(graph, samples, weights[cases], rule, limit), n_draws)
        ranges = [_spread(name, observed[i], drawn[i], level) for i, name in enumerate(options.interiors)]
        draws, per_sample = _log_frame("draw", drawn, options), None
    return BootstrapResult(
        ranges=tuple(ranges),
        draws=draws,
        samples=per_sample,
        activity=at.text,
        level=level,
        n_draws=n_draws,
        n_samples=len(samples),
        seed=seed,
    )


def no_range(rule: ActivityRule) -> str | None:
    """Why a rule has neither interval nor spread over samples; None where it has one."""
    if rule is ActivityRule.WEIGHT_CHANGE:
        return "does not depend on samples: there is nothing to draw"
    if rule is ActivityRule.ANY:
        return (
            "has no interval over samples: one sample decides it, and samples drawn again show no larger "
            "maximum; take per_sample or mean_abs"
        )
    return None


def _drawn_activity(
    graph: UnitGraph, samples: Floats, weights: NDArray[np.int64], rule: ActivityRule, threshold: float
) -> NDArray[np.bool_]:
    """(n_units, n_draws) activity when sample i counts weights[d, i] times in draw d."""
    n = len(samples)
    known = np.nan_to_num(samples, nan=0.0)
    if rule in (ActivityRule.MEAN, ActivityRule.MEAN_ABS):
        means = weights @ (known if rule is ActivityRule.MEAN else np.abs(known)) / n
        return np.asarray(threshold < means.T)
    if rule is ActivityRule.CONTRIBUTION:
        sizes = weights @ np.abs(known) / n
        sizes[:, np.isnan(samples).any(axis=0)] = np.nan
        drawn = (UnitTrace(statistics={"mean_abs": size}, n_samples=n) for size in sizes)
        scores = [contribution_scores(graph, trace).values for trace in drawn]
        return np.asarray(np.stack(scores, axis=1) > threshold)
    above = (samples > threshold).astype(np.float64)
    share = (weights @ above).T
    return np.asarray(share > n / 2)


def _spread(interior: Interior, observed: Scaled, drawn: Scaled, level: float) -> SampleRange:
    order = np.argsort(drawn.log10(), kind="stable")
    # Outward rounding: the ends are draws, and no interpolation between counts is needed.
    low = math.floor((1 - level) / 2 * (len(order) - 1))
    high = math.ceil((1 + level) / 2 * (len(order) - 1))
    return SampleRange(
        interior=interior,
        observed=Magnitude.of(observed[0]),
        median=None,
        low=Magnitude.of(drawn[int(order[low])]),
        high=Magnitude.of(drawn[int(order[high])]),
    )


def sample_range(interior: Interior, mean: Scaled, each: Scaled, level: float) -> SampleRange:
    """The mean of the counts of samples beside their median and its interval.

    Args:
        interior: Which paths were counted.
        mean: Mean of the counts.
        each: (n_samples,) counts.
        level: Coverage of the interval.
    """
    order = np.argsort(each.log10(), kind="stable")
    ordered = [Magnitude.of(each[int(at)]) for at in order]
    rank = median_rank(len(order), level)
    return SampleRange(
        interior=interior,
        observed=Magnitude.of(mean),
        median=ordered[(len(order) - 1) // 2],
        low=ordered[rank - 1] if rank else None,
        high=ordered[-rank] if rank else None,
    )


def _log_frame(index: str, counts: Scaled, options: EmergenceOptions) -> pl.DataFrame:
    frame = pl.DataFrame({index: np.arange(counts.value.shape[1])})
    for at, interior in enumerate(options.interiors):
        logs = pl.Series(counts[at].log10(), dtype=pl.Float64)
        frame = frame.with_columns(pl.Series(f"log10_{interior}", logs.set(logs.is_infinite(), None)))
    return frame


def _sample_frame(
    each: Scaled, active: NDArray[np.bool_], known: NDArray[np.bool_], options: EmergenceOptions
) -> pl.DataFrame:
    n_active = active[known].sum(axis=0)
    return _log_frame("sample", each, options).with_columns(pl.Series("n_active", n_active))
