"""Sharpness: how much the loss rises within a small neighbourhood of the base weights.

Worst case max_{|e| <= rho} L(theta + e) - L(theta) (SAM, arXiv 2010.01412, eq. 1); adaptive, with the ball
|T^{-1} e| <= rho, T = diag |w| (ASAM, arXiv 2102.11600, eq. 3); average E L(theta + sigma N z) - L(theta).
On a quadratic with Hessian A at its minimum: rho^2 lambda_max(T A T)/2 and sigma^2 tr(N A N)/2, exactly.
Keskar et al. (arXiv 1609.04836, metric 2.1): 100 (max f - f)/(1 + f) over the box |e_i| <= eps (|w_i| + 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.statistics.estimate import Estimate, plain
from emergraph.analysis.statistics.intervals import student
from emergraph.errors import UsageError

Vector = NDArray[np.float64]
Loss = Callable[[Vector], float]
Gradient = Callable[[Vector], Vector]


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The largest rise that was found; a lower bound of the true maximum."""

    rise: float
    """L(theta + e) - L(theta), in units of the loss, at the best e found."""
    rho: float
    """Radius of the ball in units of the scale T."""
    rises: Estimate
    """Over restarts: how much the answer depends on the start."""
    method: str
    """"ascent" (gradient) or "sampled" (no gradient: the best of random directions)."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


def average_sharpness(
    loss: Loss, base: Vector, scale: Vector, *, sigma: float, n: int = 20, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Estimate E L(theta + sigma N z) - L(theta), z ~ N(0, I), from antithetic pairs.

    The pair (L(theta + e) + L(theta - e))/2 cancels the slope exactly, so few pairs are enough.

    Args:
        loss: Of a weight vector.
        base: (n_params,) theta.
        scale: (n_params,) N, see `directions.perturbation_scale`.
        sigma: Size of the perturbation in units of the scale.
        n: Pairs.
        seed: Of the draws.
        level: Coverage of the interval.

    Returns:
        Mean over pairs with its interval; null None.

    Example:
        >>> average_sharpness(lambda t: float(t @ t), np.zeros(2), np.ones(2), sigma=1.0, n=500).mean > 1.8
        True
    """
    rng = np.random.default_rng(seed)
    start = loss(base)
    rises = []
    for _ in range(n):
        step = sigma * scale * rng.standard_normal(base.size)
        rises.append((loss(base + step) + loss(base - step)) / 2 - start)
    return student(rises, seed=seed, level=level)


def _to_ball(step: Vector, scale: Vector, rho: float) -> Vector:
    """Scale a step to the surface of the ball |T^{-1} e| = rho."""
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    length = float(np.linalg.norm(step * inverse))
    return step * (rho / length) if length > 0 else step


def worst_case_ascent(
    loss: Loss,
    gradient: Gradient,
    base: Vector,
    scale: Vector,
    *,
    rho: float,
    restarts: int = 3,
    steps: int = 20,
    seed: int = 0,
) -> WorstCase:
    """Find the largest rise within |T^{-1} e| <= rho by projected power-like ascent from random starts.

    e <- rho T^2 g / |T g| with g the gradient at theta + e is the maximiser of the linearised loss over the
    ellipsoid (ASAM, eq. 4). On a convex quadratic the iteration is power iteration on T A T.

    Args:
        loss: Of a weight vector.
        gradient: Of the loss.
        base: (n_params,) theta.
        scale: (n_params,) T: ones for SAM, |w| for ASAM.
        rho: Radius, positive.
        restarts: Random starts.
        steps: Iterations per start.
        seed: Of the starts.

    Returns:
        The largest rise among all iterates.
    """
    if not rho > 0:
        raise UsageError(f"rho: expected a positive radius, found {rho}")
    rng = np.random.default_rng(seed)
    start = loss(base)
    best = []
    for _ in range(restarts):
        step = _to_ball(scale * rng.standard_normal(base.size), scale, rho)
        highest = loss(base + step) - start
        for _ in range(steps):
            step = _to_ball(scale**2 * gradient(base + step), scale, rho)
            highest = max(highest, loss(base + step) - start)
        best.append(highest)
    return WorstCase(rise=max(best), rho=rho, rises=student(best, seed=seed), method="ascent")


def worst_case_sampled(
    loss: Loss, base: Vector, scale: Vector, *, rho: float, n: int = 100, seed: int = 0
) -> WorstCase:
    """Largest rise among random points of the surface |T^{-1} e| = rho: what can be said without gradients.

    In many dimensions random directions see the mean curvature, not the largest one; the figure is a lower
    bound and is labelled "sampled".
    """
    rng = np.random.default_rng(seed)
    start = loss(base)
    rises = [
        loss(base + _to_ball(scale * rng.standard_normal(base.size), scale, rho)) - start for _ in range(n)
    ]
    return WorstCase(rise=max(rises), rho=rho, rises=student(rises, seed=seed), method="sampled")


def keskar_sharpness(
    loss: Loss, gradient: Gradient, base: Vector, *, eps: float = 1e-3, steps: int = 10
) -> float:
    """Keskar's sharpness 100 (max f - f)/(1 + f) over the box |e_i| <= eps (|w_i| + 1), by sign ascent.

    Args:
        loss: Of a weight vector; the figure assumes a loss >= 0.
        gradient: Of the loss.
        base: (n_params,) theta.
        eps: Relative half-width of the box.
        steps: Ascent steps e <- eps (|w| + 1) sign(g): each maximises the linearised loss over the box.

    Returns:
        Percent, non-negative.
    """
    box = eps * (np.abs(base) + 1)
    start = loss(base)
    highest, step = 0.0, np.zeros_like(base)
    for _ in range(steps):
        step = box * np.sign(gradient(base + step))
        highest = max(highest, loss(base + step) - start)
    return 100 * highest / (1 + start)
