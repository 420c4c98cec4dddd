"""Intervals over independent replicates, on a scale that their statistic cannot leave."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.statistics.estimate import Estimate, Method, check_level
from emergraph.errors import UsageError

Floats = NDArray[np.float64]

ROUNDING = 1e-12
"""Replicates that differ by less are equal."""
MINIMUM_DRAWS = 2
"""Fewest draws that have a spread."""
_HALVINGS = 60
"""Of an angle, until it is as short as a double tells."""


@dataclass(frozen=True)
class _Scale:
    """A monotone map of a range onto the real numbers."""

    low: float
    high: float
    forth: Callable[[float], float]
    slope: Callable[[float], float]
    back: Callable[[float], float]


class Support(Enum):
    """Which values a statistic can have; its interval is computed on a scale that maps them to all reals."""

    REAL = _Scale(-np.inf, np.inf, lambda x: x, lambda _: 1.0, lambda y: y)
    POSITIVE = _Scale(0.0, np.inf, lambda x: float(np.log(x)), lambda x: 1 / x, lambda y: float(np.exp(y)))
    """At least 0: the logarithm."""
    SHARE = _Scale(
        0.0,
        1.0,
        lambda x: float(np.log(x) - np.log1p(-x)),
        lambda x: 1 / (x * (1 - x)),
        lambda y: float(np.exp(-np.logaddexp(0.0, -y))),
    )
    """From 0 to 1: log odds."""
    AT_MOST_ONE = _Scale(
        -np.inf,
        1.0,
        lambda x: float(-np.log1p(-x)),
        lambda x: 1 / (1 - x),
        lambda y: float(-np.expm1(-y)),
    )
    """At most 1, as a share that may be lost more than once: the logarithm of what is missing."""
    CORRELATION = _Scale(
        -1.0,
        1.0,
        lambda x: float(np.arctanh(x)),
        lambda x: 1 / (1 - x * x),
        lambda y: float(np.tanh(y)),
    )
    """From -1 to 1: Fisher's transformation."""


@functools.cache
def student_reach(n: int, level: float) -> float:
    """Half-width of Student's interval in standard errors: the quantile of t with n - 1 degrees of freedom.

    Example:
        >>> round(student_reach(3, 0.95), 4)
        4.3027
    """
    low, high = 0.0, np.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_mass(middle, n - 1) < level else (low, middle)
    return float(np.tan(low) * np.sqrt(n - 1))


def _student_mass(angle: float, freedom: int) -> float:
    """Probability that |t| is at most `tan(angle) sqrt(freedom)`: a finite sum, for whole degrees of freedom.

    Abramowitz and Stegun, 26.7.3 and 26.7.4. Importing scipy's special functions costs more processor time
    than all else that a command on a store loads.
    """
    odd, cosine = freedom % 2, np.cos(angle)
    k = 2 * np.arange(2, freedom // 2 + 1) + odd
    terms = np.cumprod(cosine**2 * (k - 3) / (k - 2))
    total = (cosine if odd else 1.0) * (1 + terms.sum()) if freedom > 1 else 0.0
    mass = np.sin(angle) * total
    return float((mass + angle) * 2 / np.pi if odd else mass)


CLEAR = 3.0
"""Standard deviations of the draws of a null model, from which on a value may be called different."""


def is_clear(z: float, n_draws: int) -> bool:
    """Whether a value is so far from draws of a null model that one in 20 of them would not be.

    The distance of one more draw from the mean of n others, in their own standard deviations, is Student's t
    times `sqrt(1 + 1 / n)`: three draws are 5 apart where many are 2. It is never called clear below 3.

    Args:
        z: Distance from the mean of the draws, in their standard deviations.
        n_draws: At least 2.

    Example:
        >>> is_clear(4.0, 3), is_clear(4.0, 5), is_clear(2.9, 99)
        (False, True, False)
    """
    return abs(z) >= max(CLEAR, student_reach(n_draws, 0.95) * float(np.sqrt(1 + 1 / n_draws)))


def around(value: float, reach: float, support: Support) -> tuple[float, float]:
    """Interval of a value with a half-width that is known to first order, within the support.

    The half-width is carried to the support's scale by its slope there (delta method) and both ends back:
    `g^-1(g(value) -+ reach g'(value))`. At the end of a range the scale has no slope: there is no interval
    unless the reach is 0.

    Example:
        >>> [round(end, 3) for end in around(0.99, 0.05, Support.SHARE)]
        [0.388, 1.0]
    """
    scale = support.value
    if not np.isfinite(value) or not np.isfinite(reach):
        return float("nan"), float("nan")
    if reach == 0:
        return value, value
    if not scale.low < value < scale.high:
        return float("nan"), float("nan")
    at, half = scale.forth(value), reach * scale.slope(value)
    return scale.back(at - half), scale.back(at + half)


def student(
    values: ArrayLike,
    *,
    support: Support = Support.REAL,
    widen: float = 1.0,
    seed: int | None = None,
    null: float | None = None,
    level: float = 0.95,
) -> Estimate:
    """Mean of replicates with Student's interval, `mean +- t(n - 1) sd / sqrt(n)` on the support's scale.

    Replicates that are all equal have no spread, which does not make their mean certain: there is no interval
    then. Where they lie at an end of a limited range there is one: of n shares that are all 1 the mean is at
    least `((1 - level) / 2)^(1/n)` at that confidence, whatever they are distributed like.

    Args:
        values: One value per replicate; non-finite ones count as undefined.
        support: Range of the statistic.
        widen: Factor of the half-width, above 1 for an interval that is labelled conservative.
        seed: Recorded, not used.
        null: Value under a null model, recorded beside the mean.
        level: Coverage of the interval.

    Returns:
        The estimate; its mean is NaN when no replicate is defined, and one replicate has no interval.

    Raises:
        UsageError: `level` is not strictly between 0 and 1.

    Example:
        >>> e = student([1.0, 2.0, 3.0])
        >>> e.mean, e.n, round(e.high - e.mean, 4)
        (2.0, 3, 2.4841)
        >>> round(student([1.0] * 10, support=Support.SHARE).low, 3)
        0.692
    """
    check_level(level)
    array = np.asarray(values, dtype=np.float64).ravel()
    finite = array[np.isfinite(array)]
    n = int(finite.size)
    mean = float(finite.mean()) if n else float("nan")
    sd = float(finite.std(ddof=1)) if n > 1 else float("nan")
    low = high = float("nan")
    method = Method.NONE
    if n > 1 and all_equal(finite):
        low, high, method = _ends_of_equal(mean, n, level, support)
    elif n > 1:
        method = Method.CONSERVATIVE if widen > 1 else Method.STUDENT
        low, high = around(mean, widen * student_reach(n, level) * sd / float(np.sqrt(n)), support)
    return Estimate(
        mean=mean,
        low=low,
        high=high,
        sd=sd,
        n=n,
        n_undefined=int(array.size) - n,
        level=level,
        method=method,
        seed=seed,
        null=null,
    )


def median_rank(n: int, level: float) -> int:
    """Place, from each end, of the two of n sorted values between which the population's median lies.

    The largest r with `2 P(fewer than r of n fall below the median) <= 1 - level`, by the binomial
    distribution: exact for continuous values and wider than needed for others, whatever their distribution.

    Returns:
        r, from 1; 0 where the smallest and the largest of n values do not reach the level.

    Raises:
        UsageError: `level` is not strictly between 0 and 1.

    Example:
        >>> median_rank(5, 0.95), median_rank(6, 0.95), median_rank(300, 0.95)
        (0, 1, 133)
    """
    check_level(level)
    allowed = (1 - Fraction(level)) / 2 * 2**n
    rank, below, ways = 0, 0, 1
    while rank < n and (below := below + ways) <= allowed:
        rank += 1
        ways = ways * (n - rank + 1) // rank
    return rank


def all_equal(values: Floats) -> bool:
    """Whether replicates differ by rounding only: they have no spread, and say nothing of the next.

    Example:
        >>> all_equal(np.array([0.1 + 0.2, 0.3])), all_equal(np.array([0.3, 0.30001]))
        (True, False)
    """
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def _ends_of_equal(mean: float, n: int, level: float, support: Support) -> tuple[float, float, Method]:
    """What n replicates at one end of a limited range exclude: `P(all at the end) <= (mean share)^n`."""
    scale = support.value
    ends = [abs(mean - end) <= ROUNDING for end in (scale.low, scale.high)]
    if not np.isfinite([scale.low, scale.high]).all() or not any(ends):
        return float("nan"), float("nan"), Method.NONE
    reach = (scale.high - scale.low) * (1 - ((1 - level) / 2) ** (1 / n))
    low, high = (scale.low, scale.low + reach) if ends[0] else (scale.high - reach, scale.high)
    return low, high, Method.EXACT


def jackknife(
    statistic: Callable[[Floats], float],
    groups: Floats,
    *,
    support: Support = Support.REAL,
    widen: float = 1.0,
    seed: int | None = None,
    null: float | None = None,
    level: float = 0.95,
) -> Estimate:
    """Interval of a statistic of pooled replicates by leaving out one of them at a time.

    `s^2 = (n - 1)/n sum_i (T_-i - mean T_-i)^2` on the support's scale, interval `T +- t(n - 1) s`. The value
    is T of all replicates pooled, for statistics whose value per replicate is biased (an autocorrelation
    centred by its own short walk) or does not exist.

    Args:
        statistic: Maps replicates of shape (g, ...) to a number.
        groups: (n, ...) one entry per walk, direction or run.
        support: Range of the statistic.
        widen: Factor of the half-width, above 1 for an interval that is labelled conservative.
        seed: Recorded, not used.
        null: Recorded beside the value.
        level: Coverage of the interval.

    Returns:
        The estimate; `sd` is s sqrt(n), comparable with the spread of single replicates.

    Example:
        >>> round(jackknife(lambda g: float(g.mean()), np.array([[1.0], [2.0], [3.0]])).sd, 12)
        1.0
    """
    check_level(level)
    value = statistic(groups)
    n = len(groups)
    sd = low = high = float("nan")
    if n > 1 and np.isfinite(value):
        left_out = np.array([statistic(np.delete(groups, i, axis=0)) for i in range(n)])
        sd = _jackknife_error(left_out) * float(np.sqrt(n))
        low, high = left_out_ends(value, left_out, support=support, widen=widen, level=level)
    there = Method.CONSERVATIVE if widen > 1 else Method.JACKKNIFE
    return Estimate(
        mean=value,
        low=low,
        high=high,
        sd=sd,
        n=n if np.isfinite(value) else 0,
        n_undefined=0 if np.isfinite(value) else n,
        level=level,
        method=there if np.isfinite(low) else Method.NONE,
        seed=seed,
        null=null,
    )


def _jackknife_error(left_out: Floats) -> float:
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)))


def left_out_ends(
    value: float,
    left_out: Floats,
    *,
    support: Support = Support.REAL,
    widen: float = 1.0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Ends of the jackknife's interval; NaN where a value has no place on the support's scale.

    Values that are all equal have no interval either: four networks in perfect order do not make the
    correlation of all networks certain.

    Args:
        value: Of all replicates.
        left_out: (n,) values without one replicate each.
        support: Range of the value.
        widen: Factor of the half-width.
        level: Coverage of the interval.
    """
    reach = widen * student_reach(len(left_out), level)
    scale = support.value
    every = np.append(left_out, value)
    if all_equal(every) or not all(scale.low < one < scale.high for one in every):
        return float("nan"), float("nan")
    half = reach * _jackknife_error(np.array([scale.forth(float(one)) for one in left_out]))
    at = scale.forth(value)
    return scale.back(at - half), scale.back(at + half)


def percentiles(draws: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Ends between which the middle share `level` of draws lies; NaN for none that is finite.

    Example:
        >>> [round(end, 6) for end in percentiles(range(101), level=0.9)]
        [5.0, 95.0]
    """
    check_level(level)
    values = np.asarray(draws, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def counts_of_draws(n: int, draws: int, *, seed: int) -> NDArray[np.int64]:
    """(draws, n) how often each of n replicates is drawn when n are drawn with replacement.

    Raises:
        UsageError: Fewer than two draws.

    Example:
        >>> counts_of_draws(5, 2, seed=0).sum(axis=1).tolist()
        [5, 5]
    """
    if draws < MINIMUM_DRAWS:
        raise UsageError(f"Expected at least {MINIMUM_DRAWS} draws, got {draws}")
    rng = np.random.default_rng(seed)
    return np.asarray(rng.multinomial(n, np.full(n, 1 / n), size=draws), dtype=np.int64)
