"""What analyses need to know of a block before they touch its edges."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import StoreError, UsageError
from emergraph.graphstore.connection import translated_errors
from emergraph.graphstore.frames import damaged, fetch_arrays, fetch_counted, fetch_frame
from emergraph.graphstore.inplace import Matrix, edge_pieces, n_edges
from emergraph.graphstore.modelfiles import Coding, TensorFiles, WantedTensor, coding_of, required
from emergraph.graphstore.records import EdgeKind, Place
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import printable
from emergraph.steps import steps


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockInfo:
    """A block of edges of one kind into one layer; see the table `blocks`."""

    id: int
    """Store-wide id."""
    number: int
    """Number within the graph, as the exporter counted."""
    name: str
    """Name of the operation."""
    kind: EdgeKind
    layer: int
    """Target layer."""
    src_layer: int | None
    """Source layer; None when the sources lie in several layers."""
    tensor: str | None
    """Parameter tensor behind the edges; None for structural blocks."""
    shared_with: int | None
    """Store-wide id of the first block of the graph with the same tensor."""
    n_edges: int
    n_src: int
    """Rows of the matrix; for a block without a matrix, distinct sources."""
    n_dst: int
    """Columns of the matrix; for a block without a matrix, distinct targets."""
    dense: bool
    """Whether all n_src * n_dst pairs are edges."""
    has_kernels: bool
    """Whether edges stand for several parameters."""
    src_units: NDArray[np.int64] | None
    """(n_src,) units of the rows in matrix order; None for a block without a matrix that is not dense."""
    dst_units: NDArray[np.int64] | None
    """(n_dst,) units of the columns in matrix order; None likewise."""
    place: Place | None = None
    """Of a block in place, whose edges stay in the model file: where its matrix is."""


_KINDS = frozenset(EdgeKind)
_COLUMNS = (
    *("id", "number", "name", "kind", "layer", "src_layer", "tensor", "shared_with"),
    *("n_edges", "n_src", "n_dst", "dense", "has_kernels"),
)
_PLACE = ("place_offset", "place_steps")


def read_blocks_info(connection: duckdb.DuckDBPyConnection, graph: int) -> list[BlockInfo]:
    """Return the blocks of a graph by ascending id, which is the order in which they were written."""
    sql = compose(
        "SELECT {columns}, src_units, dst_units FROM blocks WHERE graph = ? ORDER BY id",
        columns=", ".join((*_COLUMNS, *_PLACE)),
    )
    frame = fetch_counted(connection, sql, [graph])
    units = layer_units(connection, graph)
    n_units = sum(map(len, units.values()))
    src_units, dst_units = (_unit_arrays(frame[name]) for name in ("src_units", "dst_units"))
    infos: list[BlockInfo] = []
    rows = frame.select(*_COLUMNS, *_PLACE).iter_rows(named=True)
    for row, src, dst in zip(rows, src_units, dst_units, strict=True):
        if row["kind"] not in _KINDS:
            raise damaged(connection, f"blocks.kind holds {printable(row['kind'], limit=60)!r}")
        if row["layer"] not in units or row["src_layer"] not in {None, *units}:
            raise damaged(connection, f"block {row['id']} is of a layer that the graph does not have")
        if infos and infos[-1].id == row["id"]:
            raise damaged(connection, f"block {row['id']} is there twice")
        sources = range(n_units) if row["src_layer"] is None else units[row["src_layer"]]
        for end, found, known in (("src", src, sources), ("dst", dst, units[row["layer"]])):
            if found is not None and not within(found, known):
                raise damaged(connection, f"blocks.{end}_units holds units that are not those of the layer")
            if found is not None and len(found) != row[f"n_{end}"]:
                raise damaged(connection, f"blocks.{end}_units and n_{end} of block {row['id']} differ")
        row["kind"] = EdgeKind(row["kind"])
        offset, steps = (row.pop(name) for name in _PLACE)
        if offset is not None:
            if row["tensor"] is None or steps is None or len(steps) != 2 or src is None or dst is None:
                raise damaged(connection, f"block {row['id']} does not say where its matrix is")
            row["place"] = Place(tensor=row["tensor"], offset=offset, row_step=steps[0], column_step=steps[1])
        infos.append(BlockInfo(**row, src_units=src, dst_units=dst))
    return infos


@dataclass(frozen=True, kw_only=True)
class LeftTensors:
    """What a graph has left in its model file."""

    tensors: Mapping[str, WantedTensor]
    """Tensors whose values stay there, by name."""
    codings: Mapping[int, Coding]
    """How weights of a block in place follow from a tensor of codes, by the block's store-wide id."""

    def needed(self) -> list[WantedTensor]:
        """All tensors that the model file has to have, each once."""
        found: list[WantedTensor] = []
        for one in self.tensors.values():
            found += [one] if one.made is None else one.made.tensors()
        found += [part for coding in self.codings.values() for part in coding.tensors()]
        return list(dict.fromkeys(found))


def left_tensors(connection: duckdb.DuckDBPyConnection, graph: int) -> LeftTensors:
    """Return what a graph has left in its model file.

    Raises:
        StoreError: A tensor has no checksum, or how it is made is not said.
    """
    sql = """
        SELECT name, dtype, shape, sha256, shard IS NOT NULL FROM tensors
        WHERE graph = ? ORDER BY shard, shard_offset
    """
    known, left = {}, []
    for name, dtype, shape, sha256, stays in fetch_frame(connection, sql, [graph]).iter_rows():
        if stays and sha256 is None:
            raise damaged(connection, f"tensor {printable(name, limit=60)!r} has no checksum")
        if sha256 is not None:
            known[name] = WantedTensor(name=name, dtype=dtype, shape=tuple(shape), sha256=sha256)
            left += [name] if stays else []
    made, codings = {}, {}
    asked = "SELECT tensor, block, coding FROM codings WHERE graph = ? ORDER BY block NULLS FIRST, tensor"
    for name, block, text in connection.execute(asked, [graph]).fetchall():
        try:
            coding = coding_of(text, known)
        except ValueError as error:
            raise damaged(connection, f"codings.coding holds {printable(str(error))}") from error
        if block is None:
            made[name] = coding
        else:
            codings[block] = coding
    tensors = {name: replace(known[name], made=made.get(name)) for name in left}
    return LeftTensors(tensors=tensors, codings=codings)


def layer_units(connection: duckdb.DuckDBPyConnection, graph: int) -> dict[int, range]:
    """Return the units of each layer of a graph.

    Raises:
        StoreError: They do not follow one another.
    """
    units: dict[int, range] = {}
    end = 0
    sql = "SELECT id, first_unit, n_units FROM layers WHERE graph = ? ORDER BY id"
    for layer, first, n_units in connection.execute(sql, [graph]).fetchall():
        if first != end or n_units < 0:
            raise damaged(connection, f"the units of layer {layer} do not follow those before")
        if layer in units:
            raise damaged(connection, f"layer {layer} is there twice")
        end = first + n_units
        units[layer] = range(first, end)
    return units


def within(units: NDArray[np.generic], known: range) -> bool:
    """Whether all units are among those of a layer."""
    return not units.size or bool(known.start <= units.min() <= units.max() < known.stop)


def _unit_arrays(column: pl.Series) -> list[NDArray[np.int64] | None]:
    """Return the lists of a column as arrays."""
    return [None if units is None else units.to_numpy().astype(np.int64) for units in column]


# Edges of blocks out of a store as arrays, many small blocks per query.


EDGE_COLUMNS = ("src", "dst", "weight", "l1", "l2", "max_abs", "n_params")
"""Columns that can be asked for."""

_MAGNITUDES = ("l1", "l2", "max_abs")
_BATCH_EDGES = 1 << 20
_GAP_EDGES = 1 << 16
"""Edges between two wanted blocks that are cheaper to fetch and drop than to query around."""

EdgeArrays = dict[str, NDArray[np.generic]]


def matrix_in(
    files: TensorFiles,
    tensor: WantedTensor,
    coding: Coding | None,
    place: Place,
    shape: tuple[int, int],
) -> Matrix:
    """Return the entries of a tensor of an opened model that a place names.

    Raises:
        InvalidInputError: The model has no such tensor, or one with other values.
        ValueError: The tensor has no such place, or the coding does not fit it.
    """
    return Matrix.of(files.values(tensor) if coding is None else files.entries(coding), place, shape)


class BlockEdges:
    """Reads the edges of the blocks of one graph."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path,
        graph: int,
        blocks: Sequence[BlockInfo],
        units: Mapping[int, range],
        files: TensorFiles | None,
    ) -> None:
        self._files = files
        self._connection = connection
        self._graph = graph
        self._path = path
        self._units = units
        self._n_units = sum(map(len, units.values()))
        self._tables = {flag: _BlockTable(blocks, has_kernels=flag) for flag in (False, True)}

    def read(
        self, blocks: Sequence[BlockInfo], columns: Sequence[str]
    ) -> Iterator[tuple[BlockInfo, EdgeArrays]]:
        """Yield the blocks in the given order, each with the asked columns of its edges.

        Raises:
            UsageError: A column is unknown.
            StoreError: The store holds more or fewer edges than its blocks say.
        """
        if missing := [name for name in columns if name not in EDGE_COLUMNS]:
            raise UsageError(unknown("edge column", missing[0], EDGE_COLUMNS))
        for batch in steps(list(_batches(blocks)), "blocks of edges"):
            found: dict[int, EdgeArrays] = {}
            for has_kernels, table in self._tables.items():
                wanted = sorted(
                    block.id
                    for block in batch
                    if block.has_kernels == has_kernels and block.n_edges and block.place is None
                )
                for run in table.runs(wanted):
                    found |= self._read_run(table, run, columns)
            for block in batch:
                if block.place is not None and block.n_edges:
                    yield block, self.arrays(block, columns)
                    continue
                if block.n_edges:
                    self._check(block, found[block.id])
                yield block, found.pop(block.id) if block.n_edges else _no_edges(columns)

    def wanted(self, block: BlockInfo) -> tuple[Place, WantedTensor, Coding | None]:
        """Return where a block in place is, of which tensor, and how weights follow from that if it is codes.

        Raises:
            UsageError: The block is not in place.
            StoreError: The graph has no such tensor in its model file.
        """
        if block.place is None:
            raise UsageError(f"block {block.id} is not in place")
        tensor = self.left.tensors.get(block.place.tensor)
        if tensor is None:
            raise StoreError(
                f"{printable(str(self._path))}: damaged, block {block.id} is of a tensor that is not in the "
                "model file; restore it from a copy or export the model again"
            )
        return block.place, tensor, self.left.codings.get(block.id, tensor.made)

    def matrix(self, block: BlockInfo, *, counted: bool = False) -> Matrix:
        """Return the matrix of a block in place, as a view of the model file.

        Args:
            block: The block.
            counted: Count its edges first.

        Raises:
            UsageError: No model was given.
            InvalidInputError: The model has no such tensor, or one with other values.
            StoreError: The block is not a matrix of its tensor, or of other edges.
        """
        place, tensor, coding = self.wanted(block)
        origin = partial(matrix_in, self._model, tensor, coding, place, (block.n_src, block.n_dst))
        try:
            matrix = replace(origin(), origin=origin)
        except ValueError as error:
            raise StoreError(
                f"{printable(str(self._path))}: damaged, block {block.id} names {printable(str(error))}; "
                "restore it from a copy or export the model again"
            ) from error
        if counted:
            self._check_count(block, n_edges(matrix))
        return matrix

    def _check_count(self, block: BlockInfo, found: int) -> None:
        if found != block.n_edges:
            raise StoreError(
                f"{printable(str(self._path))}: damaged, {block.n_edges} edges in block {block.id}, but its "
                f"matrix has {found}; restore it from a copy or export the model again"
            )

    def pieces(
        self, blocks: Sequence[BlockInfo], columns: Sequence[str]
    ) -> Iterator[tuple[BlockInfo, EdgeArrays]]:
        """Yield the blocks in the given order, those in place in pieces of bounded size."""
        for stored, group in itertools.groupby(blocks, key=lambda block: block.place is None):
            chosen = list(group)
            if stored:
                yield from self.read(chosen, columns)
                continue
            for block in steps(chosen, "blocks of edges"):
                for piece in self._pieces_of(block, columns):
                    yield block, piece

    def _pieces_of(self, block: BlockInfo, columns: Sequence[str]) -> Iterator[EdgeArrays]:
        src, dst = block.src_units, block.dst_units
        if src is None or dst is None or not block.n_edges:
            return
        yield from edge_pieces(self.matrix(block), src, dst, columns)

    def arrays(self, block: BlockInfo, columns: Sequence[str]) -> EdgeArrays:
        """Return all edges of a block in place."""
        result = {name: np.empty(block.n_edges, column.dtype) for name, column in _no_edges(columns).items()}
        end = 0
        for piece in self._pieces_of(block, columns or ("src",)):
            size = next(iter(piece.values())).size
            if end + size <= block.n_edges:
                for name in columns:
                    result[name][end : end + size] = piece[name]
            end += size
        self._check_count(block, end)
        return result

    @cached_property
    def _model(self) -> TensorFiles:
        files = required(self._files, self._path)
        files.expect(self.left.needed())
        return files

    @cached_property
    def left(self) -> LeftTensors:
        """What the graph has left in its model file."""
        with translated_errors(self._path):
            return left_tensors(self._connection, self._graph)

    def _check(self, block: BlockInfo, edges: EdgeArrays) -> None:
        """Refuse edges of units that the graph does not have, and edges into other layers."""
        for name, known in (("src", range(self._n_units)), ("dst", self._units[block.layer])):
            if name in edges and not within(edges[name], known):
                what = (
                    f"edges of block {block.id} have a {name} outside units {known.start} to {known.stop - 1}"
                )
                raise StoreError(
                    f"{printable(str(self._path))}: damaged, {what}; "
                    "restore it from a copy or export the model again"
                )

    def _read_run(
        self, table: "_BlockTable", run: Sequence[int], columns: Sequence[str]
    ) -> dict[int, EdgeArrays]:
        """Read the blocks from `run[0]` to `run[-1]` in one query and return those in `run`."""
        stored = table.stored_columns(columns)
        sql = compose(
            "SELECT {columns} FROM {table} WHERE block BETWEEN ? AND ?",
            columns=", ".join(stored),
            table=table.name,
        )
        with translated_errors(self._path):
            arrays = fetch_arrays(self._connection, sql, [run[0], run[-1]])
        start = table.start[run[0]]
        expected = table.end[run[-1]] - start
        n_found = arrays[stored[0]].size
        if n_found != expected:
            raise StoreError(
                f"{printable(str(self._path))}: damaged, {n_found} edges in blocks {run[0]} to {run[-1]}, "
                f"expected {expected}; restore it from a copy or export the model again"
            )
        result: dict[int, EdgeArrays] = {}
        for block in run:
            cut = slice(table.start[block] - start, table.end[block] - start)
            result[block] = {name: _column(name, arrays, cut) for name in columns}
        return result


class _BlockTable:
    """Where the edges of each block lie in `connections` or in `kernels`, counted within the graph."""

    def __init__(self, blocks: Sequence[BlockInfo], *, has_kernels: bool) -> None:
        self.name = "kernels" if has_kernels else "connections"
        self._has_kernels = has_kernels
        self.start: dict[int, int] = {}
        self.end: dict[int, int] = {}
        position = 0
        for block in sorted(blocks, key=lambda block: block.id):
            if block.has_kernels == has_kernels and block.place is None:
                self.start[block.id] = position
                position += block.n_edges
                self.end[block.id] = position

    def runs(self, wanted: Sequence[int]) -> Iterator[list[int]]:
        """Yield the ascending ids in groups that lie close together."""
        run: list[int] = []
        for block in wanted:
            if run and self.start[block] - self.end[run[-1]] > _GAP_EDGES:
                yield run
                run = []
            run.append(block)
        if run:
            yield run

    def stored_columns(self, columns: Sequence[str]) -> list[str]:
        """Return what to select for the asked columns; at least one column."""
        if self._has_kernels:
            return list(dict.fromkeys(columns)) or ["src"]
        stored = dict.fromkeys("weight" if name in _MAGNITUDES else name for name in columns)
        return [name for name in stored if name != "n_params"] or ["src"]


def _column(name: str, arrays: EdgeArrays, cut: slice) -> NDArray[np.generic]:
    """Return a column; edges of one parameter have magnitudes equal to |weight| and n_params 1."""
    if name in arrays:
        return arrays[name][cut]
    if name == "n_params":
        return np.ones(cut.stop - cut.start, dtype=np.int32)
    return np.abs(arrays["weight"][cut], dtype=np.float64)


def _batches(blocks: Sequence[BlockInfo]) -> Iterator[list[BlockInfo]]:
    batch: list[BlockInfo] = []
    n_edges = 0
    for block in blocks:
        if batch and n_edges + block.n_edges > _BATCH_EDGES:
            yield batch
            batch, n_edges = [], 0
        batch.append(block)
        n_edges += block.n_edges
    if batch:
        yield batch


def _no_edges(columns: Sequence[str]) -> EdgeArrays:
    types = {"src": np.int32, "dst": np.int32, "weight": np.float32, "n_params": np.int32}
    return {name: np.empty(0, dtype=types.get(name, np.float64)) for name in columns}
