"""Local-optima network of a model: descents from kicked weights, optima told apart by what they compute.

With gradients the descents run in all weights; without, in a random subspace of normalised directions through
the base weights, with central differences. Two optima are one when their outputs on the evaluation set agree:
a network with its hidden units permuted or rescaled computes the same function, so copies are one node.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from emergraph.analysis.landscape.basin_hopping import SampledLon, matching_key, sample_lon
from emergraph.analysis.landscape.descents import Differentiable, lbfgs_descent, scaled_kick
from emergraph.analysis.landscape.directions import perturbation_scale, random_directions
from emergraph.analysis.landscape.evaluator import Evaluator, Weights
from emergraph.analysis.landscape.lon import LonSummary, summarise_lon
from emergraph.analysis.landscape.options import SurveyOptions

Vector = NDArray[np.float64]

SUBSPACE_DRAWS = 3_000_000
"""Index of the first direction of subspaces within a seed."""

KICK = 0.5
"""Size of kicks and of the spread of the starts, in units of the perturbation scale."""


class WithOutputs(Evaluator, Protocol):
    """An evaluator that also gives the model's outputs."""

    def outputs(self, theta: Weights) -> list[list[NDArray[np.generic]]]:
        """Outputs at a weight vector, one list per batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Optima:
    """A sampled local-optima network of a model."""

    sampled: SampledLon
    summary: LonSummary
    dimensions: int
    """Dimensions in which the descents run: all parameters, or those of a random subspace."""
    gradients: bool
    """Whether the engine gave gradients."""
    tolerance: float
    """Root mean square difference of outputs, relative to their spread, up to which two optima are one."""
    precision: float
    """Losses at most this far apart are equal."""

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain values."""
        about = ("dimensions", "gradients", "tolerance", "precision")
        return {
            **self.summary.to_dict(),
            **{name: getattr(self, name) for name in about},
            "descents": self.sampled.descents,
            "unexplored": self.sampled.unexplored,
            "runs": int(self.sampled.final_losses.size),
        }


def subspace_descent(
    loss: Callable[[Vector], float], *, max_steps: int = 50, step: float = 1e-2
) -> Callable[[Vector], tuple[Vector, float]]:
    """Return a function that descends in a few coordinates by L-BFGS with central differences.

    Args:
        loss: Of the coordinates.
        max_steps: Of L-BFGS.
        step: Of the differences: large enough for losses in single precision.

    Example:
        >>> point, low = subspace_descent(lambda c: float((c[0] - 1) ** 2))(np.zeros(1))
        >>> round(float(point[0]), 4)
        1.0
    """

    def slope(point: Vector) -> Vector:
        units = step * np.eye(point.size)
        return np.array([(loss(point + unit) - loss(point - unit)) / (2 * step) for unit in units])

    def descend(start: Vector) -> tuple[Vector, float]:
        found = minimize(loss, start, jac=slope, method="L-BFGS-B", options={"maxiter": max_steps})
        return np.asarray(found.x, dtype=np.float64), float(found.fun)

    return descend


@dataclass(frozen=True, kw_only=True)
class _Space:
    """The coordinates in which descents run."""

    centre: Vector
    """The base weights in them."""
    scale: Vector
    """Standard deviation of a kick of size 1, per coordinate."""
    weights: Callable[[Vector], Weights]
    descend: Callable[[Vector], tuple[Vector, float]]


def _all_weights(gradient: Differentiable, options: SurveyOptions, max_steps: int) -> _Space:
    base = gradient.base.astype(np.float64)
    return _Space(
        centre=base,
        scale=perturbation_scale(base, gradient.layout, options.norm),
        weights=lambda point: point.astype(np.float32),
        descend=lbfgs_descent(gradient, max_steps=max_steps),
    )


def _subspace(evaluator: Evaluator, options: SurveyOptions, dimensions: int) -> _Space:
    base = evaluator.base.astype(np.float64)
    basis = random_directions(
        base,
        evaluator.layout,
        n=dimensions,
        seed=options.seed,
        norm=options.norm,
        orthogonal=True,
        first=SUBSPACE_DRAWS,
    ).vectors

    def weights(point: Vector) -> Weights:
        return (base + point @ basis).astype(np.float32)

    return _Space(
        centre=np.zeros(dimensions),
        scale=np.ones(dimensions),
        weights=weights,
        descend=subspace_descent(lambda point: evaluator.loss(weights(point))),
    )


def optima_network(
    evaluator: WithOutputs,
    options: SurveyOptions,
    *,
    floor: float,
    gradient: Differentiable | None = None,
    dimensions: int = 6,
    patience: int = 5,
    max_steps: int = 200,
    tolerance: float = 0.05,
) -> Optima:
    """Sample the local-optima network around the base weights.

    The first run starts at the base weights, the others around them.

    Args:
        evaluator: Gives losses and outputs.
        options: `optima` runs (at least 1), `norm`, `seed`.
        floor: Losses at most this far apart are equal.
        gradient: The evaluator again, where it has gradients.
        dimensions: Of the subspace without gradients.
        patience: A run ends after this many kicks without a lower loss.
        max_steps: Of L-BFGS with gradients.
        tolerance: See `Optima.tolerance`.

    Returns:
        The network.
    """
    if gradient is None:
        space = _subspace(evaluator, options, dimensions)
    else:
        space = _all_weights(gradient, options, max_steps)

    def outputs(point: Vector) -> Vector:
        found = evaluator.outputs(space.weights(point))
        return np.concatenate([np.asarray(a, dtype=np.float64).ravel() for batch in found for a in batch])

    seed, own = options.seed, outputs(space.centre)
    kick = scaled_kick(space.scale, sigma=KICK)
    runs = range(1, max(options.optima, 1))
    streams = [np.random.SeedSequence(seed, spawn_key=(SUBSPACE_DRAWS, run)) for run in runs]
    starts = [space.centre, *(kick(space.centre, np.random.default_rng(stream)) for stream in streams)]
    sampled = sample_lon(
        starts,
        space.descend,
        kick,
        matching_key(outputs, tolerance * float(own.std())),
        patience=patience,
        max_kicks=10 * patience,
        seed=seed,
    )
    return Optima(
        sampled=sampled,
        summary=summarise_lon(sampled.graph, precision=floor, final_losses=sampled.final_losses),
        dimensions=int(space.centre.size),
        gradients=gradient is not None,
        tolerance=tolerance,
        precision=floor,
    )
