"""Neutrality: how much of a landscape is flat at a stated resolution.

A step is neutral when |df| <= eps (Reidys and Stadler 2001, Applied Mathematics and Computation 117:321).
Without eps the figure means nothing: it is stored beside the result; the noise floor is a natural choice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.statistics.estimate import Estimate, plain
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Neutrality:
    """Flatness along walks at resolution `eps`."""

    neutral_share: Estimate
    """Share of steps with |df| <= eps, 0 .. 1, over walks."""
    plateau_length: Estimate
    """Mean number of points in a run of neutral steps (1: no neutral step), over walks."""
    longest_plateau: int
    """Longest run, in points, over all walks."""
    eps: float
    """Largest |df| that counts as no change, in units of the loss."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


def plateau_lengths(values: NDArray[np.float64], eps: float) -> NDArray[np.int64]:
    """Return the lengths, in points, of the maximal runs of neutral steps along one walk.

    Example:
        >>> plateau_lengths(np.array([0.0, 0.0, 1.0, 2.0, 2.0, 2.0]), 0.0).tolist()
        [2, 1, 3]
    """
    jumps = np.flatnonzero(~(np.abs(np.diff(values)) <= eps))
    return np.diff(np.concatenate([[-1], jumps, [values.size - 1]]))


def neutrality(walks: ArrayLike, *, eps: float, seed: int | None = None, level: float = 0.95) -> Neutrality:
    """Share of neutral steps and plateau lengths along walks.

    Args:
        walks: (n, L), L >= 2.
        eps: Resolution, non-negative; `extrema.noise_floor` for computed losses.
        seed: Recorded.
        level: Coverage of the intervals.

    Returns:
        The statistics over walks.

    Raises:
        UsageError: Negative eps or wrong shape.

    Example:
        >>> neutrality(np.zeros((2, 5)), eps=0.0).neutral_share.mean
        1.0
    """
    values = np.asarray(walks, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise UsageError(f"walks: expected (n_walks, at least 2 points), found shape {values.shape}")
    if not eps >= 0:
        raise UsageError(f"eps: expected a non-negative loss difference, found {eps}")
    shares = (np.abs(np.diff(values, axis=1)) <= eps).mean(axis=1)
    plateaus = [plateau_lengths(walk, eps) for walk in values]
    return Neutrality(
        neutral_share=student(shares, support=Support.SHARE, seed=seed, level=level),
        plateau_length=student(
            [p.mean() for p in plateaus], support=Support.POSITIVE, seed=seed, level=level
        ),
        longest_plateau=int(max(p.max() for p in plateaus)),
        eps=eps,
    )
