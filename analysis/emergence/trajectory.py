"""Emergence along a training run: with change in performance, and as a reason to stop.

Steps are snapshots in order. The change in a metric m is `d_t = m_(t+1) - m_t`, so that E at step t meets the
change that follows it; smoothed, it is the same difference of trailing means `(m_(t-w+1) + ... + m_t) / w`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.emergence.options import TrajectoryOptions
from emergraph.analysis.emergence.rankcorrelation import RankCorrelation, rank_correlation

Floats = NDArray[np.float64]

MINIMUM_PAIRS = 4
"""Fewest pairs that a correlation is taken of."""


@dataclass(frozen=True, kw_only=True)
class LaggedCorrelation:
    """How E goes with the change in the metric some steps later."""

    measure: str
    """Column of the trajectory, such as log10_active."""
    smoothed: bool
    lag: int
    raw: RankCorrelation
    """Spearman's rank correlation. Its p value takes steps as exchangeable, which a trend is not."""
    given_step: RankCorrelation
    """The same with the rank of the step held constant: what is left of it when both only follow time."""

    def row(self) -> dict[str, object]:
        """One row of a table."""
        return {
            "measure": self.measure,
            "change": "smoothed" if self.smoothed else "raw",
            "lag": self.lag,
            "n": self.raw.n,
            "rho": self.raw.rho,
            "p": self.raw.p,
            "rho_given_step": self.given_step.rho,
            "p_given_step": self.given_step.p,
        }


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Where a rule on E stops, beside ordinary early stopping."""

    rule: str
    """settled (E changes little) or near_zero (E is a small share of its largest value)."""
    measure: str
    step: int | None
    """Step at which the rule stops; None: never."""
    ordinary_step: int | None
    """Step at which early stopping on the metric stops; None: never, training went on to the end."""
    saved: int | None
    """Snapshots that the rule stops earlier than ordinary stopping or the end; negative: later."""
    loss: float | None
    """Best metric up to ordinary stopping less that up to the rule's; positive: the rule costs this much."""

    def row(self) -> dict[str, object]:
        """One row of a table."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Emergence and metrics over the steps of a training run."""

    frame: pl.DataFrame
    """One row per step, see `trajectory`."""
    correlations: tuple[LaggedCorrelation, ...]
    stoppings: tuple[Stopping, ...]
    activity: str
    options: TrajectoryOptions
    left_out: tuple[str, ...] = ()
    """Graphs and questions that were left out, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "steps": self.frame.to_dicts(),
            "correlations": [c.row() for c in self.correlations],
            "stoppings": [s.row() for s in self.stoppings],
            "activity": self.activity,
            "options": self.options.to_dict(),
            "left_out": list(self.left_out),
        }


def trailing_mean(values: Sequence[float] | Floats, window: int) -> Floats:
    """Mean of each value and up to window - 1 before it.

    Example:
        >>> trailing_mean([0.0, 1.0, 5.0], 2).tolist()
        [0.0, 0.5, 3.0]
    """
    array = np.asarray(values, dtype=np.float64)
    sums = np.concatenate(([0.0], np.cumsum(array)))
    end = np.arange(1, len(array) + 1)
    begin = np.maximum(0, end - window)
    return np.asarray((sums[end] - sums[begin]) / (end - begin))


def change(values: Sequence[float] | Floats, *, window: int = 1) -> Floats:
    """Change that follows each step but the last, `(n - 1,)`: of the values, or of their trailing means."""
    return np.diff(trailing_mean(values, window))


def lagged_correlations(
    measure: str,
    emergence: Sequence[float] | Floats,
    metric: Sequence[float] | Floats,
    options: TrajectoryOptions,
) -> list[LaggedCorrelation]:
    """Rank correlations of E at step t with the change in the metric that follows step t + lag.

    Args:
        measure: Name of the measure.
        emergence: (n_steps,) any figure of emergence; steps where it is not finite are left out.
        metric: (n_steps,) the metric.
        options: Lags, window, permutations.

    Returns:
        Raw and smoothed, per lag from 0 to `max_lag`; lags with fewer than 4 pairs are left out.
    """
    figures = np.asarray(emergence, dtype=np.float64)
    found = []
    for smoothed in (False, True):
        changes = change(metric, window=options.window if smoothed else 1)
        for lag in range(options.max_lag + 1):
            n = len(changes) - lag
            if n < MINIMUM_PAIRS:
                continue
            x, y = figures[:n], changes[lag:]
            usable = np.isfinite(x) & np.isfinite(y)
            if usable.sum() < MINIMUM_PAIRS:
                continue
            at = np.flatnonzero(usable).astype(np.float64)
            n_draws, seed = options.n_permutations, options.seed
            found.append(
                LaggedCorrelation(
                    measure=measure,
                    smoothed=smoothed,
                    lag=lag,
                    raw=rank_correlation(x[usable], y[usable], n_permutations=n_draws, seed=seed),
                    given_step=rank_correlation(
                        x[usable], y[usable], given=[at], n_permutations=n_draws, seed=seed
                    ),
                )
            )
    return found


def early_stop(
    metric: Sequence[float] | Floats, *, patience: int, min_delta: float = 0.0, higher_is_better: bool = True
) -> int | None:
    """Position at which ordinary early stopping stops: `patience` steps after the last improvement.

    An improvement is a value better than the best so far by more than `min_delta`.

    Returns:
        Position, None when the run ends before.

    Example:
        >>> early_stop([0.5, 0.7, 0.7, 0.69, 0.9], patience=2)
        3
    """
    signed = np.asarray(metric, dtype=np.float64) * (1 if higher_is_better else -1)
    best, since = -math.inf, 0
    for position, value in enumerate(signed):
        if value > best + min_delta or best == -math.inf:
            best, since = max(best, float(value)), 0
        else:
            since += 1
        if since >= patience:
            return position
    return None


def settled(emergence: Sequence[float] | Floats, *, patience: int, tolerance: float) -> int | None:
    """Position after `patience` steps in a row that changed E by at most `tolerance` of its value before.

    Example:
        >>> settled([100.0, 50.0, 50.1, 50.0, 20.0], patience=2, tolerance=0.01)
        3
    """
    values = np.asarray(emergence, dtype=np.float64)
    quiet = np.abs(np.diff(values)) <= tolerance * np.abs(values[:-1])
    return _run_of(quiet, patience, offset=1)


def near_zero(emergence: Sequence[float] | Floats, *, patience: int, share: float) -> int | None:
    """Position at which E has been at most `share` of its largest value so far for `patience` steps.

    Example:
        >>> near_zero([100.0, 0.5, 0.0, 0.0], patience=2, share=0.01)
        2
    """
    values = np.asarray(emergence, dtype=np.float64)
    return _run_of(values <= share * np.maximum.accumulate(values), patience, offset=0)


def _run_of(holds: NDArray[np.bool_], length: int, *, offset: int) -> int | None:
    run = 0
    for position, value in enumerate(holds.tolist()):
        run = run + 1 if value else 0
        if run >= length:
            return position + offset
    return None


def stoppings(
    measure: str,
    emergence: Sequence[float] | Floats,
    metric: Sequence[float] | Floats,
    steps: Sequence[int],
    options: TrajectoryOptions,
) -> list[Stopping]:
    """Compare both rules on E with ordinary early stopping on the metric.

    Args:
        measure: Name of the measure of emergence.
        emergence: (n_steps,) E itself, or shares of it; not logarithms.
        metric: (n_steps,).
        steps: (n_steps,) training steps.
        options: Patience, tolerances.
    """
    values = np.asarray(metric, dtype=np.float64)
    better = values if options.higher_is_better else -values
    ordinary = early_stop(
        values,
        patience=options.patience,
        min_delta=options.min_delta,
        higher_is_better=options.higher_is_better,
    )
    until = len(values) - 1 if ordinary is None else ordinary
    positions: Mapping[str, int | None] = {
        "settled": settled(emergence, patience=options.patience, tolerance=options.tolerance),
        "near_zero": near_zero(emergence, patience=options.patience, share=options.share),
    }
    return [
        Stopping(
            rule=rule,
            measure=measure,
            step=None if at is None else int(steps[at]),
            ordinary_step=None if ordinary is None else int(steps[ordinary]),
            saved=None if at is None else until - at,
            loss=None if at is None else float(better[: until + 1].max() - better[: at + 1].max()),
        )
        for rule, at in positions.items()
    ]
