"""Mode connectivity: is there a barrier between two sets of weights?

Barrier on the line: max_a L((1 - a) t1 + a t2) - [(1 - a) L1 + a L2] (arXiv 1912.05671; 2110.06296, eq. 2).
The connectivity of a path gamma (arXiv 2107.11228, section 3): mc = (L1 + L2)/2 - L(gamma(t*)), t* = argmax
|(L1 + L2)/2 - L(gamma(t))|; mc < 0 is a barrier, mc > 0 a lower region between the ends. On a quadratic with
Hessian A the excess at the midpoint is -(t1 - t2)' A (t1 - t2)/8, exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.statistics.estimate import plain
from emergraph.errors import UsageError


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
