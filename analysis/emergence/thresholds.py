"""Emergence as a function of the threshold.

A number at one threshold says little; its sweep says where it comes from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import ActivityScores
from emergraph.analysis.emergence.cases import MEMORY, cases_per_pass, count_cases
from emergraph.analysis.emergence.printed import LayerChain, layer_chain, magnitude
from emergraph.analysis.emergence.result import Magnitude
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.paths.grouping import Grouped, group_equal_units
from emergraph.analysis.paths.options import EmergenceOptions, Interior
from emergraph.analysis.paths.reversepass import RowStates, Sweep, reverse_pass
from emergraph.analysis.paths.scaled import LOG10_BAND, Scaled, concatenate
from emergraph.analysis.paths.states import UnitClasses, classify, plan
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError
from emergraph.steps import steps

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """One interior's curve E(t)."""

    interior: Interior
    maximum: Magnitude
    threshold_at_maximum: float
    """Smallest threshold where the maximum is taken."""
    area: Magnitude
    """Integral of E over the thresholds."""
    half_low: float | None
    """Smallest threshold where E is at least half its maximum; None when E is 0 everywhere."""
    half_high: float | None
    """Largest such threshold; with exact steps, where E falls below again."""
    half_contiguous: bool
    """Whether E is at least half its maximum everywhere between."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ThresholdSweep(ShownInNotebooks):
    """E(t) with the summary of each interior's curve."""

    frame: pl.DataFrame
    """One row per threshold, increasing: threshold, n_active, share_active (of the units that count), and for
    each interior `emergence_<interior>` (inf beyond float64) and `log10_<interior>` (null for 0). For
    per_sample, means over samples. Where the layers are a chain also `emergence_printed`, `log10_printed`."""
    summaries: tuple[SweepSummary, ...]
    rule: str
    """The activity rule as text, `t` for the threshold."""
    area_rule: Literal["steps", "trapezoid"]
    """"steps": exact, all distinct values were taken; "trapezoid": over the given grid."""
    options: EmergenceOptions

    def summary(self, interior: Interior | str) -> SweepSummary:
        """The summary of one interior."""
        for summary in self.summaries:
            if summary.interior == interior:
                return summary
        raise UsageError(f"Interior '{interior}' was not counted: ask for it with interiors=(...)")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = self.frame.to_dicts()
        return {
            "rule": self.rule,
            "area_rule": self.area_rule,
            "options": self.options.to_dict(),
            "thresholds": [{k: finite_or_none(v) for k, v in row.items()} for row in rows],
            "summaries": {
                s.interior.value: {
                    "maximum": s.maximum.to_dict(),
                    "threshold_at_maximum": finite_or_none(s.threshold_at_maximum),
                    "area": s.area.to_dict(),
                    "half_low": s.half_low,
                    "half_high": s.half_high,
                    "half_contiguous": s.half_contiguous,
                }
                for s in self.summaries
            },
        }


def threshold_sweep(
    graph: UnitGraph,
    scores: ActivityScores,
    thresholds: Sequence[float] | Floats | Literal["all"],
    *,
    options: EmergenceOptions | None = None,
    memory: int = MEMORY,
) -> ThresholdSweep:
    """Path-count emergence at many thresholds, in one pass over the edges as far as memory allows.

    Nets of dense blocks need no pass: only how many units of each layer are above each threshold, which one
    search of the sorted thresholds gives.

    Args:
        graph: The graph.
        scores: From a rule; per_sample takes the mean over samples at every threshold.
        thresholds: Finite numbers in any order, or "all" for every distinct score, which makes the area
            exact.
        options: Conventions.
        memory: Bytes that the columns of one pass may take.

    Raises:
        UsageError: No thresholds, or some are not finite.
    """
    options = options or EmergenceOptions()
    classes = classify(graph, scores.known, options)
    everything = isinstance(thresholds, str)
    grid = _all_thresholds(scores, classes) if isinstance(thresholds, str) else _given_thresholds(thresholds)
    counts, n_active = _counts(graph, scores, grid, classes, options, memory)
    n_counting = max(1, int((~classes.transparent).sum()))
    frame = pl.DataFrame({"threshold": grid, "n_active": n_active, "share_active": n_active / n_counting})
    summaries = []
    for index, interior in enumerate(options.interiors):
        curve = counts[index]
        logs = pl.Series(curve.log10(), dtype=pl.Float64)
        frame = frame.with_columns(
            pl.Series(f"emergence_{interior}", curve.floats()),
            pl.Series(f"log10_{interior}", logs.set(logs.is_infinite(), None)),
        )
        summaries.append(_summarise(interior, grid, curve, steps=everything))
    chain = layer_chain(graph, classes, options)
    if isinstance(chain, LayerChain) and scores.rule is not ActivityRule.PER_SAMPLE:
        frame = frame.with_columns(_printed_columns(chain, scores, classes, grid))
    return ThresholdSweep(
        frame=frame,
        summaries=tuple(summaries),
        rule=scores.text.replace("{t}", "t"),
        area_rule="steps" if everything else "trapezoid",
        options=options,
    )


def _printed_columns(
    chain: LayerChain, scores: ActivityScores, classes: UnitClasses, grid: Floats
) -> list[pl.Series]:
    """`emergence_printed` and `log10_printed` at every threshold."""
    values = np.where(classes.unmeasured, np.nan, scores.values)
    above = []
    for units in chain.units:
        known = np.sort(values[units][np.isfinite(values[units])])
        assumed = int(classes.assumed_active[units].sum())
        above.append(len(known) - np.searchsorted(known, grid, side="right") + assumed)
    sizes = [magnitude(chain.count_sizes([int(n) for n in layers])) for layers in zip(*above, strict=True)]
    return [
        pl.Series("emergence_printed", [size.value for size in sizes], dtype=pl.Float64),
        pl.Series("log10_printed", [finite_or_none(size.log10) for size in sizes], dtype=pl.Float64),
    ]


def default_thresholds(scores: ActivityScores, *, n: int = 100) -> Floats:
    """A grid that follows the scores: at most n distinct quantiles of the known ones, with both extremes.

    Raises:
        UsageError: No score is known, or n is below 2.
    """
    values = scores.values[np.isfinite(scores.values)]
    if not len(values) or n < 2:
        raise UsageError(
            f"A grid needs known scores and at least 2 thresholds, got {len(values)} scores and n = {n}"
        )
    return np.unique(np.quantile(values, np.linspace(0.0, 1.0, n), method="nearest"))


def _given_thresholds(thresholds: Sequence[float] | Floats) -> Floats:
    grid = np.unique(np.asarray(thresholds, dtype=np.float64))
    if not len(grid) or not np.all(np.isfinite(grid)):
        raise UsageError(f"Thresholds must be finite numbers, got {np.asarray(thresholds).tolist()[:5]}")
    return grid


def _all_thresholds(scores: ActivityScores, classes: UnitClasses) -> Floats:
    counting = scores.values[~classes.transparent & ~classes.unmeasured]
    values = np.unique(counting[np.isfinite(counting)])
    if not len(values):
        raise UsageError("No unit that counts has a known score: there are no thresholds to take")
    return values


def _counts(
    graph: UnitGraph,
    scores: ActivityScores,
    grid: Floats,
    classes: UnitClasses,
    options: EmergenceOptions,
    memory: int,
) -> tuple[Scaled, NDArray[np.float64]]:
    """Counts (n_interiors, n_thresholds) and active units per threshold; means over samples."""
    sweep = plan(graph, options)
    single = scores.rule is not ActivityRule.PER_SAMPLE
    grouped = None
    if single and options.unroll == 1:
        grouped = group_equal_units(graph, sweep.blocks, multiplicity=sweep.multiplicity)
    if grouped is not None:
        return _grouped_counts(grouped, sweep, scores, grid, classes, memory)
    columns = scores.values[:, None] if single else scores.values
    n_samples = columns.shape[1]
    usable = ~(classes.transparent | classes.unmeasured)
    ordered = np.sort(columns[usable], axis=None)
    n_active = (len(ordered) - np.searchsorted(ordered, grid, side="right")) / n_samples
    n_active = n_active + classes.assumed_active.sum()

    def cases(chosen: slice) -> NDArray[np.bool_]:
        at, sample = np.divmod(np.arange(len(grid) * n_samples)[chosen], n_samples)
        with np.errstate(invalid="ignore"):
            above: NDArray[np.bool_] = columns[:, sample] > grid[at]
        return above

    counted = count_cases(
        graph, cases, len(grid) * n_samples, known=scores.known, options=options, memory=memory
    )
    mean = counted.reshape(len(options.interiors), len(grid), n_samples).sum(axis=2)
    return Scaled(mean.value / n_samples, mean.band), n_active


def _grouped_counts(
    grouped: Grouped, sweep: Sweep, scores: ActivityScores, grid: Floats, classes: UnitClasses, memory: int
) -> tuple[Scaled, NDArray[np.float64]]:
    values = np.where(classes.transparent | classes.unmeasured, np.nan, scores.values)
    assumed = grouped.count(classes.assumed_active)[:, None]
    transparent = grouped.count(classes.transparent)
    sweep = replace(sweep, blocks=grouped.graph.blocks)
    at_once = cases_per_pass(len(grouped.size), len(sweep.interiors), memory)
    parts, n_active = [], []
    for start in steps(range(0, len(grid), at_once), "thresholds"):
        active = grouped.count_above(values, grid[start : start + at_once]) + assumed
        states = RowStates(active=active, transparent=transparent, size=grouped.size)
        parts.append(
            reverse_pass(grouped.graph, states, sweep).starts.sum(axis=0).reshape(len(sweep.interiors), -1)
        )
        n_active.append(active.sum(axis=0))
    return concatenate(parts, axis=1), np.concatenate(n_active).astype(np.float64)


def _summarise(interior: Interior, grid: Floats, curve: Scaled, *, steps: bool) -> SweepSummary:
    logs = curve.log10()
    top = float(logs.max())
    if top == -math.inf:
        nothing = Magnitude(value=0.0, log10=-math.inf)
        return SweepSummary(
            interior=interior,
            maximum=nothing,
            threshold_at_maximum=float(grid[0]),
            area=nothing,
            half_low=None,
            half_high=None,
            half_contiguous=False,
        )
    best = int(np.argmax(logs))
    bands = np.zeros(len(grid), dtype=np.int64) if curve.band is None else curve.band.astype(np.int64)
    maximum = curve[best]
    relative = np.ldexp(curve.value / float(maximum.value), np.maximum(bands - bands[best], -4) * 512)
    width = np.diff(grid)
    area = float(
        np.sum(relative[:-1] * width) if steps else np.sum((relative[1:] + relative[:-1]) * width / 2)
    )
    high = np.flatnonzero(relative >= 0.5)
    # With exact steps E keeps its value up to the next threshold.
    last = min(int(high[-1]) + steps, len(grid) - 1)
    value = float(maximum.floats())
    return SweepSummary(
        interior=interior,
        maximum=Magnitude.of(maximum),
        threshold_at_maximum=float(grid[best]),
        area=Magnitude(
            value=value * area if area > 0 else 0.0,
            log10=float(np.log10(maximum.value)) + LOG10_BAND * int(bands[best]) + math.log10(area)
            if area > 0
            else -math.inf,
        ),
        half_low=float(grid[high[0]]),
        half_high=float(grid[last]),
        half_contiguous=bool(len(high) == high[-1] - high[0] + 1),
    )
