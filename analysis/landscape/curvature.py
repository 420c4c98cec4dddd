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
from emergraph.analysis.landscape.sharpness import WorstCase, keskar_sharpness, worst_case_ascent
from emergraph.analysis.landscape.slices import axis_positions
from emergraph.analysis.landscape.spectrum import (
    Extremes,
    SpectralDensity,
    extreme_eigenvectors,
    hutch_pp_trace,
    hutchinson_trace,
    spectral_density,
)
from emergraph.analysis.statistics.estimate import Estimate

Vector = NDArray[np.float64]


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
        density=spectral_density(
            product, n, probes=max(probes // 3, 2), steps=30, seed=seed, level=options.level
        ),
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
