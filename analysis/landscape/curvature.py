"""What gradients and Hessians say about a point: spectrum, trace, density, worst case; needs torch.

All figures are at the base weights and over all parameters, biases included. The Hessian is that of the loss
in eval mode: dropout off, batch norm with its running statistics.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.descents import Differentiable
from emergraph.analysis.landscape.directions import perturbation_scale
from emergraph.analysis.landscape.evaluator import Weights
from emergraph.analysis.landscape.options import Norm, SurveyOptions
from emergraph.analysis.landscape.slices import axis_positions
from emergraph.analysis.landscape.spectrum import (
    Extremes,
    SpectralDensity,
    extreme_eigenvectors,
    hutch_pp_trace,
    hutchinson_trace,
    spectral_density,
)
from emergraph.analysis.statistics.estimate import Estimate, plain
from emergraph.analysis.statistics.intervals import student
from emergraph.errors import UsageError

Vector = NDArray[np.float64]

# Sharpness: how much the loss rises within a small neighbourhood of the base weights.

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


class Operator(Protocol):
    """A Hessian with its gradient, such as `hessian.HessianOperator`."""

    @property
    def n(self) -> int:
        """Number of parameters."""
        ...

    @property
    def gradient(self) -> Vector:
        """(n,) gradient of the loss."""
        ...

    def product(self, vector: Vector) -> Vector:
        """H v, (n,)."""
        ...


class Curved(Differentiable, Protocol):
    """An evaluator with gradients and Hessians, such as `engine_torch.TorchEvaluator`."""

    def hessian(self, theta: Weights | None = None) -> Operator:
        """Hessian at a weight vector, the base weights by default."""
        ...


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """Gradient and Hessian at the base weights."""

    gradient_norm: float
    """|g|, in units of the loss per unit of weight."""
    gradient_curvature: float | None
    """g'Hg/|g|^2: curvature along the steepest descent; None where the gradient vanishes."""
    extremes: Extremes
    """k eigenvalues per end of the spectrum."""
    trace: Estimate
    """Hutchinson."""
    trace_pp: Estimate
    """Hutch++ with as many products."""
    density: SpectralDensity
    """Stochastic Lanczos quadrature."""
    worst_case: WorstCase
    """max over |e| <= rho, by gradient ascent (arXiv 2010.01412)."""
    adaptive: WorstCase
    """max over |e/w| <= adaptive_rho, by gradient ascent (arXiv 2102.11600)."""
    keskar: float
    """Percent (arXiv 1609.04836, metric 2.1), box 1e-3 (|w| + 1)."""
    positions: Vector
    """(points,) of the plane, in norms of the weights."""
    plane: NDArray[np.float64] | None
    """(points, points) losses in the plane of the two leading eigenvectors; None for fewer than two."""
    products: int
    """Hessian-vector products in all."""

    def to_dict(self) -> dict[str, object]:
        """Return the figures as nested plain dictionaries; the plane and the density's nodes are left out."""
        return {
            "gradient_norm": self.gradient_norm,
            "gradient_curvature": self.gradient_curvature,
            "eigenvalues": self.extremes.to_dict(),
            "trace": self.trace.to_dict(),
            "trace_hutch_pp": self.trace_pp.to_dict(),
            "negative_mass": self.density.negative_mass.to_dict(),
            "worst_case": self.worst_case.to_dict(),
            "adaptive_worst_case": self.adaptive.to_dict(),
            "keskar": self.keskar,
            "products": self.products,
        }


class _Counting:
    """A product that counts its calls."""

    def __init__(self, product: Callable[[Vector], Vector]) -> None:
        self.calls = 0
        self._product = product

    def __call__(self, vector: Vector) -> Vector:
        self.calls += 1
        return self._product(vector)


def curvature(
    evaluator: Curved, options: SurveyOptions, *, probes: int = 30, restarts: int = 10
) -> Curvature:
    """Measure gradient, Hessian and worst case at the base weights.

    Args:
        evaluator: Gives losses, gradients and Hessians.
        options: `eigenvalues` per end (at least 1), `rho`, `adaptive_rho`, `radius`, `plane_points`, `seed`.
        probes: Products for each estimate of the trace; a third as many runs for the density.
        restarts: Of the ascents.

    Returns:
        The figures.
    """
    base, seed = evaluator.base.astype(np.float64), options.seed
    hessian = evaluator.hessian()
    product, n = _Counting(hessian.product), hessian.n
    gradient = hessian.gradient
    square = float(gradient @ gradient)
    k = min(max(options.eigenvalues, 1), n)
    extremes, vectors = extreme_eigenvectors(product, n, k=k, both_ends=True, seed=seed)

    def loss(theta: Vector) -> float:
        return evaluator.loss(theta.astype(np.float32))

    def slope(theta: Vector) -> Vector:
        return evaluator.gradient(theta.astype(np.float32))

    def worst(scale: Vector, rho: float) -> WorstCase:
        return worst_case_ascent(loss, slope, base, scale, rho=rho, restarts=restarts, seed=seed)

    return Curvature(
        gradient_norm=float(np.sqrt(square)),
        gradient_curvature=float(gradient @ product(gradient)) / square if square > 0 else None,
        extremes=extremes,
        trace=hutchinson_trace(product, n, probes=probes, seed=seed, level=options.level),
        trace_pp=hutch_pp_trace(product, n, products=probes, seed=seed, level=options.level),
        density=spectral_density(product, n, probes=max(probes // 3, 2), steps=30, seed=seed),
        worst_case=worst(np.ones(n), options.rho),
        adaptive=worst(perturbation_scale(base, evaluator.layout, Norm.ELEMENT), options.adaptive_rho),
        keskar=keskar_sharpness(loss, slope, base),
        positions=axis_positions(options.radius, options.plane_points),
        plane=_plane(evaluator, vectors[:2], options) if k > 1 else None,
        products=product.calls,
    )


def _plane(evaluator: Curved, vectors: NDArray[np.float64], options: SurveyOptions) -> NDArray[np.float64]:
    """Losses in the plane of two eigenvectors, which are as long as the weights at 1."""
    first, second = (vectors * np.linalg.norm(evaluator.base)).astype(np.float32)
    axis = axis_positions(options.radius, options.plane_points)
    rows = [evaluator.losses_along(evaluator.base + np.float32(a) * first, second, axis) for a in axis]
    return np.array(rows)
