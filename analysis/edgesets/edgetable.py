"""All edges of a graph, block by block, with the sums and reaches that masked graphs need.

A what-if sweep asks for many masks of the same edges. Masks of one sweep are nested, so an edge has one
number, the first level at which it is gone; a pass over the edges then answers every level at once. Blocks
that are matrices are looked at in pieces, those whose weights stayed in a model file without holding them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.unitgraph import EdgeColumns, UnitBlock, UnitGraph, matrix_units
from emergraph.graphstore.arrays import IntArray
from emergraph.graphstore.inplace import Matrix, Piece, in_order

Floats = NDArray[np.float64]
Levels = NDArray[np.uint8]
Side = Literal["src", "dst"]
Scalar = TypeVar("Scalar", bound=np.generic)
Result = TypeVar("Result")

WELL_FILLED = 0.25
"""Share of pairs that are edges from which on a block is laid out as a matrix."""
TOGETHER = 16
"""Pieces whose results are added up before they are handed over."""


@dataclass(frozen=True, eq=False)
class Cells:
    """A block as a matrix (rows, columns): the entries that are there are its edges, row by row."""

    rows: IntArray
    """Distinct sources."""
    columns: IntArray
    """Distinct targets."""
    values: Matrix | NDArray[np.floating]
    """Weights, held or in a model file."""
    present: NDArray[np.bool_] | None
    """Which entries are there; None where that is said by `full`, or by the weights that are not zero."""
    full: bool
    """Whether all entries are there, also those of weight zero."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    @cached_property
    def by_rows(self) -> bool:
        """Whether rows are read fastest."""
        return self.values.by_rows if isinstance(self.values, Matrix) else True

    @cached_property
    def pieces(self) -> list[Piece]:
        """Where the pieces of a pass are, in the order in which the weights are held."""
        held = self.values if isinstance(self.values, Matrix) else Matrix.over(self.values)
        return held.pieces(rows=self.by_rows)

    def weights(self, piece: Piece) -> NDArray[np.floating]:
        """Return the weights of a piece; 0 where there is no edge."""
        return self.values.weights(piece) if isinstance(self.values, Matrix) else self.values[piece]

    def there(self, piece: Piece) -> NDArray[np.bool_] | None:
        """Return which entries of a piece are edges; None for all."""
        if self.full:
            return None
        if self.present is not None:
            return self.present[piece]
        return self.values.mask(piece) if isinstance(self.values, Matrix) else self.values[piece] != 0

    def empty(self) -> Levels:
        """Return a zero for each entry, laid out as the weights are."""
        return np.zeros(self.shape, dtype=np.uint8, order="C" if self.by_rows else "F")

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Which of all entries are edges; None for all."""
        return self.there((slice(0, self.shape[0]), slice(0, self.shape[1])))


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockTable:
    """The edges of one block; made by `block_table`."""

    block: UnitBlock
    target: int
    """Position of the target layer."""
    first: int
    """Number of the block's first edge within the table."""
    n_edges: int
    cells: Cells | None
    """The matrix that the edges are; None where they are listed."""
    listed: tuple[NDArray[np.int32], NDArray[np.int32]] | None
    """Both ends of every edge; None where they follow from the matrix."""
    weights: NDArray[np.floating] | None
    """(n_edges,) of listed edges."""
    n_params: NDArray[np.int32] | None
    """(n_edges,) parameters behind each edge; None: one each."""
    kernels: tuple[Floats, Floats] | None
    """`l1` and `l2`, where they are more than the weight."""

    @property
    def weight(self) -> NDArray[np.floating]:
        """(n_edges,) weights, NaN for NULL."""
        if self.weights is not None:
            return self.weights
        cells = self._matrix
        return self.flat(cells.weights((slice(0, cells.shape[0]), slice(0, cells.shape[1]))))

    @property
    def src(self) -> NDArray[np.int32]:
        """(n_edges,) sources."""
        if self.listed is not None:
            return self.listed[0]
        return self.flat(np.broadcast_to(self.rows.astype(np.int32)[:, None], self._matrix.shape))

    @property
    def dst(self) -> NDArray[np.int32]:
        """(n_edges,) targets."""
        if self.listed is not None:
            return self.listed[1]
        return self.flat(np.broadcast_to(self.columns.astype(np.int32), self._matrix.shape))

    @property
    def l1(self) -> Floats:
        """(n_edges,) sum of absolute parameters; 1 where no parameter carries the influence."""
        return self._size(0)

    @property
    def l2(self) -> Floats:
        """(n_edges,) root of the sum of squares; 1 likewise."""
        return self._size(1)

    def _size(self, which: int) -> Floats:
        weight = self.weight
        own = np.abs(weight, dtype=np.float64) if self.kernels is None else self.kernels[which]
        return own if self.block.tensor is not None else np.where(np.isnan(weight), 1.0, own)

    def sizes(self, piece: Piece) -> tuple[Floats, Floats]:
        """Return `l1` and the square of `l2` of a piece of the matrix, 0 where there is no edge."""
        weights = self._matrix.weights(piece)
        if self._kernel_grids is None:
            l1 = l2 = np.abs(weights, dtype=np.float64)
        else:
            l1, l2 = (grid[piece] for grid in self._kernel_grids)
        if self.block.tensor is None:
            unweighted = np.isnan(weights)
            l1, l2 = np.where(unweighted, 1.0, l1), np.where(unweighted, 1.0, l2)
        return l1, l2**2

    @cached_property
    def _kernel_grids(self) -> tuple[Floats, Floats] | None:
        return None if self.kernels is None else (self.grid(self.kernels[0]), self.grid(self.kernels[1]))

    @property
    def edges(self) -> slice:
        """Where the block's edges stand within the table."""
        return slice(self.first, self.first + self.n_edges)

    @property
    def parameters(self) -> NDArray[np.int64]:
        """(n_edges,) non-zero parameters behind each edge."""
        if self.n_params is None:
            return np.broadcast_to(np.int64(1), self.n_edges)
        return self.n_params.astype(np.int64)

    @cached_property
    def rows(self) -> IntArray:
        """Distinct sources: those of the matrix in its order, or increasing."""
        return np.unique(self._ends[0]).astype(np.int64) if self.cells is None else self.cells.rows

    @cached_property
    def columns(self) -> IntArray:
        """Distinct targets, likewise."""
        return np.unique(self._ends[1]).astype(np.int64) if self.cells is None else self.cells.columns

    @property
    def _ends(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if self.listed is None:
            raise ValueError("the edges are not listed")
        return self.listed

    @property
    def _matrix(self) -> Cells:
        if self.cells is None:
            raise ValueError("the edges are not a matrix")
        return self.cells

    @cached_property
    def is_weighted(self) -> bool:
        """Whether an edge has a weight."""
        if self.cells is None:
            return not bool(np.isnan(self.weight).all())
        return any(not np.isnan(self.cells.weights(piece)).all() for piece in self.cells.pieces)

    def grid(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Values of edges as a matrix (rows, columns), 0 where there is no edge."""
        cells = self._matrix
        mask = cells.mask
        if mask is None:
            return values.reshape(cells.shape)
        grid = np.zeros(cells.shape, dtype=values.dtype)
        grid[mask] = values
        return grid

    def flat(self, grid: NDArray[Scalar]) -> NDArray[Scalar]:
        """(n_edges,) entries of a matrix (rows, columns) that are edges."""
        mask = self._matrix.mask
        return grid.reshape(-1) if mask is None else grid[mask]

    def passed(self, do: Callable[[list[Piece]], Result]) -> Iterator[Result]:
        """Yield what a function gives for pieces of the matrix, some together, in order, on several cores."""
        pieces = self._matrix.pieces
        runs = [pieces[first : first + TOGETHER] for first in range(0, len(pieces), TOGETHER)]
        return in_order(do, runs)

    def units(self, side: Side) -> IntArray:
        """Distinct units on one side."""
        return self.rows if side == "src" else self.columns

    @cached_property
    def _grouped(self) -> dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]]:
        grouped = {}
        src, dst = self._ends
        for side, ends, units in (("src", src, self.rows), ("dst", dst, self.columns)):
            order = np.argsort(ends, kind="stable")
            grouped[side] = order, np.searchsorted(ends[order], units)
        return grouped

    def widest(self, gone: Callable[[Piece | None], Levels], values: Levels, to: Side) -> Levels:
        """For each unit on one side, the largest over its edges of min(value of the other end, gone).

        Args:
            gone: Gives the level at which each edge is gone: of a piece of the matrix (0 where there is no
                edge), or of all edges that are listed.
            values: (n_units,) of the graph.
            to: The side that receives.

        Returns:
            One entry per unit of `units(to)`.
        """
        if self.cells is None:
            other_end = self._ends[0 if to == "dst" else 1]
            order, starts = self._grouped[to]
            reached: Levels = np.maximum.reduceat(np.minimum(gone(None), values[other_end])[order], starts)
            return reached
        ends = values[self.rows if to == "dst" else self.columns]
        axis = 0 if to == "dst" else 1

        def part(run: list[Piece]) -> list[tuple[slice, Levels]]:
            found = []
            for piece in run:
                own = ends[piece[axis]]
                narrow = np.minimum(gone(piece), own[:, None] if to == "dst" else own)
                found.append((piece[1 - axis], narrow.max(axis=axis)))
            return found

        widest = np.zeros(len(self.units(to)), dtype=np.uint8)
        for run in self.passed(part):
            for where, found in run:
                np.maximum(widest[where], found, out=widest[where])
        return widest

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
            total: Floats = grid.T @ values[self.rows] if to == "dst" else grid @ values[self.columns]
            return total
        order, starts = self._grouped[to]
        other_end = self._ends[0 if to == "dst" else 1][order]
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
        return sum(block.n_edges for block in self.blocks)

    @cached_property
    def by_layer(self) -> tuple[tuple[BlockTable, ...], ...]:
        """Blocks into each layer, by position of the layer."""
        found: list[list[BlockTable]] = [[] for _ in self.graph.layers]
        for block in self.blocks:
            found[block.target].append(block)
        return tuple(map(tuple, found))

    @cached_property
    def by_id(self) -> dict[int, BlockTable]:
        """Blocks by their ids."""
        return {block.block.id: block for block in self.blocks}

    def of_kinds(self, kinds: Sequence[str]) -> "EdgeTable":
        """The same table with the blocks of some kinds only; edges keep their numbers."""
        return EdgeTable(self.graph, tuple(b for b in self.blocks if b.block.kind in kinds))


def read_edge_table(graph: UnitGraph) -> EdgeTable:
    """Read the edges of a graph: 4 bytes each in matrices, 12 in others, 20 in kernels, none in place.

    Args:
        graph: From a store or from arrays.
    """
    ordered = sorted(
        (block for block in graph.blocks if block.n_edges),
        key=lambda block: (graph.layer_position(block.layer), block.id),
    )
    starts = dict(zip((b.id for b in ordered), np.cumsum([0, *(b.n_edges for b in ordered)]), strict=False))
    found: dict[int, BlockTable] = {}
    for has_kernels, wanted in ((False, TABLE_COLUMNS[:3]), (True, TABLE_COLUMNS)):
        chosen = [block for block in ordered if not block.in_place and block.has_kernels == has_kernels]
        for block, edges in graph.iter_edges(chosen, columns=wanted):
            found[block.id] = block_table(graph, block, edges, first=int(starts[block.id]))
    for block in ordered:
        if block.in_place:
            matrix, (rows, columns) = graph.matrix(block, counted=True), matrix_units(block)
            cells = Cells(rows, columns, matrix, None, full=block.dense)
            found[block.id] = _table(graph, block, int(starts[block.id]), cells)
    return EdgeTable(graph, tuple(found[block.id] for block in ordered))


TABLE_COLUMNS = ("src", "dst", "weight", "l1", "l2", "n_params")
"""Columns that `block_table` takes."""


def block_table(graph: UnitGraph, block: UnitBlock, edges: EdgeColumns, *, first: int = 0) -> BlockTable:
    """Return the edges of one block.

    Args:
        graph: The graph.
        block: The block.
        edges: Its `TABLE_COLUMNS`; the last three where it has kernels.
        first: Number of its first edge within a table.
    """
    ends = np.asarray(edges["src"], dtype=np.int32), np.asarray(edges["dst"], dtype=np.int32)
    weights = np.array(edges["weight"])
    cells = _cells(block, *ends, weights)
    kernels = n_params = None
    if block.has_kernels:
        kernels = np.array(edges["l1"], dtype=np.float64), np.array(edges["l2"], dtype=np.float64)
        n_params = np.array(edges["n_params"], dtype=np.int32)
    if cells is not None:
        return _table(graph, block, first, cells, n_params=n_params, kernels=kernels)
    return BlockTable(
        block=block,
        target=graph.layer_position(block.layer),
        first=first,
        n_edges=len(weights),
        cells=None,
        listed=(ends[0].copy(), ends[1].copy()),
        weights=weights,
        n_params=n_params,
        kernels=kernels,
    )


def _table(
    graph: UnitGraph,
    block: UnitBlock,
    first: int,
    cells: Cells,
    *,
    n_params: NDArray[np.int32] | None = None,
    kernels: tuple[Floats, Floats] | None = None,
) -> BlockTable:
    return BlockTable(
        block=block,
        target=graph.layer_position(block.layer),
        first=first,
        n_edges=block.n_edges,
        cells=cells,
        listed=None,
        weights=None,
        n_params=n_params,
        kernels=kernels,
    )


def _cells(
    block: UnitBlock, src: NDArray[np.int32], dst: NDArray[np.int32], weights: NDArray[np.floating]
) -> Cells | None:
    """The matrix that edges are row by row; None where they come in another order, or are too few."""
    if block.src_units is not None and block.dst_units is not None:
        units = np.asarray(block.src_units, np.int64), np.asarray(block.dst_units, np.int64)
        found = _cells_of(*units, src, dst, weights, told=not block.has_kernels)
        if found is not None:
            return found
    units = np.unique(src).astype(np.int64), np.unique(dst).astype(np.int64)
    return _cells_of(*units, src, dst, weights, told=not block.has_kernels)


def _cells_of(
    rows: IntArray,
    columns: IntArray,
    src: NDArray[np.int32],
    dst: NDArray[np.int32],
    weights: NDArray[np.floating],
    *,
    told: bool,
) -> Cells | None:
    shape = (len(rows), len(columns))
    n = shape[0] * shape[1]
    if not WELL_FILLED * n <= len(src) <= n:
        return None
    unweighted = np.broadcast_to(np.float32(np.nan), shape) if np.isnan(weights).all() else None
    if len(src) == n:
        fits = (src.reshape(shape) == rows[:, None]).all() and (dst.reshape(shape) == columns).all()
        held = weights.reshape(shape) if unweighted is None else unweighted
        return Cells(rows, columns, held, None, full=True) if fits else None
    down, across = _in_list(rows, src), _in_list(columns, dst)
    if down is None or across is None:
        return None
    cells = down * shape[1] + across
    if (np.diff(cells) <= 0).any():
        return None
    if unweighted is not None or not told or not (weights != 0).all():
        present = _spread(cells, np.ones(len(cells), np.bool_), shape)
    else:
        present = None
    held = _spread(cells, weights, shape) if unweighted is None else unweighted
    return Cells(rows, columns, held, present, full=False)


def _spread(cells: IntArray, values: NDArray[Scalar], shape: tuple[int, int]) -> NDArray[Scalar]:
    grid = np.zeros(shape[0] * shape[1], dtype=values.dtype)
    grid[cells] = values
    return grid.reshape(shape)


def _in_list(units: IntArray, wanted: NDArray[np.int32]) -> IntArray | None:
    """Where units are in a list of distinct units; None where one is not."""
    order = np.argsort(units, kind="stable")
    at = np.minimum(np.searchsorted(units[order], wanted), len(order) - 1)
    found = order[at]
    return found if np.array_equal(units[found], wanted) else None
