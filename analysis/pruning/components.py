"""The largest connected piece of the graph at every level of a sweep."""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, Floats, Levels
from emergraph.analysis.edgesets.forest import spanning_forest
from emergraph.analysis.pruning.removal import Removal
from emergraph.graphstore.records import PATH_KINDS, EdgeKind

REACH_KINDS = (*PATH_KINDS, EdgeKind.RECURRENT, EdgeKind.OPAQUE)
"""Kinds that carry influence from unit to unit; `norm` would keep every unit of a group alive."""


def giant_shares(removal: Removal) -> Floats:
    """Share of units in the largest weakly connected component, at every level.

    Edges of the kinds that reachability follows, without direction. From the highest level down, each level
    adds its edges between the components that there are. Removed units count as units, each alone.

    Returns:
        (n_levels,) in (0, 1].
    """
    table = removal.items.table
    parts = _Components(table.graph.n_units)
    blocks = table.of_kinds(REACH_KINDS).blocks
    shares = np.empty(removal.n_levels)
    stop = removal.n_levels
    for level in reversed(range(removal.n_levels)):
        for block in blocks:
            parts.join_block(removal, block, level, stop)
        stop = level
        shares[level] = parts.largest() / table.graph.n_units
    return shares


_PENDING = 1 << 20
"""Edges that are added to components together."""


class _Components:
    """Components of units, to which edges are added."""

    def __init__(self, n_units: int) -> None:
        self._labels = np.arange(n_units)
        self._sizes = np.ones(n_units, dtype=np.int64)
        self._giant = 0
        self._pending: list[tuple[NDArray[np.integer], NDArray[np.integer]]] = []
        self._n_pending = 0

    def largest(self) -> int:
        """Units of the largest one."""
        self._flush()
        return int(self._sizes.max())

    def join_block(self, removal: Removal, block: BlockTable, level: int, stop: int) -> None:
        """Add the edges of a block that are there at a level, not from `stop` on."""
        # most units are in the largest component: only edges of the others can join anything
        if len(self._sizes) == 1:
            return
        down, across = (self._labels[units] != self._giant for units in (block.rows, block.columns))
        if not down.any() and not across.any():
            return
        if block.cells is None:
            gone = removal.of(block, None)
            here = np.flatnonzero((gone > level) & (gone <= stop))
            self._join(block.src[here], block.dst[here])
            return
        for piece in block.cells.pieces:
            rows, columns = piece
            if not (down[rows].any() or across[columns].any()):
                continue
            gone = removal.of(block, piece)
            a, b = block.rows[rows], block.columns[columns]
            if down[rows].any():
                at = np.nonzero(_between(gone[down[rows]], level, stop))
                self._join(a[down[rows]][at[0]], b[at[1]])
            if across[columns].any():
                at = np.nonzero(_between(gone[:, across[columns]], level, stop))
                self._join(a[at[0]], b[across[columns]][at[1]])

    def _join(self, a: NDArray[np.integer], b: NDArray[np.integer]) -> None:
        self._pending.append((a, b))
        self._n_pending += len(a)
        if self._n_pending > max(_PENDING, 2 * len(self._sizes)):
            self._flush()

    def _flush(self) -> None:
        if self._n_pending:
            a, b = (self._labels[np.concatenate([ends[side] for ends in self._pending])] for side in (0, 1))
            apart = a != b
            _, merged, n_parts = spanning_forest(a[apart], b[apart], len(self._sizes))
            self._sizes = np.bincount(merged, weights=self._sizes, minlength=n_parts).astype(np.int64)
            self._labels = merged[self._labels]
            self._giant = int(self._sizes.argmax())
        self._pending, self._n_pending = [], 0


def _between(gone: Levels, level: int, stop: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (gone > level) & (gone <= stop)
    return found
