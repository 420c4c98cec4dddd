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

from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
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
    """The edges of one block."""

    block: UnitBlock
    target: int
    """Position of the target layer."""
    first: int
    """Number of the block's first edge within the table."""
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    weight: NDArray[np.floating]
    """(n_edges,), NaN for NULL."""
    l1: Floats
    """(n_edges,) sum of absolute parameters; 1 where no parameter carries the influence."""
    l2: Floats
    """(n_edges,) root of the sum of squares; 1 likewise."""
    n_params: NDArray[np.int32] | None
    """(n_edges,) parameters behind each edge; None: one each."""

    @property
    def edges(self) -> slice:
        """Where the block's edges stand within the table."""
        return slice(self.first, self.first + len(self.src))

    @property
    def parameters(self) -> NDArray[np.int64]:
        """(n_edges,) non-zero parameters behind each edge."""
        if self.n_params is None:
            return np.ones(len(self.src), dtype=np.int64)
        return self.n_params.astype(np.int64)

    @cached_property
    def rows(self) -> IntArray:
        """Distinct sources, increasing."""
        return np.unique(self.src).astype(np.int64)

    @cached_property
    def columns(self) -> IntArray:
        """Distinct targets, increasing."""
        return np.unique(self.dst).astype(np.int64)

    @cached_property
    def cells(self) -> NDArray[np.int64] | None:
        """(n_edges,) place of each edge in the matrix (rows, columns), where the block fills it well."""
        size = len(self.rows) * len(self.columns)
        if len(self.src) < WELL_FILLED * size:
            return None
        return np.searchsorted(self.rows, self.src) * len(self.columns) + np.searchsorted(
            self.columns, self.dst
        )

    @cached_property
    def _whole(self) -> bool:
        """Whether the edges are the matrix row by row, so that laying them out costs nothing."""
        cells = self.cells
        full = len(self.rows) * len(self.columns)
        return cells is not None and len(cells) == full and bool((np.diff(cells) == 1).all())

    def grid(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Values of edges as a matrix (rows, columns), 0 where there is no edge."""
        shape = (len(self.rows), len(self.columns))
        if self._whole:
            return values.reshape(shape)
        if self.cells is None:
            raise ValueError("the block is too sparse for a matrix")
        grid = np.zeros(shape[0] * shape[1], dtype=values.dtype)
        grid[self.cells] = values
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
        if self.cells is not None:
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
        if self.cells is not None:
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
        return sum(len(block.src) for block in self.blocks)

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
    """Read all edges of a graph into memory: 28 bytes each.

    Args:
        graph: From a store or from arrays.
    """
    ordered = sorted(
        (block for block in graph.blocks if block.n_edges),
        key=lambda block: (graph.layer_position(block.layer), block.id),
    )
    columns = ("src", "dst", "weight", "l1", "l2", "n_params")
    blocks, first = [], 0
    for block, edges in graph.iter_edges(ordered, columns=columns):
        weight = np.array(edges["weight"])
        bare = np.isnan(weight) if block.tensor is None else np.zeros(len(weight), dtype=bool)
        table = BlockTable(
            block=block,
            target=graph.layer_position(block.layer),
            first=first,
            src=np.array(edges["src"], dtype=np.int32),
            dst=np.array(edges["dst"], dtype=np.int32),
            weight=weight,
            l1=np.where(bare, 1.0, edges["l1"]),
            l2=np.where(bare, 1.0, edges["l2"]),
            n_params=np.array(edges["n_params"], dtype=np.int32) if block.has_kernels else None,
        )
        blocks.append(table)
        first += len(table.src)
    return EdgeTable(graph, tuple(blocks))
