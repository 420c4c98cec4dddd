"""Autocorrelation along random walks, correlation length, and ruggedness in excess of a quadratic bowl.

rho(s) = Cov(f_t, f_{t+s}) / Var(f) (Weinberger 1990, Biological Cybernetics 63:325, eq. 3). For the walk of
`walks` with parameter a the exact answers are a^s for a linear f, a^{2s} for every quadratic form centred at
the base weights (Mehler's formula), (cosh(a^s q) - 1)/(cosh(q) - 1) for cos(w.z) with q = |w|^2, and 0 for
white noise. The quadratic bowl is the null model: its correlation length is -1/(2 ln a).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.statistics.estimate import Estimate, plain
from emergraph.analysis.statistics.intervals import Support, jackknife
from emergraph.errors import UsageError

WIDENED = 1.75
"""Losses along a walk are skewed where few directions are curved, and the jackknife covers 85 to 92 %."""


@dataclass(frozen=True, kw_only=True)
class Autocorrelation:
    """Ruggedness seen along stationary walks; conservative intervals by leaving out one walk at a time."""

    rho: tuple[float, ...]
    """Autocorrelation at lags 0 .. max_lag; rho[0] = 1. NaN for a flat landscape."""
    rho_1: Estimate
    """Autocorrelation at lag 1; null: a^2."""
    correlation_length: Estimate
    """-1/ln |rho(1)| steps, 0 where rho(1) <= 0; null: -1/(2 ln a)."""
    integral_length: float
    """Sum of rho(s) over lags before the first rho(s) <= 0, in steps; at least 1."""
    first_below_1_e: int | None
    """First lag at which rho < 1/e; None when no lag up to max_lag is."""
    excess_ruggedness: Estimate
    """1 - correlation_length / null: 0 for a bowl, 1 for white noise, negative for a slope; null: 0."""
    a: float
    """Correlation of successive positions of the walk."""
    noise_variance: float
    """Evaluation noise that was subtracted from the variance (the nugget)."""
    length: int
    """Points per walk."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


def autocorrelation(walks: ArrayLike, *, max_lag: int, noise_variance: float = 0.0) -> NDArray[np.float64]:
    """Estimate rho(0) .. rho(max_lag) from walks pooled under one mean.

    rho(s) = [sum_{t <= L-s} c_t c_{t+s} / (n (L - s))] / [sum c_t^2 / (n L)], c = f - mean of all walks:
    every sum is divided by its own number of terms. Evaluation noise of variance v attenuates rho(s > 0) by
    (Var f - v)/Var f, which is undone.

    Args:
        walks: (n, L) values along n walks.
        max_lag: Largest lag, below L.
        noise_variance: Variance of repeated evaluations of one point.

    Returns:
        (max_lag + 1,) estimates; NaN when the values do not vary beyond the noise.

    Raises:
        UsageError: Wrong shape, or a lag that no pair of points has.

    Example:
        >>> autocorrelation([[1.0, -1.0, 1.0, -1.0]], max_lag=2).tolist()
        [1.0, -1.0, 1.0]
    """
    values = np.asarray(walks, dtype=np.float64)
    if values.ndim != 2:
        raise UsageError(f"walks: expected an array (n_walks, length), found shape {values.shape}")
    n, length = values.shape
    if not 0 <= max_lag < length:
        raise UsageError(f"max_lag: expected 0 .. {length - 1} for walks of {length} points, found {max_lag}")
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    signal = variance - noise_variance
    scale = float(np.max(np.abs(values), initial=0.0))
    if not signal > (4 * np.finfo(np.float64).eps * scale) ** 2:
        return np.full(max_lag + 1, np.nan)
    lags = [
        float(np.sum(centred[:, : length - s] * centred[:, s:])) / (n * (length - s)) / signal
        for s in range(max_lag + 1)
    ]
    lags[0] = 1.0
    return np.array(lags)


def correlation_length(rho_1: float) -> float:
    """Return -1/ln|rho(1)| in steps: 0 for rho(1) <= 0, infinite for rho(1) >= 1, NaN for NaN.

    Example:
        >>> round(correlation_length(0.81), 4)
        4.7456
    """
    if np.isnan(rho_1):
        return float("nan")
    if rho_1 <= 0:
        return 0.0
    if rho_1 >= 1:
        return float("inf")
    return float(-1 / np.log(rho_1))


def quadratic_length(a: float) -> float:
    """Return the correlation length -1/(2 ln a) of any quadratic bowl centred at the base weights."""
    return float(-1 / (2 * np.log(a)))


def _through(estimate: Estimate, mean: float, ends: tuple[float, float], null: float) -> Estimate:
    """Carry the interval of rho(1) through a monotone function of it."""
    low, high = sorted(ends) if not np.isnan(ends).any() else (float("nan"), float("nan"))
    return Estimate(
        mean=mean,
        low=low,
        high=high,
        sd=float("nan"),
        n=estimate.n,
        n_undefined=estimate.n_undefined,
        level=estimate.level,
        method=estimate.method,
        seed=estimate.seed,
        null=null,
    )


def against(found: Autocorrelation, *, rho_1: float, length: float) -> Autocorrelation:
    """The same walks beside another bowl.

    Args:
        found: The statistics.
        rho_1: Autocorrelation at lag 1 that the bowl shows along such walks.
        length: Its correlation length.
    """
    lengths = found.correlation_length
    ends = (lengths.low, lengths.high)
    excess = (1 - lengths.mean / length, (1 - ends[0] / length, 1 - ends[1] / length))
    return replace(
        found,
        rho_1=found.rho_1.with_null(rho_1),
        correlation_length=lengths.with_null(length),
        excess_ruggedness=_through(found.rho_1, *excess, 0.0),
    )


def analyse_walks(
    walks: ArrayLike,
    *,
    a: float,
    max_lag: int = 20,
    noise_variance: float = 0.0,
    seed: int | None = None,
    level: float = 0.95,
) -> Autocorrelation:
    """Autocorrelation, correlation lengths and excess ruggedness of stationary walks, with intervals.

    Args:
        walks: (n, L) values along n walks of `walks.ou_walk`.
        a: Correlation of successive positions of those walks.
        max_lag: Largest lag reported.
        noise_variance: Variance of repeated evaluations of one point.
        seed: Recorded.
        level: Coverage of the intervals.

    Returns:
        The statistics; all NaN for a flat landscape.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> analyse_walks(rng.normal(size=(10, 500)), a=0.9).excess_ruggedness.mean > 0.9
        True
    """
    values = np.asarray(walks, dtype=np.float64)
    rho = autocorrelation(values, max_lag=min(max_lag, values.shape[1] - 1), noise_variance=noise_variance)
    rho_1 = jackknife(
        lambda group: float(autocorrelation(group, max_lag=1, noise_variance=noise_variance)[1]),
        values,
        support=Support.CORRELATION,
        widen=WIDENED,
        seed=seed,
        null=a**2,
        level=level,
    )
    null = quadratic_length(a)
    length = correlation_length(rho_1.mean)
    ends = (correlation_length(rho_1.low), correlation_length(rho_1.high))
    negative = np.flatnonzero(rho <= 0)
    stop = int(negative[0]) if negative.size else rho.size
    below = np.flatnonzero(rho < 1 / np.e)
    return Autocorrelation(
        rho=tuple(float(r) for r in rho),
        rho_1=rho_1,
        correlation_length=_through(rho_1, length, ends, null),
        integral_length=float(np.sum(rho[:stop])),
        first_below_1_e=int(below[0]) if below.size else None,
        excess_ruggedness=_through(rho_1, 1 - length / null, (1 - ends[0] / null, 1 - ends[1] / null), 0.0),
        a=a,
        noise_variance=noise_variance,
        length=int(values.shape[1]),
    )
