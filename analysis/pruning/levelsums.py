"""Sums over the edges of one block at every level of a sweep, in one pass over its matrix.

Values are rows (column of the sweep, unit), so that what a product takes lies together. Masks of a piece are
made once for a level, and shared by all that is summed at it.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from emergraph.analysis.edgesets.edgetable import BlockTable, Cells, Floats
from emergraph.analysis.pruning.flow import finite
from emergraph.analysis.pruning.removal import Removal
from emergraph.graphstore.inplace import Piece

POWERS = (1, 2)
"""Of path norms."""


@dataclass(frozen=True, eq=False)
class _Part:
    """What some pieces of a matrix add."""

    rows: slice
    columns: slice
    sums: Floats
    """(columns of the sweep, rows or columns)."""
    removed: Floats
    """(n_levels, columns) edges that are gone."""

    @classmethod
    def of(cls, run: list[Piece], n: int, n_levels: int, *, to_rows: bool) -> "_Part":
        rows = slice(run[0][0].start, run[-1][0].stop)
        columns = slice(run[0][1].start, run[-1][1].stop)
        sizes = rows.stop - rows.start, columns.stop - columns.start
        return cls(rows, columns, np.zeros((n, sizes[0 if to_rows else 1])), np.zeros((n_levels, sizes[1])))

    def within(self, piece: Piece) -> Piece:
        """Where a piece is in the results."""
        rows, columns = piece
        return (
            slice(rows.start - self.rows.start, rows.stop - self.rows.start),
            slice(columns.start - self.columns.start, columns.stop - self.columns.start),
        )


def successor_sums(
    removal: Removal, block: BlockTable, cells: Cells, values: Floats
) -> tuple[Floats, Floats | None]:
    """For every source the sum of its targets' values, and how many edges are gone.

    Args:
        removal: The masks.
        block: A block that is a matrix.
        cells: That matrix.
        values: (n * n_levels, n_targets), level fastest.

    Returns:
        (n * n_levels, n_sources); (n_levels, n_targets) edges that are gone, None where none ever is.
    """
    sums = np.zeros((len(values), cells.shape[0]))
    removed = np.zeros((removal.n_levels, cells.shape[1]))
    fixed = removal.is_fixed(block)
    for part in block.passed(partial(_whole if fixed else _masked, removal, block, cells, values)):
        sums[:, part.rows] += part.sums
        removed[:, part.columns] += part.removed
    return sums, None if fixed else removed


def _whole(removal: Removal, _block: BlockTable, cells: Cells, values: Floats, run: list[Piece]) -> _Part:
    found = _Part.of(run, len(values), removal.n_levels, to_rows=True)
    for piece in run:
        rows, _ = found.within(piece)
        there, own = cells.there(piece), values[:, piece[1]]
        found.sums[:, rows] += (
            own.sum(axis=1, keepdims=True) if there is None else own @ there.T.astype(np.float64)
        )
    return found


def _masked(removal: Removal, block: BlockTable, cells: Cells, values: Floats, run: list[Piece]) -> _Part:
    n_levels = removal.n_levels
    found = _Part.of(run, len(values), n_levels, to_rows=True)
    for piece in run:
        rows, columns = found.within(piece)
        gone, there = removal.of(block, piece), cells.there(piece)
        full = gone.shape[0] if there is None else there.sum(axis=0)
        above, mask = np.empty_like(gone, dtype=np.bool_), np.empty_like(gone, dtype=np.float64)
        ones = np.ones(gone.shape[0])
        for level in range(n_levels):
            np.greater(gone, level, out=above)
            np.copyto(mask, above)
            found.removed[level, columns] += full - ones @ mask
            for row in range(level, len(values), n_levels):
                found.sums[row, rows] += mask @ values[row, piece[1]]
    return found


def path_products(removal: Removal, block: BlockTable, values: Floats) -> Floats:
    """(n_targets, powers * n_levels) sums of |w|**power times the source's value over what is left.

    Args:
        removal: The masks.
        block: Any block.
        values: (n_units, powers * n_levels), level fastest.
    """
    leader, _ = removal.items.copies.get(block.block.id, (block, None))
    if block.cells is None or leader.block.id in removal.items.taps:
        return _one_by_one(removal, block, values)
    own = np.ascontiguousarray(values[block.rows].T)
    sums = np.zeros((len(own), block.cells.shape[1]))
    do = _whole_powers if removal.is_fixed(block) else _masked_powers
    for part in block.passed(partial(do, removal, block, own)):
        sums[:, part.columns] += part.sums
    return sums.T


def _one_by_one(removal: Removal, block: BlockTable, values: Floats) -> Floats:
    sums = np.empty((len(block.columns), values.shape[1]))
    for k in range(values.shape[1]):
        power, level = POWERS[k // removal.n_levels], k % removal.n_levels
        factors = finite(removal.strength(block, level, power=power))
        sums[:, k] = block.sums(factors, values[:, k : k + 1], "dst")[:, 0]
    return sums


def _whole_powers(removal: Removal, block: BlockTable, values: Floats, run: list[Piece]) -> _Part:
    n_levels = removal.n_levels
    found = _Part.of(run, len(values), n_levels, to_rows=False)
    for piece in run:
        _, columns = found.within(piece)
        for k, sizes in enumerate(map(finite, block.sizes(piece))):
            own = slice(k * n_levels, (k + 1) * n_levels)
            found.sums[own, columns] += values[own, piece[0]] @ sizes
    return found


def _masked_powers(removal: Removal, block: BlockTable, values: Floats, run: list[Piece]) -> _Part:
    n_levels = removal.n_levels
    found = _Part.of(run, len(values), n_levels, to_rows=False)
    for piece in run:
        _, columns = found.within(piece)
        gone = removal.of(block, piece)
        left = [np.array(finite(sizes), order="K") for sizes in block.sizes(piece)]
        above, mask = np.empty_like(gone, dtype=np.bool_), np.empty_like(gone, dtype=np.float64)
        for level in range(n_levels):
            np.greater(gone, level, out=above)
            np.copyto(mask, above)
            for k, sizes in enumerate(left):
                # what is gone stays gone
                np.multiply(sizes, mask, out=sizes)
                row = k * n_levels + level
                found.sums[row, columns] += values[row, piece[0]] @ sizes
    return found
