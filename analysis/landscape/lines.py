"""The straight line from a model's weights to another model's, and the barrier on it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.landscape.evaluator import Evaluator, Weights
from emergraph.analysis.statistics.estimate import plain
from emergraph.errors import UsageError

# Mode connectivity: is there a barrier between two sets of weights?


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """Loss along the straight line between two sets of weights."""

    barrier: float
    """Largest excess over the chord, in units of the loss; 0 at least, since the ends have none."""
    at: float
    """Where, 0 .. 1."""
    midpoint_excess: float | None
    """Excess at 1/2; None when 1/2 was not sampled."""
    connectivity: float
    """mc: negative for a barrier, positive for a lower region in between."""
    highest: float
    """Largest loss on the line."""
    ends: tuple[float, float]
    n: int
    """Points on the line."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


def line_barrier(positions: ArrayLike, losses: ArrayLike) -> Barrier:
    """Barrier and connectivity from losses sampled along a line.

    Args:
        positions: (n,) ascending from 0 to 1.
        losses: (n,) finite.

    Returns:
        The figures; a finer line can only find a higher barrier.

    Raises:
        UsageError: The positions do not run from 0 to 1, or a loss is not finite.

    Example:
        >>> line_barrier([0.0, 0.5, 1.0], [0.0, 1.0, 0.0]).barrier
        1.0
    """
    t, f = np.asarray(positions, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if t.ndim != 1 or t.shape != f.shape or t.size < 3 or t[0] != 0 or t[-1] != 1 or np.any(np.diff(t) <= 0):
        raise UsageError("line: expected at least 3 ascending positions from 0 to 1 with one loss each")
    if not np.all(np.isfinite(f)):
        raise UsageError(f"line: {int(np.sum(~np.isfinite(f)))} of {f.size} losses are not finite")
    excess = f - ((1 - t) * f[0] + t * f[-1])
    mean = (f[0] + f[-1]) / 2
    middle = np.flatnonzero(t == 0.5)
    peak = int(np.argmax(excess))
    return Barrier(
        barrier=float(excess[peak]),
        at=float(t[peak]),
        midpoint_excess=float(excess[middle[0]]) if middle.size else None,
        connectivity=float(mean - f[np.argmax(np.abs(mean - f))]),
        highest=float(f.max()),
        ends=(float(f[0]), float(f[-1])),
        n=int(t.size),
    )


def sample_line(
    loss: Callable[[NDArray[np.float64]], float],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    n: int = 25,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evaluate the loss at `n` equally spaced points from `first` to `second`, both ends bit-exact.

    Returns:
        Positions 0 .. 1 and losses, (n,) each; an odd n samples the midpoint.
    """
    if first.shape != second.shape:
        raise UsageError(f"line: expected weights of one shape, found {first.shape} and {second.shape}")
    positions = np.linspace(0.0, 1.0, n)
    points = (first if t == 0 else second if t == 1 else (1 - t) * first + t * second for t in positions)
    return positions, np.array([loss(point) for point in points])


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
