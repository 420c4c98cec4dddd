"""The straight line from a model's weights to another model's, and the barrier on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.connectivity import Barrier, line_barrier, sample_line
from emergraph.analysis.landscape.evaluator import Evaluator, Weights


@dataclass(frozen=True, kw_only=True)
class Line:
    """Losses between two sets of weights."""

    other: str
    """File at the far end."""
    positions: NDArray[np.float64]
    """(n,) 0 at the model, 1 at the other."""
    losses: NDArray[np.float64]
    """(n,)."""
    barrier: Barrier
    distance: float
    """Euclidean distance of the weights."""
    loss_name: str

    def to_dict(self) -> dict[str, object]:
        """Return the figures and the losses as plain values."""
        return {
            "other": self.other,
            "loss": self.loss_name,
            "distance": self.distance,
            **self.barrier.to_dict(),
            "losses": self.losses.tolist(),
        }


def line_to(evaluator: Evaluator, other: Weights, *, name: str, n: int = 25) -> Line:
    """Evaluate the loss from an evaluator's base weights to other weights.

    Args:
        evaluator: Gives the losses; with batch norm, one that recomputes the running statistics.
        other: (n_params,) the far end.
        name: What the far end is called.
        n: Points, odd to hit the midpoint.

    Returns:
        Losses and barrier.

    Raises:
        UsageError: The shapes differ, or a loss is not finite.

    Example:
        >>> from emergraph.analysis.landscape.evaluator import FunctionEvaluator
        >>> from emergraph.analysis.landscape.layout import Layout
        >>> wells = lambda t: float((t[0] ** 2 - 1) ** 2)
        >>> well = FunctionEvaluator(wells, -np.ones(1, np.float32), Layout.of_shapes([(1, 1)]))
        >>> line_to(well, np.ones(1, np.float32), name="b").barrier.barrier
        1.0
    """
    first, second = evaluator.base.astype(np.float64), np.asarray(other, dtype=np.float64)
    positions, losses = sample_line(
        lambda theta: evaluator.loss(theta.astype(np.float32)), first, second, n=n
    )
    return Line(
        other=name,
        positions=positions,
        losses=losses,
        barrier=line_barrier(positions, losses),
        distance=float(np.linalg.norm(second - first)),
        loss_name=evaluator.loss_name,
    )
