"""Graphs of a store into a lake: every table, each graph once.

The folder of a graph is named after a checksum of its tables, without the ids that the store has given and
without times. So the same graph has the same name wherever it comes from, and is written once. What is added
to a graph later (traces, metrics, runs of analyses and their results) is a file of its own each, named after
what it is; the row in `traces` or `runs` comes last.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emergraph.atomic import together
from emergraph.errors import UsageError
from emergraph.graphstore.connection import translated_errors
from emergraph.graphstore.frames import damaged, fetch_batches, fetch_table
from emergraph.graphstore.inplace import edge_pieces
from emergraph.graphstore.lake.layout import GRAPH, IN_PLACE, NO_GRAPH, SUFFIX, partition
from emergraph.graphstore.maintain import TABLES, OwnedTable
from emergraph.graphstore.results import result_table_names
from emergraph.graphstore.schema import SCHEMA_VERSION
from emergraph.graphstore.sql import compose, identifier
from emergraph.graphstore.text import printable
from emergraph.steps import steps

if TYPE_CHECKING:
    from emergraph.graphstore.store import StoreFile

ROWS = 1 << 20
"""Rows of a row group, and rows that travel at a time."""
_LATER = ("metrics", "traces", "activations")
"""Tables of a graph that grow when it is there: not a part of its checksum."""
_OF_GRAPHS = tuple(table for table in TABLES if table.name not in _LATER)
_UNHASHED = {"id", "parent", "tool_version", "created_at"}
"""Of the table `graphs`: what differs between two exports of the same graph."""
_DELTA = ("src", "dst", "id", "unit", "position")
"""Columns of whole numbers that mostly grow by small steps."""

Rows = Iterable[pa.RecordBatch]
Write = Callable[[Path], None]
Parts = Iterator[tuple[str, Write]]
"""Files of a graph below its folder, and what writes each."""


def write_lake(
    store: "StoreFile",
    folder: Path,
    *,
    graphs: Sequence[int] | None = None,
    edges: bool = False,
    name: str | None = None,
) -> list[dict[str, Any]]:
    """Write graphs of a store, with their traces, metrics, runs and results, into a lake.

    What is there already stays; so the same call twice writes nothing the second time, and several processes
    may write into one lake.

    Args:
        store: The store, open.
        folder: The lake, which is made where there is none; its parent folder must exist.
        graphs: Ids of the graphs; by default all, and runs that are about none.
        edges: Write the edges of blocks in place, too, for which the model is needed
            (`modelfiles.model_given`); by default, blocks and tensors say where they are.
        name: Another name for the graph, where there is one.

    Returns:
        For each graph: graph (its id in the lake), name, edges (rows written or there), files (written).

    Raises:
        UsageError: The folder cannot be made, or a model is needed.
        LimitError: The disk is full; each graph is there as a whole or not at all.
    """
    if not folder.is_dir():
        if folder.exists() or not folder.absolute().parent.is_dir():
            raise UsageError(f"{printable(str(folder))}: no folder can be made there; name another one")
        folder.mkdir()
    with translated_errors(store.path):
        known = {} if name is None else {"name": name}
        parents = dict(store.connection.execute("SELECT id, parent FROM graphs ORDER BY id").fetchall())
        chosen = list(parents) if graphs is None else list(graphs)
        keys: dict[int, str] = {}

        def key_of(graph: int) -> str:
            if graph not in keys:
                keys[graph] = _Graph(store, graph, known).digest()
            return keys[graph]

        found = []
        for graph in steps(chosen, "graphs"):
            parent = parents[graph]
            above = key_of(parent) if parent in parents else None
            found.append(_Graph(store, graph, known).write(folder, key_of(graph), above, edges=edges))
        if graphs is None:
            _add_files(folder, partition(GRAPH, NO_GRAPH), _runs(store, None))
    return found


class _Graph:
    """One graph of a store on its way into a lake."""

    def __init__(self, store: "StoreFile", graph: int, changes: dict[str, str]) -> None:
        self._store, self.id, self._changes = store, graph, changes
        self._connection = store.connection
        sql = "SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM blocks WHERE graph = ?"
        self._first, self._last = self._connection.execute(sql, [graph]).fetchall()[0]

    def digest(self) -> str:
        """The checksum of its tables."""
        digest = TableDigest()
        row = self._row(None).drop_columns([*_UNHASHED - {"id"}, "schema_version"])
        digest.add("graphs", row.schema, row.to_batches())
        for table in _OF_GRAPHS:
            schema, batches = self._rows(table)
            digest.add(table.name, schema, batches)
        return digest.hexdigest()

    def write(self, lake: Path, key: str, parent: str | None, *, edges: bool) -> dict[str, Any]:
        """Write what is not there yet."""
        folder = partition(GRAPH, key)
        n_files = 0
        if not (lake / folder).is_dir():
            with together() as outputs:
                place = outputs.stage(lake / folder, replace=False)
                place.mkdir()
                for name, write in (*self._tables(parent), *self._additions()):
                    (place / name).parent.mkdir(exist_ok=True)
                    write(place / name)
                    n_files += 1
        else:
            n_files += _add_files(lake, folder, self._additions())
        metrics = self._table("metrics")
        path = lake / folder / "metrics" / f"part{SUFFIX}"
        if metrics.num_rows and not (
            path.exists() and pq.read_table(path, partitioning=None).equals(metrics)
        ):
            n_files += _add_files(lake, folder, [(f"metrics/part{SUFFIX}", _writer(metrics))], again=True)
        if edges and self._in_place():
            n_files += _add_files(lake, folder, [(f"connections/{IN_PLACE}", self._write_edges)])
        name = self._row(None).column("name")[0].as_py()
        return {"graph": key, "name": name, "files": n_files, "edges": self._n_edges(edges=edges)}

    def _row(self, parent: str | None) -> pa.Table:
        """Its row of the table `graphs`, as in a lake."""
        row = fetch_table(self._connection, "SELECT * FROM graphs WHERE id = ?", [self.id])
        if row.num_rows != 1:
            raise damaged(self._connection, f"graph {self.id} is there {row.num_rows} times")
        row = row.set_column(row.schema.get_field_index("parent"), "parent", pa.array([parent], pa.string()))
        for column, value in self._changes.items():
            row = row.set_column(row.schema.get_field_index(column), column, pa.array([value]))
        return row.drop_columns(["id"]).append_column(
            "schema_version", pa.array([SCHEMA_VERSION], pa.int32())
        )

    def _rows(self, table: OwnedTable) -> tuple[pa.Schema, Rows]:
        """The rows of a table as they are in a lake: without the graph, blocks by their number in it."""
        relation = self._connection.sql(compose("SELECT * FROM {table} LIMIT 0", table=table.name))
        of_blocks = {name for name, ids in (*table.others, (table.owner, table.owner_ids)) if ids == "blocks"}
        columns = ", ".join(
            compose("({c} - {first})::INTEGER AS {c}", c=identifier(name), first=self._first)
            if name in of_blocks
            else identifier(name)
            for name in relation.columns
            if name != GRAPH
        )
        by_graph = table.owner_ids == "graphs"
        sql = compose(
            "SELECT {columns} FROM {table} WHERE {owner} BETWEEN ? AND ?",
            columns=columns,
            table=table.name,
            owner=table.owner,
        )
        ids = [self.id, self.id] if by_graph else [self._first, self._last]
        empty = fetch_table(self._connection, f"{sql} LIMIT 0", ids)
        return empty.schema, fetch_batches(self._connection, sql, ids, rows=min(table.rows, ROWS))

    def _table(self, name: str) -> pa.Table:
        schema, batches = self._rows(next(table for table in TABLES if table.name == name))
        return pa.Table.from_batches(batches, schema)

    def _tables(self, parent: str | None) -> Parts:
        """Its own tables, whole."""
        for table in _OF_GRAPHS:
            yield f"{table.name}/part{SUFFIX}", self._table_writer(table)
        yield f"graphs/part{SUFFIX}", _writer(self._row(parent))

    def _table_writer(self, table: OwnedTable) -> Write:
        return lambda path: _write(path, *self._rows(table))

    def _additions(self) -> Parts:
        """Its traces and its runs with their results."""
        traces = self._table("traces")
        for at in range(traces.num_rows):
            row = traces.slice(at, 1)
            key, trace = _key(row.drop_columns(["id", "tool_version"])), row.column("id")[0].as_py()
            yield (
                f"activations/{key}{SUFFIX}",
                _copier(self._store, "activations", "trace", trace, key),
            )
            yield f"traces/{key}{SUFFIX}", _writer(_with_key(row, "id", key))
        yield from _runs(self._store, self.id)

    def _in_place(self) -> bool:
        sql = "SELECT 1 FROM blocks WHERE graph = ? AND place_offset IS NOT NULL AND n_edges > 0 LIMIT 1"
        return bool(self._connection.execute(sql, [self.id]).fetchall())

    def _n_edges(self, *, edges: bool) -> int:
        sql = "SELECT coalesce(sum(n_edges), 0) FROM blocks WHERE graph = ? AND (? OR place_offset IS NULL)"
        return int(self._connection.execute(sql, [self.id, edges]).fetchall()[0][0])

    def _write_edges(self, path: Path) -> None:
        """The edges of blocks in place, as rows."""
        reader = self._store.graph(self.id)
        schema, _ = self._rows(next(table for table in TABLES if table.name == "connections"))

        def batches() -> Rows:
            for block in reader.blocks_info():
                src, dst = block.src_units, block.dst_units
                if block.place is None or src is None or dst is None or not block.n_edges:
                    continue
                for piece in edge_pieces(reader.matrix(block), src, dst, ("src", "dst", "weight")):
                    number = pa.repeat(pa.scalar(block.id - self._first, pa.int32()), piece["src"].size)
                    columns = [number, *(pa.array(values) for values in piece.values())]
                    yield pa.record_batch(columns, schema=schema)

        _write(path, schema, batches())


def _runs(store: "StoreFile", graph: int | None) -> Parts:
    """Runs about a graph, or about none, with their results; the row of a run behind its results."""
    runs = fetch_table(
        store.connection, "SELECT * EXCLUDE (graph) FROM runs WHERE graph IS NOT DISTINCT FROM ?", [graph]
    )
    there = result_table_names(store.connection) if runs.num_rows else []
    for at in range(runs.num_rows):
        row = runs.slice(at, 1)
        key, run = _key(row.drop_columns(["id", "tool_version"])), row.column("id")[0].as_py()
        for name in row.column("result_tables")[0].as_py():
            if name in there:
                yield f"{name}/{key}{SUFFIX}", _copier(store, name, "run", run, key)
        yield f"runs/{key}{SUFFIX}", _writer(_with_key(row, "id", key))


def _add_files(lake: Path, folder: str, parts: Iterable[tuple[str, Write]], *, again: bool = False) -> int:
    """Write files that are not there, in their order; return how many."""
    n_files = 0
    for path, write in parts:
        target = lake / folder / path
        if target.exists() and not again:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with together() as outputs:
            write(outputs.stage(target))
        n_files += 1
    return n_files


def _copier(store: "StoreFile", table: str, owner: str, number: int, key: str) -> Write:
    """Write the rows of a table that belong to a trace or a run, with its key in place of its number."""

    def write(path: Path) -> None:
        sql = compose(
            "SELECT * REPLACE (? AS {owner}) FROM {table} WHERE {owner} = ?",
            owner=identifier(owner),
            table=identifier(table),
        )
        schema = fetch_table(store.connection, f"{sql} LIMIT 0", [key, number]).schema
        _write(path, schema, fetch_batches(store.connection, sql, [key, number], rows=ROWS))

    return write


def _with_key(row: pa.Table, column: str, key: str) -> pa.Table:
    return row.set_column(row.schema.get_field_index(column), column, pa.array([key]))


def _key(row: pa.Table) -> str:
    """A name for a row after what is in it."""
    return hashlib.sha256(json.dumps(row.to_pylist(), default=str, sort_keys=True).encode()).hexdigest()[:32]


def _writer(table: pa.Table) -> Write:
    return lambda path: _write(path, table.schema, table.to_batches())


def _write(path: Path, schema: pa.Schema, batches: Rows) -> None:
    """Write a Parquet file as all engines read it: no encoding that one of them lacks."""
    small = [field.name for field in schema if pa.types.is_integer(field.type) and field.name in _DELTA]
    weights = [field.name for field in schema if pa.types.is_floating(field.type)]
    others = [field.name for field in schema if field.name not in {*small, *weights}]
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=_leaves(schema, others),
        column_encoding=dict.fromkeys(small, "DELTA_BINARY_PACKED"),
        store_schema=False,
    ) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)


def _leaves(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Paths of the columns in a file: those of lists have two more steps."""
    return [f"{name}.list.element" if pa.types.is_list(schema.field(name).type) else name for name in names]


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table as a file of a lake."""
    _writer(table)(path)


class TableDigest:
    """SHA-256 over names and values of the tables that are added, in order."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def add(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Take in one table; return its number of rows."""
        parts: dict[tuple[int, str], Any] = {}
        n_rows = 0
        for batch in batches:
            n_rows += batch.num_rows
            for at, column in enumerate(batch.columns):
                _add(parts, at, "", column)
        self._whole.update(f"{name}\0{n_rows}\0".encode())
        for at, field in enumerate(schema):
            self._whole.update(f"{field.name}\0".encode())
            for key in sorted(key for key in parts if key[0] == at):
                self._whole.update(key[1].encode() + b"\0" + parts[key].digest())
        return n_rows

    def hexdigest(self) -> str:
        """Return the checksum of all that was added."""
        return self._whole.hexdigest()


def _add(parts: dict[tuple[int, str], Any], at: int, path: str, column: pa.Array) -> None:
    """Take in a piece of a column; lists and texts as their lengths and what is in them."""

    def update(what: str, values: "np.ndarray[Any, Any]") -> None:
        key = (at, f"{path}{what}")
        if key not in parts:
            parts[key] = hashlib.sha256()
        parts[key].update(np.ascontiguousarray(values).data)

    update("null", np.asarray(column.is_null().to_numpy(zero_copy_only=False), np.uint8))
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        update("length", _plain(pc.list_value_length(column).cast(pa.int64())))
        _add(parts, at, f"{path}list.", column.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        update("length", _plain(pc.binary_length(column).cast(pa.int64())))
        update("bytes", np.frombuffer(b"".join(_bytes(column)), np.uint8))
    elif pa.types.is_boolean(kind):
        update("value", _plain(column.cast(pa.uint8())))
    elif pa.types.is_timestamp(kind):
        update("value", _plain(column.cast(pa.timestamp("us")).cast(pa.int64())))
    else:
        update("value", _plain(column))


def _plain(column: pa.Array) -> "np.ndarray[Any, Any]":
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(0).cast(column.type))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _bytes(column: pa.Array) -> list[bytes]:
    kind = pa.large_binary()
    return [value for value in column.cast(kind).to_pylist() if value is not None]
