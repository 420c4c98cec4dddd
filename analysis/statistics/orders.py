"""p values of the order in which matched units stand, and their combination over layers.

Under independence the match of a layer's units is one of all n! orders, each as likely as any other. What is
counted is D, the sum of squares of i less the unit that i was matched with; Spearman's correlation with the
identity is 1 - 6 D / (n^3 - n).
"""

from collections.abc import Sequence
from functools import cache
from math import lgamma, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

EXACT_UNITS = 12
"""Units up to which all orders are counted."""
_SLOPES = np.geomspace(1e-4, 32.0, 120)
"""Where the bound near the identity is looked for."""


def order_distance(order: Ints) -> int:
    """Sum of squares of the displacements of an order; 0 for the identity.

    Example:
        >>> order_distance(np.array([1, 0, 2]))
        2
    """
    return int(np.sum((order - np.arange(order.size)) ** 2))


def order_correlation(order: Ints) -> float:
    """Spearman's correlation of an order with the identity; NaN for fewer than two units.

    Example:
        >>> order_correlation(np.array([2, 1, 0]))
        -1.0
    """
    n = order.size
    return 1 - 6 * order_distance(order) / (n**3 - n) if n > 1 else float("nan")


def least_log_p(n: int) -> float:
    """Logarithm of the smallest p value that an order of n units can have: that of the identity.

    Example:
        >>> round(np.exp(least_log_p(3)), 4)
        0.1667
    """
    return -lgamma(n + 1)


def order_log_p(order: Ints) -> float:
    """Logarithm of the one-sided p value of an order: how many are at least as near to the identity.

    Exact for up to 12 units. For more it is the smaller of two upper bounds. Near the identity: the number of
    orders with D <= d is at most `exp(s d)` times the permanent of `exp(-s (i - j)^2)`, whose rows' sums
    bound it, for any s. Elsewhere: the tail lies between those of the normal distribution (no excess
    kurtosis) and of Student's t (less than there is), with a correction for continuity; the larger is taken,
    times 1 + 0.2 / n, which covers both for 11 and 12 units.

    Example:
        >>> round(np.exp(order_log_p(np.array([0, 1, 3, 2]))), 4)
        0.1667
    """
    n, distance = order.size, order_distance(order)
    if n <= EXACT_UNITS:
        counts = _orders_by_distance(n)
        return log(int(counts[: distance + 1].sum())) - lgamma(n + 1)
    return min(0.0, _near_identity(n, distance), _in_the_middle(n, distance))


@cache
def _orders_by_distance(n: int) -> Ints:
    """How many orders of n units have each distance, by the set of units that are taken already."""
    places = (n**3 - n) // 3 + 1
    found = {0: np.eye(1, places, dtype=np.int64)[0]}
    for place in range(n):
        longer: dict[int, Ints] = {}
        for taken, counts in found.items():
            for unit in range(n):
                if not taken >> unit & 1:
                    cost = (unit - place) ** 2
                    into = longer.setdefault(taken | 1 << unit, np.zeros(places, dtype=np.int64))
                    into[cost:] += counts[: places - cost]
        found = longer
    whole: Ints = found[(1 << n) - 1]
    return whole


def _near_identity(n: int, distance: int) -> float:
    apart = np.arange(n)
    with np.errstate(under="ignore"):
        sums = np.exp(-_SLOPES[:, None] * apart**2).cumsum(axis=1)
    rows = sums + sums[:, ::-1] - 1  # the row of unit i reaches i units down and n - 1 - i units up
    return float(np.min(_SLOPES * distance + np.log(rows).sum(axis=1))) - lgamma(n + 1)


def _in_the_middle(n: int, distance: int) -> float:
    from scipy.special import log_ndtr, stdtr

    mean, deviation = (n**3 - n) / 6, n * (n + 1) * sqrt(n - 1) / 6
    z = (mean - distance - 1) / deviation  # distances are even: half a step further
    rho = z / sqrt(n - 1)
    if abs(rho) >= 1:
        return 0.0 if rho < 0 else float(log_ndtr(-z))
    tail = float(stdtr(n - 2, -rho * sqrt((n - 2) / (1 - rho * rho))))
    return max(float(log_ndtr(-z)), log(tail) if tail > 0 else -np.inf) + log1p(0.2 / n)


def fisher_log_p(log_p: Sequence[float]) -> float:
    """Logarithm of Fisher's p value of independent ones: that their product is as small.

    For discrete p values, `P(p <= a) <= a` of each gives the same of the result.

    Example:
        >>> round(np.exp(fisher_log_p([log(0.1), log(0.1)])), 4)
        0.0561
    """
    x = -float(np.sum(log_p))
    if x <= 0:
        return 0.0
    terms = np.array([j * log(x) - lgamma(j + 1) for j in range(len(log_p))])
    top = float(terms.max())
    return min(0.0, -x + top + log(float(np.exp(terms - top).sum())))


def bonferroni_log_p(log_p: Sequence[float], among: int | None = None) -> float:
    """Logarithm of the smallest p value times how many there are, at most 1.

    Args:
        log_p: Logarithms of p values, at least one, whatever they have to do with each other.
        among: How many there are, where those that are not given are 1.

    Example:
        >>> round(np.exp(bonferroni_log_p([log(0.01), log(0.5)])), 4)
        0.02
    """
    return min(0.0, min(log_p) + log(len(log_p) if among is None else among))
