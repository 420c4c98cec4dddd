"""Sums over the successors within one block: for every source, the sum of its targets' values.

Three ways, by the shape of the work: a gather and a segmented sum for a few columns; a 0/1 matrix times a
matrix for many columns (BLAS where the block is well filled, CSR where it is not); a copy where no source has
two targets. All of them add non-negative float64 numbers pairwise or in blocks, and are exact while sums stay
below 2**53.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.graphstore.arrays import IntArray

Floats = NDArray[np.float64]

FEW_COLUMNS = 6
"""Up to here a gather per column beats building a matrix."""
MATRIX_CELLS = 1 << 22
"""Cells of the dense piece that is built at a time (32 MiB)."""
WELL_FILLED = 0.04
"""Share of pairs that are edges from which on BLAS beats CSR."""


@dataclass(frozen=True, kw_only=True)
class EdgeSums:
    """Edges of one block, grouped by source; made by `group_edges`."""

    sources: IntArray
    """(n_sources,) distinct unit ids, increasing."""
    starts: IntArray
    """(n_sources,) where each source's edges begin."""
    targets: IntArray
    """(n_edges,) target units, less `first_target`."""
    multiplicity: Floats | None
    """(n_edges,) paths that an edge stands for; None: one each."""
    order: IntArray | None
    """(n_edges,) where each edge stood before grouping; None: they came grouped."""

    @property
    def fan(self) -> float:
        """Largest sum of multiplicities over one source's edges; 1 where edges count once."""
        if self.multiplicity is None:
            return 1.0
        return float(np.add.reduceat(self.multiplicity, self.starts).max())

    def __call__(self, values: Floats) -> Floats:
        """For every source the sum of multiplicity times value over its targets.

        Args:
            values: (n_targets, n_columns) values of the target layer's units, non-negative.

        Returns:
            (n_sources, n_columns).
        """
        if len(self.sources) == len(self.targets):
            picked = values[self.targets]
            return picked if self.multiplicity is None else picked * self.multiplicity[:, None]
        if values.shape[1] <= FEW_COLUMNS:
            return self._by_gather(values)
        low, high = int(self.targets.min()), int(self.targets.max()) + 1
        fill = len(self.targets) / (len(self.sources) * (high - low))
        if fill >= WELL_FILLED:
            return self._by_matrix(values, low, high)
        return self._by_csr(values)

    def _by_gather(self, values: Floats) -> Floats:
        sums = np.empty((len(self.sources), values.shape[1]))
        for column in range(values.shape[1]):
            gathered = np.ascontiguousarray(values[:, column])[self.targets]
            if self.multiplicity is not None:
                gathered *= self.multiplicity
            sums[:, column] = np.add.reduceat(gathered, self.starts)
        return sums

    def _by_matrix(self, values: Floats, low: int, high: int) -> Floats:
        width = high - low
        sums = np.empty((len(self.sources), values.shape[1]))
        ends = np.append(self.starts, len(self.targets))
        step = max(1, MATRIX_CELLS // width)
        for first in range(0, len(self.sources), step):
            last = min(first + step, len(self.sources))
            edges = slice(ends[first], ends[last])
            rows = np.repeat(np.arange(last - first), np.diff(ends[first : last + 1]))
            piece = np.zeros((last - first) * width)
            cells = rows * width + (self.targets[edges] - low)
            piece[cells] = 1.0 if self.multiplicity is None else self.multiplicity[edges]
            sums[first:last] = piece.reshape(-1, width) @ values[low:high]
        return sums

    def _by_csr(self, values: Floats) -> Floats:
        from scipy.sparse import csr_array

        data = np.ones(len(self.targets)) if self.multiplicity is None else self.multiplicity
        bounds = np.append(self.starts, len(self.targets))
        matrix = csr_array((data, self.targets, bounds), shape=(len(self.sources), values.shape[0]))
        product: Floats = matrix @ values
        return product


def group_edges(
    src: NDArray[np.integer],
    dst: NDArray[np.integer],
    *,
    first_target: int,
    multiplicity: NDArray[np.integer] | None = None,
) -> EdgeSums:
    """Group a block's edges by source; cheap when they come ordered by source, as a store keeps them.

    Args:
        src: (n_edges,) source units, n_edges at least 1.
        dst: (n_edges,) target units.
        first_target: First unit of the target layer.
        multiplicity: (n_edges,) paths per edge, or None for one each.
    """
    changes = src[1:] != src[:-1]
    order = None
    if np.any(src[1:] < src[:-1]):
        order = np.argsort(src, kind="stable")
        src, dst = src[order], dst[order]
        multiplicity = None if multiplicity is None else multiplicity[order]
        changes = src[1:] != src[:-1]
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
    return EdgeSums(
        sources=src[starts].astype(np.int64),
        starts=starts,
        targets=np.subtract(dst, first_target, dtype=np.int64),
        multiplicity=None if multiplicity is None else multiplicity.astype(np.float64),
        order=order,
    )
