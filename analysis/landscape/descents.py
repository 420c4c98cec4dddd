"""Descents and kicks for local-optima networks of a model, by L-BFGS with the engine's gradients."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from emergraph.analysis.landscape.evaluator import Evaluator, Weights

Vector = NDArray[np.float64]


class Differentiable(Evaluator, Protocol):
    """An evaluator with gradients, such as `engine_torch.TorchEvaluator`."""

    def gradient(self, theta: Weights) -> Vector:
        """Gradient of the loss at a weight vector, (n_params,)."""
        ...


def lbfgs_descent(
    evaluator: Differentiable, *, max_steps: int = 200, tolerance: float = 1e-6
) -> Callable[[Vector], tuple[Vector, float]]:
    """Return a function that descends from a weight vector to a local minimum.

    Args:
        evaluator: Gives losses and gradients.
        max_steps: Of L-BFGS.
        tolerance: Largest component of the gradient at the end.

    Returns:
        A function from weights to the minimum's weights and loss.
    """

    def descend(start: Vector) -> tuple[Vector, float]:
        found = minimize(
            lambda t: evaluator.loss(t.astype(np.float32)),
            start,
            jac=lambda t: evaluator.gradient(t.astype(np.float32)),
            method="L-BFGS-B",
            options={"maxiter": max_steps, "gtol": tolerance},
        )
        return np.asarray(found.x, dtype=np.float64), float(found.fun)

    return descend


def scaled_kick(scale: Vector, *, sigma: float) -> Callable[[Vector, np.random.Generator], Vector]:
    """Return a kick theta -> theta + sigma N z, z ~ N(0, I), N the perturbation scale."""

    def kick(theta: Vector, rng: np.random.Generator) -> Vector:
        return theta + sigma * scale * rng.standard_normal(theta.size)

    return kick
