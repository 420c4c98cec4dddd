"""Blocks whose edges stay in the model file: matrices that are views of tensors, and passes over them.

Such a block says which entries of which tensor its matrix is (`Place`), and `modelfiles` finds the tensor.
All passes go through a matrix in pieces, several at a time, and copy no tensor as a whole. Weights that are
packed in the file are computed for a piece, when it is looked at.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from emergraph.graphstore.arrays import as_float32
from emergraph.graphstore.records import Place

PIECE_CELLS = 1 << 16
"""Entries that are looked at together: they fit a core's cache, and are too few for BLAS to start threads."""
AT_ONCE = 16
"""Pieces that a core takes together; fewer of wide matrices, of which every piece gives a long result."""
TILE_CELLS, TILES = 1 << 21, 64
"""Fewest entries whose products are added up together, wherever that is; most such tiles of a matrix."""
FEW_VECTORS = 3
"""Most vectors that a matrix is multiplied with one by one, which takes BLAS less than all together."""
MAX_THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")
Piece = tuple[slice, slice]
"""Rows and columns of a matrix."""
Floats = NDArray[np.float64]
EdgeArrays = dict[str, NDArray[np.generic]]
_SIGN_OF_16_BITS = np.uint16(0x7FFF)
_TWO_BYTES = frozenset({"float16", "bfloat16"})

Part = slice | NDArray[np.int64]
"""Rows or columns."""


class Entries(Protocol):
    """Numbers in rows and columns that are computed when they are asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    @property
    def by_rows(self) -> bool:
        """Whether whole rows are read fastest."""
        ...

    def part(self, rows: Part, columns: Part) -> NDArray[np.generic]:
        """Return some rows of some columns."""
        ...

    def mask(self, rows: Part, columns: Part) -> NDArray[np.bool_]:
        """Return which of them are not zero, where that can be told without computing them."""
        ...


@dataclass(frozen=True, eq=False)
class Held:
    """Entries that are there as they are: any strides, and not always aligned."""

    values: NDArray[np.generic]
    """(rows, columns) in the element type of the file."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def by_rows(self) -> bool:
        """Whether the file holds row after row."""
        return self.values.strides[0] >= self.values.strides[1]

    def part(self, rows: Part, columns: Part) -> NDArray[np.generic]:
        """Return some rows of some columns."""
        if isinstance(rows, slice) or isinstance(columns, slice):
            return self.values[rows, columns]
        return self.values[rows][:, columns]

    def mask(self, rows: Part, columns: Part) -> NDArray[np.bool_]:
        """Return which of them are not zero, told from their codes."""
        part = self.part(rows, columns)
        if part.dtype.name in _TWO_BYTES:
            found: NDArray[np.bool_] = (part.view(np.uint16) & _SIGN_OF_16_BITS) != 0
            return found
        return np.asarray(part != np.zeros((), part.dtype))


@dataclass(frozen=True, eq=False)
class Matrix:
    """The matrix of a block in place, (n_src, n_dst): rows and columns of what the model file holds."""

    entries: Entries
    rows: Part
    """Of the entries, for the sources; where `turned`, for the targets."""
    columns: Part
    turned: bool = False
    origin: "Callable[[], Matrix] | None" = None
    """What opens the whole matrix in another process; None where its values would have to be sent there."""

    def __reduce__(self) -> tuple[Callable[..., "Matrix"], tuple[object, ...]]:
        """Travel as the place in a model file, which the other process maps itself."""
        if self.origin is not None:
            return _opened_again, (self.origin, self.rows, self.columns)
        return Matrix, (self.entries, self.rows, self.columns, self.turned)

    @classmethod
    def over(cls, values: NDArray[np.generic]) -> "Matrix":
        """Return the matrix that an array (n_src, n_dst) is."""
        return cls(Held(values), slice(0, values.shape[0]), slice(0, values.shape[1]))

    @classmethod
    def of(cls, tensor: NDArray[np.generic] | Entries, place: Place, shape: tuple[int, int]) -> "Matrix":
        """Return the entries of a tensor that a place names.

        Args:
            tensor: Its values in C order, or what computes them, the last axis as columns.
            place: Which elements of it.
            shape: Sources and targets.

        Raises:
            ValueError: The place does not lie inside the tensor.
        """
        last = place.offset + (shape[0] - 1) * place.row_step + (shape[1] - 1) * place.column_step
        steps = (place.row_step, place.column_step)
        size = math.prod(tensor.shape)
        if min(place.offset, *steps) < 0 or min(shape) < 1 or last >= size:
            raise ValueError(f"element {last} of tensor {place.tensor!r}, which has {size}")
        if not isinstance(tensor, np.ndarray):
            return cls._of_entries(tensor, place, shape)
        flat = tensor.reshape(-1)[place.offset :]
        strides = (steps[0] * flat.dtype.itemsize, steps[1] * flat.dtype.itemsize)
        return cls.over(np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False))

    @classmethod
    def _of_entries(cls, tensor: Entries, place: Place, shape: tuple[int, int]) -> "Matrix":
        """The same, in rows and columns of the tensor; an axis of size 1 has any step."""
        width = tensor.shape[1]
        row, column = divmod(place.offset, width)
        steps = (place.row_step, place.column_step)
        for down, across in ((0, 1), (1, 0)):
            within = column + (shape[across] - 1) * steps[across] < width or shape[across] == 1
            if within and (steps[down] % width == 0 or shape[down] == 1):
                rows = _every(row, max(1, steps[down] // width), shape[down])
                columns = _every(column, max(1, steps[across]), shape[across])
                return cls(tensor, rows, columns, turned=down == 1)
        raise ValueError(f"entries of tensor {place.tensor!r} that are not in rows and columns")

    @property
    def shape(self) -> tuple[int, int]:
        """Sources and targets."""
        found = _length(self.rows), _length(self.columns)
        return (found[1], found[0]) if self.turned else found

    @property
    def size(self) -> int:
        """Entries, zeros included."""
        return self.shape[0] * self.shape[1]

    @property
    def by_rows(self) -> bool:
        """Whether the file holds the matrix row by row, so that rows are read fastest."""
        return self.entries.by_rows != self.turned

    @property
    def at_once(self) -> int:
        """Pieces of a pass that a core takes together."""
        return max(1, min(AT_ONCE, PIECE_CELLS // max(self.shape)))

    def select(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> "Matrix":
        """Return some sources and some targets of it."""
        chosen: list[Part] = [
            slice(0, n) if part.size == n else part
            for n, part in zip(self.shape, (rows, columns), strict=True)
        ]
        down, across = chosen[::-1] if self.turned else chosen
        return replace(self, rows=_taken(self.rows, down), columns=_taken(self.columns, across))

    def pieces(
        self, *, rows: bool | None = None, cells: int = PIECE_CELLS, within: Piece | None = None
    ) -> list[Piece]:
        """Return where the pieces are that a pass goes through, in the order in which the file holds them.

        Args:
            rows: Whole rows (True), whole columns (False), or what the file holds together (None).
            cells: About how many entries a piece has.
            within: The part of the matrix that is cut; by default all of it.
        """
        by_rows = self.by_rows if rows is None else rows
        down, right = within or (slice(0, self.shape[0]), slice(0, self.shape[1]))
        along, across = (down, right) if by_rows else (right, down)
        step = max(1, cells // (across.stop - across.start))
        cuts = [slice(n, min(n + step, along.stop)) for n in range(along.start, along.stop, step)]
        return [(cut, across) if by_rows else (across, cut) for cut in cuts]

    def mask(self, piece: Piece) -> NDArray[np.bool_]:
        """Return which entries of a piece are edges; their values are not computed where codes tell it."""
        found = self.entries.mask(*self._parts(piece))
        return found.T if self.turned else found

    def weights(self, piece: Piece) -> NDArray[np.float32]:
        """Return a piece as float32, laid out as in the file, with the values that a store would keep."""
        part = self.entries.part(*self._parts(piece))
        part = part.T if self.turned else part
        laid_out = part if self.by_rows else part.T
        if part.dtype.name == "bfloat16":
            wide = laid_out.view(np.uint16).astype(np.uint32)
            wide <<= np.uint32(16)
            values = wide.view(np.float32)
        else:
            values = as_float32(laid_out)
        return values if self.by_rows else values.T

    def array(self) -> NDArray[np.float32]:
        """Return all weights."""
        return self.weights((slice(0, self.shape[0]), slice(0, self.shape[1])))

    def _parts(self, piece: Piece) -> tuple[Part, Part]:
        down, across = piece[::-1] if self.turned else piece
        return _taken(self.rows, down), _taken(self.columns, across)


def _opened_again(origin: Callable[[], Matrix], rows: Part, columns: Part) -> Matrix:
    return replace(origin(), rows=rows, columns=columns, origin=origin)


def _every(first: int, step: int, count: int) -> slice:
    return slice(first, first + (count - 1) * step + 1, step)


def _length(part: Part) -> int:
    return len(range(part.start, part.stop, part.step or 1)) if isinstance(part, slice) else part.size


def _taken(part: Part, chosen: Part) -> Part:
    """What is chosen of some rows or columns."""
    if not isinstance(part, slice):
        return part[chosen]
    places = range(part.start, part.stop, part.step or 1)
    if isinstance(chosen, slice):
        found = places[chosen]
        return slice(found.start, found.stop, found.step)
    moved: Part = part.start + chosen * (part.step or 1)
    return moved


def in_order(do: Callable[[Item], Result], pieces: Sequence[Item], *, at_once: int = 1) -> Iterator[Result]:
    """Yield what a function gives for every piece, in order, computed on several cores a few pieces ahead.

    Args:
        do: The function.
        pieces: What it is called with.
        at_once: Pieces that a core takes together; handing one over takes a tenth of the work on a small one.
    """
    n_threads = 1 if len(pieces) < 2 else min(os.cpu_count() or 1, MAX_THREADS, len(pieces))
    if n_threads <= 1:
        yield from map(do, pieces)
        return
    several = max(1, min(at_once, len(pieces) // (2 * n_threads)))
    waiting = iter([pieces[first : first + several] for first in range(0, len(pieces), several)])

    def together(some: Sequence[Item]) -> list[Result]:
        return [do(piece) for piece in some]

    with ThreadPoolExecutor(n_threads) as pool:
        running = [pool.submit(together, some) for some in islice(waiting, 2 * n_threads)]
        while running:
            yield from running.pop(0).result()
            running.extend(pool.submit(together, some) for some in islice(waiting, 1))


def tile_times(matrix: Matrix, tile: Piece, vectors: Floats) -> Floats:
    """Return what the edges in a part of a matrix add to its sources.

    Args:
        matrix: Of a block in place.
        tile: Rows and columns of the part.
        vectors: (columns of the part, K).

    Returns:
        (rows of the part, K).
    """
    down, right = tile
    sums = np.zeros((down.stop - down.start, vectors.shape[1]))
    laid_out = np.asfortranarray(vectors)
    for rows, columns in matrix.pieces(within=tile):
        own = laid_out[columns.start - right.start : columns.stop - right.start]
        found = _times(matrix.mask((rows, columns)).astype(np.float64), own)
        sums[rows.start - down.start : rows.stop - down.start] += found
    return sums


def _times(ones: Floats, vectors: Floats) -> Floats:
    if vectors.shape[1] > FEW_VECTORS:
        return ones @ vectors
    return np.stack([ones @ vector for vector in vectors.T], axis=1)


TileCall = tuple[Matrix, Piece, Floats]
Mapped = Callable[[Callable[[Matrix, Piece, Floats], Floats], Sequence[TileCall]], Iterable[Floats]]
"""Calls a function with each of the arguments; gives what it returns, in their order."""


def mask_times(matrix: Matrix, vectors: Floats, *, mapped: Mapped | None = None) -> Floats:
    """For every source the sum of its targets' values over the edges: the 0/1 matrix times vectors.

    Args:
        matrix: Of a block in place.
        vectors: (n_dst, K).
        mapped: Where tiles are computed; by default in threads of this process.

    Returns:
        (n_src, K); exact while sums of whole numbers stay below 2**53, and beyond the same wherever tiles are
        computed: they are fixed, and added in their order.
    """
    sums = np.zeros((matrix.shape[0], vectors.shape[1]))
    tiles = matrix.pieces(cells=max(TILE_CELLS, matrix.size // TILES))
    calls = [(matrix, tile, vectors[tile[1]]) for tile in tiles]
    parts = in_order(lambda call: tile_times(*call), calls) if mapped is None else mapped(tile_times, calls)
    for tile, part in zip(tiles, parts, strict=True):
        sums[tile[0]] += part
    return sums


def n_edges(matrix: Matrix) -> int:
    """Count the entries of a matrix that are edges."""
    return sum(
        in_order(
            lambda piece: int(np.count_nonzero(matrix.mask(piece))), matrix.pieces(), at_once=matrix.at_once
        )
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SideSums:
    """Edges of a matrix in sum for the units of one side."""

    degree: NDArray[np.int32]
    total: Floats
    """Of finite weights."""
    l1: Floats
    """Of finite weights."""

    @classmethod
    def zeros(cls, n: int) -> "SideSums":
        """No edges yet."""
        return cls(degree=np.zeros(n, np.int32), total=np.zeros(n), l1=np.zeros(n))

    def add(self, part: slice, other: "SideSums") -> None:
        """Add the sums of some units."""
        self.degree[part] += other.degree
        self.total[part] += other.total
        self.l1[part] += other.l1


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixSums:
    """What one pass over a matrix tells."""

    n_edges: int
    n_zeros: int
    n_negative: int
    n_nonfinite: int
    l1: float
    l2: float
    max_abs: float
    sources: SideSums
    targets: SideSums


@dataclass(frozen=True, kw_only=True, eq=False)
class _PieceSums:
    piece: Piece
    n_negative: int
    n_nonfinite: int
    squares: float
    max_abs: float
    sources: SideSums
    targets: SideSums


def sum_up(matrix: Matrix) -> MatrixSums:
    """Count the edges of a matrix and add up their weights, in one pass."""
    sources, targets = (SideSums.zeros(n) for n in matrix.shape)
    n_negative = n_nonfinite = 0
    squares = max_abs = 0.0
    for found in in_order(lambda piece: _piece_sums(matrix, piece), matrix.pieces(), at_once=matrix.at_once):
        sources.add(found.piece[0], found.sources)
        targets.add(found.piece[1], found.targets)
        n_negative += found.n_negative
        n_nonfinite += found.n_nonfinite
        squares += found.squares
        max_abs = max(max_abs, found.max_abs)
    n_edges = int(sources.degree.sum(dtype=np.int64))
    return MatrixSums(
        n_edges=n_edges,
        n_zeros=matrix.shape[0] * matrix.shape[1] - n_edges,
        n_negative=n_negative,
        n_nonfinite=n_nonfinite,
        l1=float(sources.l1.sum()),
        l2=float(np.sqrt(squares)),
        max_abs=max_abs,
        sources=sources,
        targets=targets,
    )


def _piece_sums(matrix: Matrix, piece: Piece) -> _PieceSums:
    weights = matrix.weights(piece)
    n_edges = int(np.count_nonzero(weights))
    if n_edges == weights.size:
        degrees = [np.full(n, m, np.int32) for n, m in zip(weights.shape, weights.shape[::-1], strict=True)]
    else:
        mask = weights != 0
        degrees = [np.count_nonzero(mask, axis=axis).astype(np.int32) for axis in (1, 0)]
    absolute = np.abs(weights)
    max_abs = float(absolute.max())
    n_negative, n_nonfinite = int(np.count_nonzero(weights < 0)), 0
    if not np.isfinite(max_abs):
        finite = np.isfinite(weights)
        n_nonfinite = weights.size - int(np.count_nonzero(finite))
        weights, absolute = np.where(finite, weights, 0), np.where(finite, absolute, 0)
        max_abs = float(absolute.max())
    wide = weights.astype(np.float64, order="K")
    squares = float(np.einsum("ij,ij->", wide, wide))
    totals = [wide.sum(axis=axis) for axis in (1, 0)]
    np.abs(wide, out=wide)
    l1 = [wide.sum(axis=axis) for axis in (1, 0)]
    sources, targets = (SideSums(degree=degrees[k], total=totals[k], l1=l1[k]) for k in (0, 1))
    return _PieceSums(
        piece=piece,
        n_negative=n_negative,
        n_nonfinite=n_nonfinite,
        squares=squares,
        max_abs=max_abs,
        sources=sources,
        targets=targets,
    )


def edge_pieces(
    matrix: Matrix,
    src_units: NDArray[np.integer],
    dst_units: NDArray[np.integer],
    columns: Sequence[str],
    *,
    cells: int = 1 << 22,
) -> Iterator[EdgeArrays]:
    """Yield the edges of a matrix in bounded pieces, row by row, with the asked columns.

    Args:
        matrix: Of a block in place.
        src_units: (n_src,) units of the rows.
        dst_units: (n_dst,) units of the columns.
        columns: Any of src, dst, weight, l1, l2, max_abs, n_params.
        cells: Entries of the matrix that are looked at together.
    """
    src, dst = src_units.astype(np.int32), dst_units.astype(np.int32)

    def edges(piece: Piece) -> EdgeArrays:
        rows, _ = piece
        weights = np.ascontiguousarray(matrix.weights(piece)).reshape(-1)
        full = bool(weights.all())
        found = None if full else np.flatnonzero(weights)
        result: EdgeArrays = {}
        if "src" in columns:
            result["src"] = np.repeat(src[rows], dst.size) if found is None else src[rows][found // dst.size]
        if "dst" in columns:
            result["dst"] = np.tile(dst, rows.stop - rows.start) if found is None else dst[found % dst.size]
        values = weights if found is None else weights[found]
        if "weight" in columns:
            result["weight"] = values
        for name in ("l1", "l2", "max_abs"):
            if name in columns:
                result[name] = np.abs(values, dtype=np.float64)
        if "n_params" in columns:
            result["n_params"] = np.ones(values.size, dtype=np.int32)
        return {name: result[name] for name in columns}

    yield from in_order(edges, matrix.pieces(rows=True, cells=cells))
