"""Edges into the store, fast.

A matrix travels as its weights and a row number; DuckDB makes src and dst from the number, which is about
twice as fast as sending three columns. Rows arrive ordered by block, and a matrix row by row, so a query for
one block skips the rest.

Every INSERT but the last one of a graph holds whole row groups of DuckDB. A row group that is not full when
the next INSERT begins stays in memory, so that the commit writes everything behind it to the log first and to
the file after; and a checkpoint rewrites the neighbours of small row groups. So edges of small blocks, and
the ends of large ones, are gathered until they fill a row group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emergraph.errors import LimitError
from emergraph.graphstore.arrays import FloatArray, IntArray, as_float32
from emergraph.graphstore.frames import append
from emergraph.graphstore.records import Kernels, MatrixKernels
from emergraph.graphstore.sql import compose

CHUNK_ROWS = 1 << 22
"""Entries of a matrix that are looked at together; more gains nothing and takes memory."""
ROW_GROUP = 122_880
"""Rows of a row group of DuckDB, the unit in which tables are compressed and written."""
SMALL_BLOCK = 2 * ROW_GROUP
"""Blocks of up to this many entries are gathered."""
GATHERED_ROWS = 8 * ROW_GROUP
"""Gathered edges per INSERT."""
MAX_UNIT = 2**31 - 2

_KERNEL_TYPES = {"l1": np.float64, "l2": np.float64, "max_abs": np.float64, "n_params": np.int32}

Int32Array = NDArray[np.int32]
Columns = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class MatrixSummary:
    """What became of a matrix."""

    n_edges: int
    zero_signs: bytes | None
    """Packed sign bits of the zero entries, row by row; None when none of them is negative."""


@dataclass
class _Gathered:
    """Edges of small blocks that wait for their INSERT; one piece per block and column."""

    n_rows: int = 0
    pieces: list[Columns] = field(default_factory=list)


class EdgeLoader:
    """Appends the edges of one block after the other; nothing is complete before `flush`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._gathered = {"connections": _Gathered(), "kernels": _Gathered()}
        self._positions: Int32Array = np.empty(0, dtype=np.int32)

    def matrix(
        self,
        block: int,
        src: Int32Array,
        dst: Int32Array,
        weights: FloatArray,
        kernels: MatrixKernels | None,
    ) -> MatrixSummary:
        """Append the non-zero entries of a matrix, or with `kernels` those where `n_params > 0`."""
        small = weights.size <= SMALL_BLOCK
        rows_at_once = max(1, CHUNK_ROWS // max(1, dst.size))
        n_edges = 0
        signs: list[NDArray[np.bool_]] = []
        for first in range(0, src.size if dst.size else 0, rows_at_once):
            rows = slice(first, first + rows_at_once)
            columns = _flat_columns(weights[rows], kernels, rows)
            append = self._gather_entries if small else self._insert_entries
            inserted = append(block, src[rows], dst, columns)
            n_edges += inserted
            if kernels is None:
                signs.append(_signs_of_zeros(columns["weight"], columns["weight"].size - inserted))
        negative = any(bool(piece.any()) for piece in signs)
        return MatrixSummary(n_edges, np.packbits(np.concatenate(signs)).tobytes() if negative else None)

    def edges(
        self,
        block: int,
        src: Int32Array,
        dst: Int32Array,
        weight: FloatArray | None,
        kernels: Kernels | None,
    ) -> None:
        """Append listed edges as they are."""
        columns: dict[str, NDArray[np.generic]] = {"src": src, "dst": dst}
        if weight is not None:
            columns["weight"] = as_float32(weight)
        if kernels is not None:
            columns |= {
                name: np.asarray(getattr(kernels, name), kind) for name, kind in _KERNEL_TYPES.items()
            }
        table = "connections" if kernels is None else "kernels"
        for first in range(0, src.size, CHUNK_ROWS):
            rows = slice(first, first + CHUNK_ROWS)
            self._gather(table, block, {name: column[rows] for name, column in columns.items()})

    def flush(self) -> None:
        """Insert what was gathered."""
        for table in self._gathered:
            self._flush_table(table)

    def _insert_entries(self, block: int, src: Int32Array, dst: Int32Array, columns: Columns) -> int:
        """Insert the entries of some rows of a matrix: whole row groups from here, both ends gathered."""
        table, _ = _target(columns)
        flags = columns["n_params" if table == "kernels" else "weight"]
        total = int(np.count_nonzero(flags))
        waiting = self._gathered[table].n_rows
        head = min(total, -waiting % ROW_GROUP)
        body = (total - head) // ROW_GROUP * ROW_GROUP
        if not body or _step(src) is None or _step(dst) is None:
            return self._gather_entries(block, src, dst, columns)
        cuts = [_position_of(flags, head, total), _position_of(flags, head + body, total)]
        self._gather_entries(block, src, dst, columns, last=cuts[0])
        self._flush_table(table)
        self._insert_positions(block, src, dst, columns, slice(*cuts))
        self._gather_entries(block, src, dst, columns, first=cuts[1])
        return total

    def _insert_positions(
        self, block: int, src: Int32Array, dst: Int32Array, columns: Columns, cut: slice
    ) -> None:
        """Insert the entries at some positions; src and dst are made from the position."""
        table, condition = _target(columns)
        src_sql, dst_sql = (
            _unit_sql(src, f"position // {dst.size}"),
            _unit_sql(dst, f"position % {dst.size}"),
        )
        chunk = pa.table(
            {
                **{name: pa.array(column[cut]) for name, column in columns.items()},
                "position": pa.array(self._first_positions(src.size * dst.size)[cut]),
            }
        )
        expressions = compose(
            "{block}::INTEGER, {src}, {dst}, {columns}",
            block=block,
            src=src_sql,
            dst=dst_sql,
            columns=", ".join(columns),
        )
        append(self._connection, chunk, table, expressions, condition)

    def _gather_entries(
        self,
        block: int,
        src: Int32Array,
        dst: Int32Array,
        columns: Columns,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> int:
        """Keep the entries of a matrix, or those of some of its positions, for a later INSERT."""
        table, _ = _target(columns)
        flags = columns["n_params" if table == "kernels" else "weight"][first:last]
        entries = np.flatnonzero(flags) + first
        values = {name: column[entries] for name, column in columns.items()}
        self._gather(
            table, block, {"src": src[entries // dst.size], "dst": dst[entries % dst.size], **values}
        )
        return int(entries.size)

    def _gather(self, table: str, block: int, columns: Columns) -> None:
        gathered = self._gathered[table]
        n_rows = columns["src"].size
        gathered.pieces.append({"block": np.full(n_rows, block, dtype=np.int32), **columns})
        gathered.n_rows += n_rows
        if gathered.n_rows >= GATHERED_ROWS:
            self._flush_table(table, whole=True)

    def _flush_table(self, table: str, *, whole: bool = False) -> None:
        """Insert what was gathered; with `whole`, what fills row groups, and keep the rest."""
        gathered = self._gathered[table]
        n_rows = gathered.n_rows // ROW_GROUP * ROW_GROUP if whole else gathered.n_rows
        if not n_rows:
            return
        taken, rest = _split(gathered.pieces, n_rows)
        self._gathered[table] = _Gathered(gathered.n_rows - n_rows, rest)
        columns = ["block", "src", "dst", "weight", *(_KERNEL_TYPES if table == "kernels" else ())]
        append(self._connection, _joined(taken), table, ", ".join(columns))

    def _first_positions(self, count: int) -> Int32Array:
        if self._positions.size < count:
            self._positions = np.arange(count, dtype=np.int32)
        return self._positions[:count]


def as_unit_ids(units: IntArray) -> Int32Array:
    """Return unit ids as the store keeps them.

    Raises:
        LimitError: An id is negative or does not fit in 32 bits.
    """
    ids = np.asarray(units)
    if ids.size and (ids.min() < 0 or ids.max() > MAX_UNIT):
        raise LimitError(
            f"unit ids from {ids.min()} to {ids.max()}: a graph can have units 0 to {MAX_UNIT}; "
            "export a smaller model"
        )
    return np.ascontiguousarray(ids, dtype=np.int32)


def _flat_columns(weights: FloatArray, kernels: MatrixKernels | None, rows: slice) -> Columns:
    columns: dict[str, NDArray[np.generic]] = {"weight": as_float32(weights).reshape(-1)}
    if kernels is not None:
        columns |= {
            name: np.ascontiguousarray(getattr(kernels, name)[rows], dtype=kind).reshape(-1)
            for name, kind in _KERNEL_TYPES.items()
        }
    return columns


def _target(columns: Columns) -> tuple[str, str]:
    """Return the table that the columns belong to and the SQL condition for being an edge; NaN is one."""
    return ("kernels", "n_params > 0") if "n_params" in columns else ("connections", "weight <> 0")


def _unit_sql(units: Int32Array, index: str) -> str:
    """Return SQL for `units[index]` of evenly spaced ids, see `_step`."""
    return f"({int(units[0])} + ({_step(units)}) * ({index}))::INTEGER"


def _step(units: Int32Array) -> int | None:
    """Return the distance of evenly spaced ids; None where they are not."""
    start = int(units[0])
    step = int(units[1]) - start if units.size > 1 else 1
    even = start + step * np.arange(units.size, dtype=np.int64)
    return step if np.array_equal(units, even) else None


def _position_of(flags: NDArray[np.generic], count: int, total: int) -> int:
    """Return how many entries to take from the start for `count` of the `total` non-zero ones."""
    if total == flags.size or count == 0:
        return count
    step = 1 << 16
    seen = 0
    for first in range(0, flags.size, step):
        found = int(np.count_nonzero(flags[first : first + step]))
        if seen + found >= count:
            return first + int(np.flatnonzero(flags[first : first + step])[count - seen - 1]) + 1
        seen += found
    return int(flags.size)


def _split(pieces: Sequence[Columns], n_rows: int) -> tuple[list[Columns], list[Columns]]:
    """Return the pieces with the first rows, and those with the others."""
    taken: list[Columns] = []
    for position, piece in enumerate(pieces):
        size = piece["src"].size
        if size > n_rows:
            head = {name: column[:n_rows] for name, column in piece.items()}
            tail = {name: column[n_rows:] for name, column in piece.items()}
            return [*taken, head] if n_rows else taken, [tail, *pieces[position + 1 :]]
        taken.append(piece)
        n_rows -= size
    return taken, []


def _signs_of_zeros(weights: NDArray[np.generic], n_zeros: int) -> NDArray[np.bool_]:
    """Return for each zero whether it is negative, in order."""
    # Minus zero has the smallest bit pattern of all when read as an integer.
    if n_zeros and weights.view(np.int32).min() == np.iinfo(np.int32).min:
        signs: NDArray[np.bool_] = np.signbit(weights[np.equal(weights, 0)])
        return signs
    return np.zeros(n_zeros, dtype=np.bool_)


def _joined(pieces: Sequence[Columns]) -> pa.Table:
    """Return the gathered pieces as one table; a missing weight is NULL."""
    names = sorted({name for piece in pieces for name in piece} - {"weight"})
    columns = {name: pa.array(np.concatenate([piece[name] for piece in pieces])) for name in names}
    sizes = [piece["src"].size for piece in pieces]
    without = np.repeat(["weight" not in piece for piece in pieces], sizes)
    weights = [
        piece["weight"] if "weight" in piece else np.zeros(size, dtype=np.float32)
        for piece, size in zip(pieces, sizes, strict=True)
    ]
    columns["weight"] = pa.array(np.concatenate(weights), mask=without)
    return pa.table(columns)
