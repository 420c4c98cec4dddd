"""Intervals of path-count emergence: over the samples of a trace, and over seeds or snapshots."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.contribution import contribution_scores
from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import rule_named, trace_scores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.cases import count_cases
from emergraph.analysis.emergence.result import Magnitude
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.paths.options import EmergenceOptions, Interior
from emergraph.analysis.paths.scaled import Scaled, weighted_mean
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with a percentile interval from bootstrap draws over samples."""

    interior: Interior
    observed: Magnitude
    """On all samples of the trace; for per_sample the mean over the kept ones."""
    low: Magnitude
    high: Magnitude

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "interior": self.interior.value,
            **{name: getattr(self, name).to_dict() for name in ("observed", "low", "high")},
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class BootstrapResult(ShownInNotebooks):
    """Bootstrap over the samples of a trace."""

    intervals: tuple[Interval, ...]
    """One per interior."""
    draws: pl.DataFrame
    """One row per draw: draw, and log10_<interior> for each interior (null for 0)."""
    samples: pl.DataFrame | None
    """For per_sample, one row per sample: sample, n_active, log10_<interior>."""
    activity: str
    confidence: float
    n_draws: int
    n_samples: int
    """Samples that were drawn from: those whose values the trace keeps."""
    seed: int

    def interval(self, interior: Interior | str) -> Interval:
        """The interval of one interior."""
        for interval in self.intervals:
            if interval.interior == interior:
                return interval
        raise UsageError(f"Interior '{interior}' was not counted: ask for it with interiors=(...)")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single draws."""
        return {
            "intervals": {i.interior.value: i.to_dict() for i in self.intervals},
            "activity": self.activity,
            "confidence": self.confidence,
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
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapResult:
    """Percentile interval of E over samples drawn with replacement.

    Each draw weights the kept samples, decides the activity of every unit again and counts again; all draws
    share passes over the edges. With rule per_sample, E is counted once per sample and its mean is what is
    drawn.

    Args:
        graph: The graph.
        trace: Activations with per-sample values.
        rule: Any rule but weight_change; contribution passes over the edges twice for each draw.
        threshold: Default: the rule's own.
        options: Conventions.
        n_draws: Draws, at least 2.
        confidence: Between 0 and 1.
        seed: Seed of the draws.

    Raises:
        UsageError: The trace keeps no samples, the rule has none, or a number is out of range.
    """
    options = options or EmergenceOptions()
    rule = _checked_rule(rule, n_draws, confidence)
    samples = trace.kept(rule).astype(np.float64)
    n_samples = len(samples)
    evenly = np.full(n_samples, 1 / n_samples)
    weights = np.random.default_rng(seed).multinomial(n_samples, evenly, size=n_draws)
    scores = (
        contribution_scores(graph, trace) if rule is ActivityRule.CONTRIBUTION else trace_scores(rule, trace)
    )
    at = scores.above(threshold)
    known = at.known
    if rule is ActivityRule.PER_SAMPLE:
        each = count_cases(graph, lambda cases: at.active[:, cases], n_samples, known=known, options=options)
        observed = weighted_mean(each, evenly[None, :])
        drawn = weighted_mean(each, weights / n_samples)
        per_sample = _sample_frame(each, at.active, known, options)
    else:
        observed = count_cases(graph, lambda _: at.active[:, None], 1, known=known, options=options)
        limit = math.nan if at.threshold is None else at.threshold
        drawn = count_cases(
            graph,
            lambda cases: _drawn_activity(graph, samples, weights[cases], rule, limit),
            n_draws,
            known=known,
            options=options,
        )
        per_sample = None
    return BootstrapResult(
        intervals=tuple(
            _interval(interior, observed[index], drawn[index], confidence)
            for index, interior in enumerate(options.interiors)
        ),
        draws=_log_frame("draw", drawn, options),
        samples=per_sample,
        activity=at.text,
        confidence=confidence,
        n_draws=n_draws,
        n_samples=n_samples,
        seed=seed,
    )


def _checked_rule(rule: ActivityRule | str, n_draws: int, confidence: float) -> ActivityRule:
    rule = rule_named(rule)
    if n_draws < 2 or not 0 < confidence < 1:
        raise UsageError(f"Expected at least 2 draws and 0 < confidence < 1, got {n_draws} and {confidence}")
    if rule is ActivityRule.WEIGHT_CHANGE:
        raise UsageError("Rule 'weight_change' does not depend on samples: there is nothing to draw")
    return rule


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
    return np.asarray(share > n / 2 if rule is ActivityRule.MAJORITY else share > 0)


def _interval(interior: Interior, observed: Scaled, drawn: Scaled, confidence: float) -> Interval:
    order = np.argsort(drawn.log10(), kind="stable")
    # Outward rounding: the interval's ends are draws, and no interpolation between counts is needed.
    low = math.floor((1 - confidence) / 2 * (len(order) - 1))
    high = math.ceil((1 + confidence) / 2 * (len(order) - 1))
    return Interval(
        interior=interior,
        observed=Magnitude.of(observed[0]),
        low=Magnitude.of(drawn[int(order[low])]),
        high=Magnitude.of(drawn[int(order[high])]),
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


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over repetitions (seeds, snapshots): mean with Student's t interval, median and range."""

    n: int
    mean: float
    sd: float
    """With divisor n - 1; NaN for one repetition."""
    low: float
    """Lower end of the interval of the mean; NaN for one repetition."""
    high: float
    median: float
    smallest: float
    largest: float
    confidence: float

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON."""
        return {name: finite_or_none(v) for name, v in asdict(self).items()}


def spread(values: Sequence[float], *, confidence: float = 0.95) -> Spread:
    """Mean and interval of a figure over independent repetitions.

    `mean +- t(n - 1) sd / sqrt(n)` (Student). For counts over many orders of magnitude give their log10.

    Raises:
        UsageError: No values, or some are not finite.

    Example:
        >>> round(spread([1.0, 2.0, 3.0]).high, 4)
        4.4841
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers) or not np.all(np.isfinite(numbers)):
        raise UsageError(f"A spread needs finite values, got {numbers.tolist()[:5]}")
    from scipy.special import stdtrit

    n = len(numbers)
    sd = float(numbers.std(ddof=1)) if n > 1 else math.nan
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n) if n > 1 else math.nan
    mean = float(numbers.mean())
    return Spread(
        n=n,
        mean=mean,
        sd=sd,
        low=mean - half,
        high=mean + half,
        median=float(np.median(numbers)),
        smallest=float(numbers.min()),
        largest=float(numbers.max()),
        confidence=confidence,
    )
