"""The solvable model: skills of power-law frequency, each learned by a product of two factors.

arXiv 2404.17563. Skill k = 1, 2, ... has the frequency `P(k) = A k^-(alpha + 1)`; the model is
`f = sum_k a_k b_k g_k` with strength `R_k = a_k b_k`, the target `S sum_k g_k`, and gradient flow on the mean
squared error gives `dR_k/dt = 2 eta P(k) R_k (S - R_k)` where both factors start equal.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.errors import UsageError

Floats = NDArray[np.float64]


def skill_frequencies(n_skills: int, alpha: float) -> Floats:
    """Return P(1), ..., P(n_skills): `k^-(alpha + 1)`, normalised.

    Raises:
        UsageError: Less than one skill, or alpha not above 0.

    Example:
        >>> skill_frequencies(5, 0.6).round(5).tolist()
        [0.59267, 0.19551, 0.10219, 0.06449, 0.04513]
    """
    if n_skills < 1 or not alpha > 0:
        raise UsageError(f"{n_skills} skills with alpha {alpha}: expected at least 1, and alpha above 0")
    weights = np.arange(1, n_skills + 1, dtype=np.float64) ** -(alpha + 1)
    return np.asarray(weights / weights.sum())


def multilinear_strength(
    time: ArrayLike, frequency: ArrayLike, *, target: float = 1.0, start: float = 0.01, rate: float = 1.0
) -> Floats:
    """Return the strength R_k(T) of skills of the multilinear model.

    `R(T) = S / (1 + (S / R(0) - 1) exp(-2 eta P S T))` (eq. 8): a sigmoid, late and steep for rare skills.
    The closed form needs both factors to start equal, a(0) = b(0) = sqrt(R(0)).

    Args:
        time: T, in steps; broadcast with `frequency`.
        frequency: P(k), in (0, 1].
        target: S.
        start: R(0), in (0, S).
        rate: eta, the learning rate, times whatever slows the network down (B^2 of the paper).

    Example:
        >>> round(float(multilinear_strength(3, 0.5)), 7)
        0.1686648
    """
    t, p = np.asarray(time, np.float64), np.asarray(frequency, np.float64)
    odds = target / start - 1
    with np.errstate(over="ignore"):  # far before its time a skill's strength is R(0)
        return np.asarray(target / (1 + odds * np.exp(-2 * rate * p * target * t)))


def linear_strength(
    time: ArrayLike, frequency: ArrayLike, *, target: float = 1.0, rate: float = 1.0
) -> Floats:
    """Return the strength of skills of a linear model, the control: `S (1 - exp(-eta P T))`.

    It rises from the first step on; nothing emerges.
    """
    t, p = np.asarray(time, np.float64), np.asarray(frequency, np.float64)
    return np.asarray(target * -np.expm1(-rate * p * t))


def emergence_time(
    frequency: ArrayLike,
    *,
    share: float = 0.05,
    target: float = 1.0,
    start: float = 0.01,
    rate: float = 1.0,
) -> Floats:
    """Return the time at which a skill reaches a share of its target.

    `tau_e = ln[(S / R(0) - 1) / (1 / share - 1)] / (2 eta P S)`, proportional to k^(alpha + 1).

    Args:
        frequency: P(k).
        share: R / S, in (0, 1).
        target: S.
        start: R(0).
        rate: eta.

    Returns:
        Steps; negative where R(0) is above that share already.

    Example:
        >>> round(float(emergence_time(0.5)), 6)
        1.650681
    """
    p = np.asarray(frequency, np.float64)
    odds = (target / start - 1) / (1 / share - 1)
    return np.asarray(np.log(odds) / (2 * rate * p * target))


def emergence_duration(
    frequency: ArrayLike, *, share: float = 0.05, target: float = 1.0, rate: float = 1.0
) -> Floats:
    """Return the time from a share of the target to one minus it: `ln(1 / share - 1) / (eta P S)`.

    Example:
        >>> round(float(emergence_duration(0.5)), 6)
        5.888878
    """
    p = np.asarray(frequency, np.float64)
    return np.asarray(np.log(1 / share - 1) / (rate * p * target))


def factor_flow(
    time: ArrayLike,
    frequency: float,
    *,
    target: float = 1.0,
    factors: tuple[float, float] = (0.1, 0.1),
    rate: float = 1.0,
) -> Floats:
    """Return R = a b of the two factors from any start, by integrating their gradient flow.

    `da/dt = eta P b (S - a b)`, `db/dt = eta P a (S - a b)`. Equal factors give `multilinear_strength`;
    unequal ones learn sooner.

    Args:
        time: (n,) steps, rising from 0.
        frequency: P.
        target: S.
        factors: a(0), b(0).
        rate: eta.

    Example:
        >>> round(float(factor_flow([3.0], 0.5, factors=(0.2, 0.05))[0]), 5)
        0.24245
    """
    from scipy.integrate import solve_ivp

    t = np.atleast_1d(np.asarray(time, np.float64))

    def slope(_t: float, ab: Floats) -> list[float]:
        a, b = float(ab[0]), float(ab[1])
        push = rate * frequency * (target - a * b)
        return [push * b, push * a]

    found = solve_ivp(
        slope, (0.0, float(t.max())), factors, t_eval=t, rtol=1e-12, atol=1e-14, method="DOP853"
    )
    return np.asarray(found.y[0] * found.y[1])
