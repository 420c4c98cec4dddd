"""Minima, maxima and saddles of a sampled plane or line, with flat zones as one extremum each.

On random planes of a trained net one minimum is the rule; counts above one are often evaluation noise. So the
counts come with the noise floor, and `merge_tree` counts only minima that persist above it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emergraph.analysis.statistics.estimate import plain
from emergraph.errors import UsageError

RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
"""The eight neighbours in circular order."""


@dataclass(frozen=True, kw_only=True)
class Extrema:
    """Extrema of one grid; a flat zone counts once, zones that touch the rim are counted apart."""

    minima: int
    """Interior flat zones whose finite neighbours are all higher."""
    maxima: int
    saddles: int
    """Interior cells around which the eight neighbours cross the cell's value at least four times."""
    boundary_minima: int
    """Zones on the rim that are lower than all their neighbours; the true minimum may lie outside."""
    boundary_maxima: int
    cells: int
    """Finite cells."""
    nonfinite: int
    """Cells with NaN or infinite loss; they are walls, never filled in."""
    neighbours: int
    """4 or 8."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


def as_grid(values: ArrayLike) -> NDArray[np.float64]:
    """Return a plane (rows, columns) of float64; a line becomes one row.

    Raises:
        UsageError: Not one- or two-dimensional, or without any finite value.
    """
    grid = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if grid.ndim != 2 or not np.isfinite(grid).any():
        raise UsageError(
            f"grid: expected a line or plane with finite values, found shape {np.shape(values)} "
            f"with {int(np.isfinite(grid).sum())} finite"
        )
    return grid


def noise_floor(losses: ArrayLike, repeats: ArrayLike | None = None) -> float:
    """Return the loss difference below which structure is not evidence of structure.

    The larger of 4 eps32 max|L| (rounding of float32 sums) and the range of repeated evaluations of one
    point.

    Args:
        losses: Computed losses of any shape; non-finite ones are ignored.
        repeats: Losses of repeated evaluations of one point.

    Returns:
        A non-negative loss difference.

    Example:
        >>> noise_floor([1.0, -2.0]) == 8 * float(np.finfo(np.float32).eps)
        True
    """
    values = np.asarray(losses, dtype=np.float64)
    largest = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
    spread = float(np.ptp(np.asarray(repeats, dtype=np.float64))) if repeats is not None else 0.0
    return max(4 * float(np.finfo(np.float32).eps) * largest, spread)


def neighbour_pairs(
    shape: tuple[int, int], neighbours: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield each family of neighbouring cells once, as two arrays of flat indices.

    Args:
        shape: Of the grid.
        neighbours: 4 (von Neumann) or 8 (Moore).

    Yields:
        Flat indices of cells and of their right, lower, and diagonal neighbours.
    """
    if neighbours not in (4, 8):
        raise UsageError(f"neighbours: expected 4 or 8, found {neighbours}")
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    yield index[:, :-1].ravel(), index[:, 1:].ravel()
    yield index[:-1].ravel(), index[1:].ravel()
    if neighbours == 8:
        yield index[:-1, :-1].ravel(), index[1:, 1:].ravel()
        yield index[:-1, 1:].ravel(), index[1:, :-1].ravel()


def count_saddles(grid: NDArray[np.float64]) -> int:
    """Count interior cells around which the eight neighbours change side at least four times.

    Neighbours level with the cell are on no side.
    """
    rows, columns = grid.shape
    if rows < 3 or columns < 3:
        return 0
    centre = grid[1:-1, 1:-1]
    ring = np.array([grid[1 + r : rows - 1 + r, 1 + c : columns - 1 + c] for r, c in RING])
    usable = np.isfinite(ring).all(axis=0) & np.isfinite(centre)
    side = np.sign(np.where(usable, ring - np.where(usable, centre, 0.0), 0.0))
    # Going round twice gives every level neighbour the side of the last one that was not level.
    for i in range(1, 2 * len(RING)):
        here, last = side[i % len(RING)], side[(i - 1) % len(RING)]
        here[here == 0] = last[here == 0]
    changes = (side != np.roll(side, 1, axis=0)).sum(axis=0)
    return int(np.sum(changes >= 4))


def count_extrema(values: ArrayLike, *, neighbours: int = 4) -> Extrema:
    """Count strict minima and maxima of a grid, flat zones joined first, and its saddles.

    Args:
        values: (rows, columns) losses, or a line.
        neighbours: 4 or 8.

    Returns:
        The counts. A grid that is flat throughout has none.

    Raises:
        UsageError: Not a grid, or no finite value.

    Example:
        >>> x = np.linspace(-1, 1, 11)
        >>> count_extrema(x[:, None] ** 2 + x**2).minima
        1
    """
    grid = as_grid(values)
    flat = grid.ravel()
    finite = np.isfinite(flat)
    pairs = [(a, b) for a, b in neighbour_pairs(grid.shape, neighbours) if a.size]
    left = np.concatenate([a for a, _ in pairs]) if pairs else np.empty(0, dtype=np.intp)
    right = np.concatenate([b for _, b in pairs]) if pairs else np.empty(0, dtype=np.intp)
    usable = finite[left] & finite[right]
    left, right = left[usable], right[usable]
    equal = flat[left] == flat[right]
    joined = coo_array((np.ones(int(equal.sum())), (left[equal], right[equal])), shape=(flat.size, flat.size))
    n_zones, zone = connected_components(joined, directed=False)
    has_lower, has_higher = np.zeros(n_zones, dtype=bool), np.zeros(n_zones, dtype=bool)
    for a, b in ((left, right), (right, left)):
        has_lower[zone[a[flat[b] < flat[a]]]] = True
        has_higher[zone[a[flat[b] > flat[a]]]] = True
    rim = np.zeros(grid.shape, dtype=bool)
    rim[:, [0, -1]] = True
    if grid.shape[0] > 1:
        rim[[0, -1], :] = True
    on_rim, real = np.zeros(n_zones, dtype=bool), np.zeros(n_zones, dtype=bool)
    on_rim[zone[rim.ravel()]] = True
    real[zone[finite]] = True
    low, high = real & ~has_lower & has_higher, real & ~has_higher & has_lower
    return Extrema(
        minima=int(np.sum(low & ~on_rim)),
        maxima=int(np.sum(high & ~on_rim)),
        saddles=count_saddles(grid),
        boundary_minima=int(np.sum(low & on_rim)),
        boundary_maxima=int(np.sum(high & on_rim)),
        cells=int(finite.sum()),
        nonfinite=int((~finite).sum()),
        neighbours=neighbours,
    )
