"""All edges of a graph in memory, block by block, with the sums and reaches that masked graphs need.

A what-if sweep asks for many masks of the same edges. Masks of one sweep are nested, so an edge has one
number, the first level at which it is gone; a pass over the edges then answers every level at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.unitgraph import EdgeColumns, UnitBlock, UnitGraph
from emergraph.graphstore.arrays import IntArray
from emergraph.graphstore.records import EdgeKind

Floats = NDArray[np.float64]
Levels = NDArray[np.uint8]
Side = Literal["src", "dst"]
Scalar = TypeVar("Scalar", bound=np.generic)

WELL_FILLED = 0.25
"""Share of pairs that are edges from which on a block is laid out as a matrix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockTable:
    """The edges of one block; made by `block_table`."""

    block: UnitBlock
    target: int
    """Position of the target layer."""
    first: int
    """Number of the block's first edge within the table."""
    weight: NDArray[np.floating]
    """(n_edges,), NaN for NULL."""
    n_params: NDArray[np.int32] | None
    """(n_edges,) parameters behind each edge; None: one each."""
    listed: tuple[NDArray[np.int32], NDArray[np.int32]] | None
    """Both ends of every edge; None where the edges are the full matrix of the block, row by row, with units
    that ascend on both sides."""
    kernels: tuple[Floats, Floats] | None
    """`l1` and `l2`, where they are more than the weight."""

    @property
    def src(self) -> NDArray[np.int32]:
        """(n_edges,) sources."""
        if self.listed is not None:
            return self.listed[0]
        return np.repeat(self.rows.astype(np.int32), len(self.columns))

    @property
    def dst(self) -> NDArray[np.int32]:
        """(n_edges,) targets."""
        if self.listed is not None:
            return self.listed[1]
        return np.tile(self.columns.astype(np.int32), len(self.rows))

    @property
    def l1(self) -> Floats:
        """(n_edges,) sum of absolute parameters; 1 where no parameter carries the influence."""
        return self._size(0)

    @property
    def l2(self) -> Floats:
        """(n_edges,) root of the sum of squares; 1 likewise."""
        return self._size(1)

    def _size(self, which: int) -> Floats:
        own = np.abs(self.weight, dtype=np.float64) if self.kernels is None else self.kernels[which]
        return own if self.block.tensor is not None else np.where(np.isnan(self.weight), 1.0, own)

    @property
    def edges(self) -> slice:
        """Where the block's edges stand within the table."""
        return slice(self.first, self.first + len(self.weight))

    @property
    def parameters(self) -> NDArray[np.int64]:
        """(n_edges,) non-zero parameters behind each edge."""
        if self.n_params is None:
            return np.broadcast_to(np.int64(1), len(self.weight))
        return self.n_params.astype(np.int64)

    @cached_property
    def rows(self) -> IntArray:
        """Distinct sources, increasing."""
        if self.listed is None and self.block.src_units is not None:
            return np.asarray(self.block.src_units, dtype=np.int64)
        return np.unique(self.src).astype(np.int64)

    @cached_property
    def columns(self) -> IntArray:
        """Distinct targets, increasing."""
        if self.listed is None and self.block.dst_units is not None:
            return np.asarray(self.block.dst_units, dtype=np.int64)
        return np.unique(self.dst).astype(np.int64)

    @cached_property
    def is_filled(self) -> bool:
        """Whether the block fills its matrix so well that it is laid out as one."""
        return len(self.weight) >= WELL_FILLED * len(self.rows) * len(self.columns)

    @cached_property
    def _cells(self) -> NDArray[np.int64] | None:
        """(n_edges,) place of each edge in the matrix (rows, columns); None: the edges are it, row by row."""
        if self.listed is None:
            return None
        cells = np.searchsorted(self.rows, self.src) * len(self.columns)
        cells += np.searchsorted(self.columns, self.dst)
        is_whole = len(cells) == len(self.rows) * len(self.columns) and bool((np.diff(cells) == 1).all())
        return None if is_whole else cells

    def grid(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Values of edges as a matrix (rows, columns), 0 where there is no edge."""
        shape = (len(self.rows), len(self.columns))
        if not self.is_filled:
            raise ValueError("the block is too sparse for a matrix")
        if self._cells is None:
            return values.reshape(shape)
        grid = np.zeros(shape[0] * shape[1], dtype=values.dtype)
        grid[self._cells] = values
        return grid.reshape(shape)

    def units(self, side: Side) -> IntArray:
        """Distinct units on one side."""
        return self.rows if side == "src" else self.columns

    @cached_property
    def _grouped(self) -> dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]]:
        grouped = {}
        for side, ends, units in (("src", self.src, self.rows), ("dst", self.dst, self.columns)):
            order = np.argsort(ends, kind="stable")
            grouped[side] = order, np.searchsorted(ends[order], units)
        return grouped

    def widest(self, gone: Levels, values: Levels, to: Side) -> Levels:
        """For each unit on one side, the largest over its edges of min(value of the other end, gone).

        Args:
            gone: (n_edges,) level at which each edge is gone.
            values: (n_units,) of the graph.
            to: The side that receives.

        Returns:
            One entry per unit of `units(to)`.
        """
        if self.is_filled:
            other = self.rows if to == "dst" else self.columns
            ends = values[other]
            grid = self.grid(gone)
            narrow = np.minimum(grid, ends[:, None] if to == "dst" else ends[None, :])
            widest: Levels = narrow.max(axis=0 if to == "dst" else 1)
            return widest
        other_end = self.src if to == "dst" else self.dst
        order, starts = self._grouped[to]
        result: Levels = np.maximum.reduceat(np.minimum(gone, values[other_end])[order], starts)
        return result

    def sums(self, strength: Floats, values: Floats, to: Side) -> Floats:
        """For each unit on one side, the sum over its edges of strength times the other end's value.

        Args:
            strength: (n_edges,), 0 where an edge is gone.
            values: (n_units, K) of the graph.
            to: The side that receives.

        Returns:
            (len(units(to)), K).
        """
        if self.is_filled:
            grid = self.grid(strength)
            if to == "dst":
                total: Floats = grid.T @ values[self.rows]
            else:
                total = grid @ values[self.columns]
            return total
        order, starts = self._grouped[to]
        other_end = (self.src if to == "dst" else self.dst)[order]
        summed: Floats = np.add.reduceat(strength[order, None] * values[other_end], starts, axis=0)
        return summed


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """The edges of a graph, blocks by ascending target layer."""

    graph: UnitGraph
    blocks: tuple[BlockTable, ...]

    @property
    def n_edges(self) -> int:
        """Edges of all blocks in the table."""
        return sum(len(block.weight) for block in self.blocks)

    @cached_property
    def by_layer(self) -> tuple[tuple[BlockTable, ...], ...]:
        """Blocks into each layer, by position of the layer."""
        found: list[list[BlockTable]] = [[] for _ in self.graph.layers]
        for block in self.blocks:
            found[block.target].append(block)
        return tuple(map(tuple, found))

    def of_kinds(self, kinds: Sequence[EdgeKind]) -> "EdgeTable":
        """The same table with the blocks of some kinds only; edges keep their numbers."""
        return EdgeTable(self.graph, tuple(b for b in self.blocks if b.block.kind in kinds))


def read_edge_table(graph: UnitGraph) -> EdgeTable:
    """Read all edges of a graph into memory: 4 bytes each in full matrices, 12 in others, 32 in kernels.

    Args:
        graph: From a store or from arrays.
    """
    ordered = sorted(
        (block for block in graph.blocks if block.n_edges),
        key=lambda block: (graph.layer_position(block.layer), block.id),
    )
    blocks, first = [], 0
    for block, edges in graph.iter_edges(ordered, columns=TABLE_COLUMNS):
        blocks.append(block_table(graph, block, edges, first=first))
        first += block.n_edges
    return EdgeTable(graph, tuple(blocks))


TABLE_COLUMNS = ("src", "dst", "weight", "l1", "l2", "n_params")
"""Columns that `block_table` takes."""


def block_table(graph: UnitGraph, block: UnitBlock, edges: EdgeColumns, *, first: int = 0) -> BlockTable:
    """Return the edges of one block.

    Args:
        graph: The graph.
        block: The block.
        edges: Its `TABLE_COLUMNS`.
        first: Number of its first edge within a table.
    """
    ends = np.array(edges["src"], dtype=np.int32), np.array(edges["dst"], dtype=np.int32)
    has_kernels = block.has_kernels
    kernels = None
    if has_kernels:
        kernels = np.array(edges["l1"], dtype=np.float64), np.array(edges["l2"], dtype=np.float64)
    return BlockTable(
        block=block,
        target=graph.layer_position(block.layer),
        first=first,
        weight=np.array(edges["weight"]),
        n_params=np.array(edges["n_params"], dtype=np.int32) if has_kernels else None,
        listed=None if _is_full(block, *ends) else ends,
        kernels=kernels,
    )


def _is_full(block: UnitBlock, src: NDArray[np.int32], dst: NDArray[np.int32]) -> bool:
    """Whether edges are all entries of the block's matrix row by row, with ascending units on both sides."""
    rows, columns = block.src_units, block.dst_units
    if rows is None or columns is None or not block.dense or len(src) != len(rows) * len(columns):
        return False
    if (np.diff(rows) <= 0).any() or (np.diff(columns) <= 0).any():
        return False
    shape = (len(rows), len(columns))
    rows_fit = (src.reshape(shape) == rows[:, None]).all()
    return bool(rows_fit and (dst.reshape(shape) == columns[None, :]).all())
