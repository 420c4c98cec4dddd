"""Emergence along training runs: with change in performance, and as a reason to stop.

Steps are snapshots in order. The change in a metric m is `d_t = m_(t+1) - m_t`, so that E at step t meets the
change that follows it; smoothed, it is the same difference of trailing means `(m_(t-w+1) + ... + m_t) / w`.

Steps of one run are not replicates. A p value comes from at least six independent runs with the same steps
(`paired_runs_p`), or from one run of at least 40 steps whose E and change are both stationary around a line
(`stationary_p`); otherwise there is the effect, and the reason for no p value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.emergence.options import TrajectoryOptions
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.analysis.statistics.permutation import SIGNIFICANT, holm, partial_spearman
from emergraph.analysis.statistics.series import (
    MINIMUM_RUNS,
    MINIMUM_STEPS,
    SeriesTest,
    paired_runs_p,
    stationary_p,
)

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
    n: int
    """Pairs of each run."""
    rho: Estimate
    """Spearman's rank correlation along the steps, mean over runs; one run has no interval."""
    given_step: Estimate
    """The same with the rank of the step held constant: what is left of it when both only follow time."""
    test: SeriesTest
    """Its p value, or why there is none."""
    p_holm: float | None = None
    """p after Holm's correction over all correlations of the trajectory."""

    def row(self) -> dict[str, object]:
        """One row of a table."""
        ends = {"low": self.rho.low, "high": self.rho.high, "rho_given_step": self.given_step.mean}
        return {
            "measure": self.measure,
            "change": "smoothed" if self.smoothed else "raw",
            "lag": self.lag,
            "n": self.n,
            "runs": self.rho.n,
            "rho": finite_or_none(self.rho.mean),
            **{name: finite_or_none(value) for name, value in ends.items()},
            "p": self.test.p,
            "p_holm": self.p_holm,
            "test": self.test.how,
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
    training: str = ""
    """Name of the run."""
    loss: float | None
    """Best metric up to ordinary stopping less that up to the rule's; positive: the rule costs this much."""

    def row(self) -> dict[str, object]:
        """One row of a table."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory(ShownInNotebooks):
    """Emergence and metrics over the steps of one or several training runs."""

    frame: pl.DataFrame
    """One row per run and step, see `stored_trajectory`."""
    correlations: tuple[LaggedCorrelation, ...]
    stoppings: tuple[Stopping, ...]
    activity: str
    options: TrajectoryOptions
    left_out: tuple[str, ...] = ()
    """Graphs and questions that were left out, and why."""

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the training runs."""
        return tuple(self.frame["training"].unique(maintain_order=True).to_list())

    @property
    def verdict(self) -> str:
        """Whether E goes with the change in the metric: what the p values say, in a line."""
        tested = [c for c in self.correlations if c.p_holm is not None]
        if not self.correlations:
            return "undecided: no correlation was taken"
        if not tested:
            return (
                f"undecided: {len(self.runs)} run(s) show an effect and no p value; it takes at least "
                f"{MINIMUM_RUNS} independent runs, or one of {MINIMUM_STEPS} steps without drift"
            )
        best = min(tested, key=lambda c: c.p_holm or 0.0)
        kind = "smoothed change" if best.smoothed else "change"
        where = f"{best.measure}, {kind}, lag {best.lag}"
        about = f"least p {best.p_holm:.2g} (Holm, {len(tested)} tests): {where}"
        if (best.p_holm or 0.0) <= SIGNIFICANT:
            return f"E goes with the change in {self.options.metric}, rho {best.rho.mean:.2f}; {about}"
        return f"undecided: no correlation beyond chance; {about}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "runs": list(self.runs),
            "verdict": self.verdict,
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
    measure: str, emergence: Sequence[Floats], metric: Sequence[Floats], options: TrajectoryOptions
) -> list[LaggedCorrelation]:
    """Rank correlations of E at step t with the change in the metric that follows step t + lag.

    Args:
        measure: Name of the measure.
        emergence: Per run (n_steps,) any figure of emergence; steps where a run's is not finite are left out
            of all.
        metric: Per run (n_steps,) the metric, at the same steps in all.
        options: Lags, window, draws.

    Returns:
        Raw and smoothed, per lag from 0 to `max_lag`; lags with fewer than 4 pairs are left out.
    """
    figures = np.asarray(emergence, dtype=np.float64)
    found = []
    for smoothed in (False, True):
        window = options.window if smoothed else 1
        changes = np.array([change(values, window=window) for values in metric])
        for lag in range(options.max_lag + 1):
            n = changes.shape[1] - lag
            x, y = figures[:, : max(n, 0)], changes[:, lag:]
            usable = (np.isfinite(x) & np.isfinite(y)).all(axis=0)
            if usable.sum() >= MINIMUM_PAIRS:
                x, y, at = x[:, usable], y[:, usable], np.flatnonzero(usable).astype(np.float64)
                found.append(_correlation(measure, smoothed, lag, x, y, at, options))
    return found


def _correlation(
    measure: str, smoothed: bool, lag: int, x: Floats, y: Floats, at: Floats, options: TrajectoryOptions
) -> LaggedCorrelation:
    raw = [partial_spearman(one, other) for one, other in zip(x, y, strict=True)]
    partial = [partial_spearman(one, other, [at]) for one, other in zip(x, y, strict=True)]
    test = stationary_p(x[0], y[0], draws=options.n_permutations, seed=options.seed)
    if len(x) > 1:
        test = paired_runs_p(x, y, draws=options.n_permutations, seed=options.seed)
    return LaggedCorrelation(
        measure=measure,
        smoothed=smoothed,
        lag=lag,
        n=x.shape[1],
        rho=student(raw, support=Support.CORRELATION),
        given_step=student(partial, support=Support.CORRELATION),
        test=test,
    )


def corrected(correlations: Sequence[LaggedCorrelation]) -> tuple[LaggedCorrelation, ...]:
    """The correlations with their p values corrected for each other."""
    p_values = holm([c.test.p for c in correlations])
    return tuple(replace(c, p_holm=p) for c, p in zip(correlations, p_values, strict=True))


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

    A run that starts at E = 0 has not settled: steps count from the first E above 0.

    Example:
        >>> settled([100.0, 50.0, 50.1, 50.0, 20.0], patience=2, tolerance=0.01)
        3
    """
    values = np.asarray(emergence, dtype=np.float64)
    quiet = np.abs(np.diff(values)) <= tolerance * np.abs(values[:-1])
    quiet &= np.maximum.accumulate(values[:-1]) > 0
    return _run_of(quiet, patience, offset=1)


def near_zero(emergence: Sequence[float] | Floats, *, patience: int, share: float) -> int | None:
    """Position at which E has been at most `share` of its largest value so far for `patience` steps.

    A run that starts at E = 0 has no largest value yet: steps count from the first E above 0.

    Example:
        >>> near_zero([100.0, 0.5, 0.0, 0.0], patience=2, share=0.01)
        2
    """
    values = np.asarray(emergence, dtype=np.float64)
    largest = np.maximum.accumulate(values)
    return _run_of((largest > 0) & (values <= share * largest), patience, offset=0)


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
    *,
    training: str = "",
) -> list[Stopping]:
    """Compare both rules on E with ordinary early stopping on the metric.

    Args:
        measure: Name of the measure of emergence.
        emergence: (n_steps,) E itself, or shares of it; not logarithms.
        metric: (n_steps,).
        steps: (n_steps,) training steps.
        options: Patience, tolerances.
        training: Name of the run.
    """
    values = np.asarray(metric, dtype=np.float64)
    better = values if options.larger_is_better else -values
    ordinary = early_stop(
        values,
        patience=options.patience,
        min_delta=options.min_delta,
        higher_is_better=options.larger_is_better,
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
            training=training,
            step=None if at is None else int(steps[at]),
            ordinary_step=None if ordinary is None else int(steps[ordinary]),
            saved=None if at is None else until - at,
            loss=None if at is None else float(better[: until + 1].max() - better[: at + 1].max()),
        )
        for rule, at in positions.items()
    ]
