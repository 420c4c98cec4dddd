"""Tests of two series that know that neighbouring steps are not independent.

Steps of one training run are not replicates: two series that only drift go together by chance far more often
than pairs of independent numbers. A p value comes from runs that are independent (`paired_runs_p`), or from
one long run whose two series are stationary once a straight line is taken off (`stationary_p`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.statistics.permutation import (
    FEWEST_MORE,
    checked_columns,
    normal_scores,
    share_as_extreme,
)
from emergraph.errors import UsageError

Floats = NDArray[np.float64]

MINIMUM_STEPS = 40
"""Fewest steps of one run that a p value is given for."""
MINIMUM_RUNS = 6
"""Fewest independent runs."""
LARGEST_MEMORY = 0.4
"""Autocorrelation at lag 1 of the detrended series above which it counts as drifting."""
LARGEST_KPSS = 0.119
"""10 % point of the trend statistic of Kwiatkowski, Phillips, Schmidt and Shin (1992)."""
LARGEST_BEND = 6.0
"""95 % point, rounded up, of n times the share of variance that a parabola and a cubic explain of noise."""
LARGEST_RATIO = 2.5
"""Between the variances of both halves."""
EXACT_RUNS = 7
"""Runs up to which all pairings are looked at."""


def detrended_scores(values: Floats) -> Floats:
    """`normal_scores` less the straight line that fits them best."""
    from scipy import signal

    return np.asarray(signal.detrend(normal_scores(values)), dtype=np.float64)


def drift(values: Sequence[float] | Floats) -> str | None:
    """Why a series does not count as stationary around a straight line; None where it does.

    Four checks of its `detrended_scores`: autocorrelation at lag 1 at most 0.4, the KPSS trend statistic at
    most its 10 % point, no parabola or cubic beyond noise, and halves whose variances differ by less than a
    factor of 2.5. White noise of 40 steps passes three times in four, a random walk once in twenty.

    Args:
        values: (n,) finite, in the order of the steps.

    Example:
        >>> drift(np.random.default_rng(1).standard_normal(100)) is None
        True
        >>> drift(np.arange(100.0) ** 3)
        'it bends'
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < MINIMUM_STEPS:
        return f"{len(series)} steps, fewer than {MINIMUM_STEPS}"
    if np.ptp(series) == 0:
        return "it is constant"
    return next(_drifts(detrended_scores(series)), None)


def _drifts(scores: Floats) -> Iterator[str]:
    """Reasons to call detrended normal scores no stationary series."""
    n, size = len(scores), float(scores @ scores)
    places = np.linspace(-1, 1, n)
    bends = np.linalg.qr(np.stack([places**k for k in range(4)], axis=1))[0][:, 2:]
    if n * float(np.sum((bends.T @ scores) ** 2)) / size > LARGEST_BEND:
        yield "it bends"
    memory = float(scores[:-1] @ scores[1:]) / size
    if memory > LARGEST_MEMORY:
        yield f"its steps are autocorrelated ({memory:.2f})"
    if kpss(scores) > LARGEST_KPSS:
        yield "its level drifts"
    halves = [float(part.var()) for part in (scores[: n // 2], scores[n // 2 :])]
    if max(halves) > LARGEST_RATIO * min(halves):
        yield "its variance changes"


def kpss(detrended: Floats) -> float:
    """The KPSS statistic of a detrended series, with Bartlett weights over `4 (n / 100)^(1/4)` lags.

    Example:
        >>> round(kpss(signal.detrend(np.random.default_rng(0).standard_normal(400))), 3) < 0.119
        True
    """
    n = len(detrended)
    lags = int(4 * (n / 100) ** 0.25)
    variance = float(detrended @ detrended) / n
    for k in range(1, lags + 1):
        variance += 2 * (1 - k / (lags + 1)) * float(detrended[k:] @ detrended[:-k]) / n
    return float(np.sum(np.cumsum(detrended) ** 2)) / n**2 / max(variance, np.finfo(float).tiny)


@dataclass(frozen=True, kw_only=True)
class SeriesTest:
    """A p value, or why there is none."""

    p: float | None
    """Two-sided."""
    how: str
    """What was drawn at random, or the reason for no p value."""


def stationary_p(x: Floats, y: Floats, *, draws: int = 9999, seed: int = 0) -> SeriesTest:
    """Two-sided p value of the correlation of two stationary series of one run, by surrogates.

    Both series become normal scores less their line. Surrogates of y have its spectrum and random phases
    (Theiler and others 1992), so that they remember their past as y does, and nothing of x. Series that
    drift get no p value, see `drift`.

    Args:
        x: (n,) finite.
        y: (n,) finite, of the same steps.
        draws: Surrogates.
        seed: Of the phases.
    """
    for name, series in (("E", x), ("the change", y)):
        if reason := drift(series):
            return SeriesTest(p=None, how=f"{name}: {reason}")
    left, right = detrended_scores(x), detrended_scores(y)
    again = surrogates(right, draws, seed=seed)
    observed = abs(float(left @ right)) / float(np.linalg.norm(right))
    drawn = np.abs(again @ left) / np.linalg.norm(again, axis=1)
    return SeriesTest(p=share_as_extreme(drawn, observed), how=f"{draws} phase-randomised surrogates")


def surrogates(series: Floats, draws: int, *, seed: int) -> Floats:
    """(draws, n) series with the spectrum of one and random phases.

    Example:
        >>> one = np.array([1.0, 3.0, -2.0, 0.5])
        >>> np.allclose(np.abs(np.fft.rfft(surrogates(one, 3, seed=0))), np.abs(np.fft.rfft(one)))
        True
    """
    n = len(series)
    sizes = np.abs(np.fft.rfft(series))
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, size=(draws, len(sizes)))
    turned = sizes * np.exp(1j * phases)
    turned[:, 0] = np.fft.rfft(series)[0]
    if n % 2 == 0:  # the highest frequency of an even number of steps has a sign, and no phase
        turned[:, -1] = sizes[-1] * np.sign(np.cos(phases[:, -1]))
    return np.asarray(np.fft.irfft(turned, n), dtype=np.float64)


def pair_correlations(x: Floats, y: Floats) -> Floats:
    """(runs, runs) Spearman's correlation of x of one run with y of another; 0 where one does not vary.

    The diagonal less the mean of all is what the series of a run have in common beyond the time course that
    all runs share.

    Args:
        x: (runs, steps) finite.
        y: (runs, steps) at the same steps.
    """
    if x.shape[-1] < FEWEST_MORE:
        return np.zeros((len(x), len(y)))
    left, right = (_unit_ranks(series) for series in (x, y))
    return np.asarray(np.clip(left @ right.T, -1.0, 1.0))


def _unit_ranks(series: Floats) -> Floats:
    """(runs, steps) ranks of each run less their mean, of length 1; zeros where it does not vary."""
    from scipy import stats

    checked_columns(*series)
    ranks = stats.rankdata(series, axis=1) - (series.shape[1] + 1) / 2
    sizes = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.asarray(np.divide(ranks, sizes, out=np.zeros_like(ranks), where=sizes > 0))


def paired_runs_p(x: Floats, y: Floats, *, draws: int = 9999, seed: int = 0) -> SeriesTest:
    """Two-sided p value of "the series of a run go together more than those of different runs".

    The statistic is the mean over runs of Spearman's correlation along the steps. Under the null x of one run
    goes with y of any other as well as with its own, whatever time course all runs share: runs are paired at
    random, up to 7 of them in all possible ways, and p is the share of pairings as far from their mean.

    Args:
        x: (runs, steps) finite.
        y: (runs, steps) at the same steps.
        draws: Random pairings for more than 7 runs.
        seed: Of the pairings.

    Raises:
        UsageError: The shapes differ.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise UsageError(
            f"runs: expected two arrays (runs, steps) of one shape, found {x.shape} and {y.shape}"
        )
    n = len(x)
    if n < MINIMUM_RUNS:
        return SeriesTest(p=None, how=f"{n} of at least {MINIMUM_RUNS} independent runs")
    table = pair_correlations(x, y)
    if not table.any():
        return SeriesTest(p=None, how="no run in which both vary")
    observed = float(np.trace(table)) / n
    if n <= EXACT_RUNS:
        pairings = np.array(list(permutations(range(n))))
        how = f"all {factorial(n)} pairings of {n} runs"
    else:
        rng = np.random.default_rng(seed)
        pairings = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(draws))])
        how = f"{draws} random pairings of {n} runs"
    drawn = table[np.arange(n), pairings].mean(axis=1)
    # the observed pairing is the first of them
    apart = np.abs(drawn - drawn.mean())
    return SeriesTest(p=share_as_extreme(apart[1:], abs(observed - float(drawn.mean()))), how=how)
