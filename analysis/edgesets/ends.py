"""The units at one end of very many edges, without a number for each edge where blocks are full matrices."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Ends:
    """One end of every edge, block after block: `ends[numbers]` and `ends[first:last]` are units.

    Args:
        starts: (n_blocks + 1,) number of each block's first edge.
        units: For each block its rows or columns, where its edges are a full matrix row by row; else the unit
            of every edge.
        widths: For each block the columns of its matrix, 0 where it is none.
        rows: Whether the units are those of rows.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        units: Sequence[NDArray[np.int32]],
        widths: Sequence[int],
        *,
        rows: bool,
    ) -> None:
        self._starts, self._rows = starts, rows
        self._widths = np.array(widths, dtype=np.int64)
        self._units = np.concatenate([np.empty(0, np.int32), *units])
        self._offsets = np.cumsum([0, *(one.size for one in units)])[:-1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, at: "slice | NDArray[np.integer]") -> NDArray[np.int32]:
        if isinstance(at, slice):
            first, last, _ = at.indices(len(self))
            return self._between(first, last)
        block = np.searchsorted(self._starts, at, side="right") - 1
        place = at - self._starts[block]
        width = self._widths[block]
        full = width > 0
        step = np.maximum(width, 1)
        place = np.where(full, place // step if self._rows else place % step, place)
        found: NDArray[np.int32] = self._units[self._offsets[block] + place]
        return found

    def _between(self, first: int, last: int) -> NDArray[np.int32]:
        block = int(np.searchsorted(self._starts, first, side="right")) - 1
        if first >= last:
            return np.empty(0, np.int32)
        if last > self._starts[block + 1]:
            return self[np.arange(first, last)]
        start, offset, width = int(self._starts[block]), int(self._offsets[block]), int(self._widths[block])
        if not width:
            return self._units[offset + first - start : offset + last - start]
        top, end = (first - start) // width, -(-(last - start) // width)
        own = self._units[offset + top : offset + end] if self._rows else self._units[offset : offset + width]
        whole = np.repeat(own, width) if self._rows else np.tile(own, end - top)
        skipped = first - start - top * width
        return whole[skipped : skipped + last - first]
