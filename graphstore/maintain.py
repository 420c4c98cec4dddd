"""Store upkeep: listing, removing and merging graphs, and reclaiming space."""

import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa

from emergraph.atomic import together
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.catalog import graph_id, next_id, unique_name
from emergraph.graphstore.connection import transaction, translated_errors
from emergraph.graphstore.frames import element_type, fetch_batches, fetch_frame, fetch_table, insert
from emergraph.graphstore.results import ensure_like, result_columns, result_table_names
from emergraph.graphstore.sql import compose, identifier
from emergraph.graphstore.store import StoreFile, open_store
from emergraph.graphstore.storefile import wal_path
from emergraph.graphstore.text import printable
from emergraph.steps import steps

# Rows of graphs from one store to another, and out of a store.

_ROWS = 1 << 22
_ROWS_WITH_BYTES = 512

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OwnedTable:
    """A table whose rows belong to graphs."""

    name: str
    owner: str
    """Column that says whose row it is."""
    owner_ids: str
    """What that column refers to: a key of `Offsets`."""
    others: tuple[tuple[str, str], ...] = ()
    """Further columns that hold ids, and what they refer to."""
    rows: int = _ROWS
    """Rows that travel at a time."""


TABLES = (
    OwnedTable("layers", "graph", "graphs"),
    OwnedTable("units", "graph", "graphs"),
    OwnedTable(
        "blocks", "graph", "graphs", (("id", "blocks"), ("shared_with", "blocks")), rows=_ROWS_WITH_BYTES
    ),
    OwnedTable("connections", "block", "blocks"),
    OwnedTable("kernels", "block", "blocks"),
    OwnedTable("strengths", "block", "blocks"),
    OwnedTable("tensors", "graph", "graphs", (("block", "blocks"),), rows=_ROWS_WITH_BYTES),
    OwnedTable("tensor_parts", "graph", "graphs", rows=_ROWS_WITH_BYTES),
    OwnedTable("codings", "graph", "graphs", (("block", "blocks"),)),
    OwnedTable("operations", "graph", "graphs"),
    OwnedTable("metrics", "graph", "graphs"),
    OwnedTable("traces", "graph", "graphs", (("id", "traces"),)),
    OwnedTable("activations", "trace", "traces", rows=_ROWS_WITH_BYTES),
)
"""All but graphs, runs and result tables, which need more than a shift of their ids."""

_IDENTIFIED = ("graphs", "blocks", "traces", "runs")


@dataclass(frozen=True)
class _Range:
    """Ids of one kind in the source, and what is added to them in the target."""

    first: int
    last: int
    shift: int


def copy_graphs(
    source: duckdb.DuckDBPyConnection, target: duckdb.DuckDBPyConnection, *, keep_ids: bool = False
) -> dict[int, int]:
    """Append all graphs of a store, with their traces and runs, to another; the caller holds a transaction.

    Args:
        source: Where to read.
        target: Where to write.
        keep_ids: Keep all ids, for a target without graphs; else they follow those of the target.

    Returns:
        New ids of the graphs by their old ids.

    Raises:
        StoreError: A result table of the source cannot be made in the target.
    """
    ranges = {table: _id_range(source, target, table, keep_ids=keep_ids) for table in _IDENTIFIED}
    new_ids = _copy_graph_rows(source, target, ranges["graphs"])
    for table in steps(TABLES, "tables"):
        shifts = {table.owner: ranges[table.owner_ids].shift}
        shifts |= {column: ranges[ids].shift for column, ids in table.others}
        _copy_rows(source, target, table.name, table.owner, ranges[table.owner_ids], shifts, rows=table.rows)
    shifts = {"id": ranges["runs"].shift, "graph": ranges["graphs"].shift}
    _copy_rows(source, target, "runs", "id", ranges["runs"], shifts, rows=_ROWS)
    for name in steps(result_table_names(source), "tables of results"):
        ensure_like(source, target, name)
        _copy_rows(source, target, name, "run", ranges["runs"], {"run": ranges["runs"].shift}, rows=_ROWS)
    return new_ids


def remove_rows(connection: duckdb.DuckDBPyConnection, graph: int) -> None:
    """Delete all rows of a graph, its traces and its runs; graphs derived from it lose their parent."""
    for name in result_table_names(connection):
        sql = "DELETE FROM {table} WHERE run IN (SELECT id FROM runs WHERE graph = ?)"
        connection.execute(compose(sql, table=identifier(name)), [graph])
    connection.execute("DELETE FROM runs WHERE graph = ?", [graph])
    for table in reversed(TABLES):
        condition = "graph = ?"
        if table.owner != "graph":
            owners = compose("SELECT id FROM {owners} WHERE graph = ?", owners=table.owner_ids)
            ids = [row[0] for row in connection.execute(owners, [graph]).fetchall()]
            # Ids of one graph lie together, and a range lets DuckDB skip what lies elsewhere.
            condition = compose("{owner} IN ({sql})", owner=table.owner, sql=owners)
            if ids:
                between = "{condition} AND {owner} BETWEEN {first} AND {last}"
                condition = compose(
                    between, condition=condition, owner=table.owner, first=min(ids), last=max(ids)
                )
        connection.execute(compose("DELETE FROM {table} WHERE {c}", table=table.name, c=condition), [graph])
    connection.execute("UPDATE graphs SET parent = NULL WHERE parent = ?", [graph])
    connection.execute("DELETE FROM graphs WHERE id = ?", [graph])


def _id_range(
    source: duckdb.DuckDBPyConnection, target: duckdb.DuckDBPyConnection, table: str, *, keep_ids: bool
) -> _Range:
    sql = compose("SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM {table}", table=table)
    first, last = source.execute(sql).fetchall()[0]
    return _Range(first, last, 0 if keep_ids else next_id(target, table) - first)


def _copy_graph_rows(
    source: duckdb.DuckDBPyConnection, target: duckdb.DuckDBPyConnection, graphs: _Range
) -> dict[int, int]:
    """Copy `graphs` with new ids and free names; a parent that is not copied becomes NULL."""
    table = fetch_table(source, "SELECT * FROM graphs ORDER BY id")
    new_ids = {}
    for i, (old, name, parent) in enumerate(
        zip(*(table.column(column).to_pylist() for column in ("id", "name", "parent")), strict=True)
    ):
        new_ids[old] = old + graphs.shift
        row = table.slice(i, 1)
        changed = {
            "id": pa.array([new_ids[old]], pa.int32()),
            "name": pa.array([unique_name(target, "SELECT name FROM graphs", [], name)]),
            "parent": pa.array([new_ids.get(parent)], pa.int32()),
        }
        for column, value in changed.items():
            row = row.set_column(row.schema.get_field_index(column), column, value)
        insert(target, row, "INSERT INTO graphs BY NAME SELECT * FROM {chunk}")
    return new_ids


def _copy_rows(
    source: duckdb.DuckDBPyConnection,
    target: duckdb.DuckDBPyConnection,
    table: str,
    owner: str,
    ids: _Range,
    shifts: dict[str, int],
    *,
    rows: int,
) -> None:
    """Copy the rows whose owner is in a range of ids, in their order."""
    names = result_columns(source, table)
    if not names:  # of an older schema
        return
    columns = ", ".join(
        compose("{c} + ({shift}) AS {c}", c=identifier(c), shift=shifts[c]) if c in shifts else identifier(c)
        for c in names
    )
    sql = compose(
        "SELECT {columns} FROM {table} WHERE {owner} BETWEEN ? AND ?",
        columns=columns,
        table=identifier(table),
        owner=identifier(owner),
    )
    for batch in fetch_batches(source, sql, [ids.first, ids.last], rows=rows):
        insert(
            target,
            pa.Table.from_batches([batch]),
            "INSERT INTO {table} BY NAME SELECT * FROM {chunk}",
            table=identifier(table),
        )


_LIST = """
SELECT
    g.id, g.name, g.source, g.format, g.wiring, g.parent, g.step,
    g.n_layers, g.n_units, g.n_neurons, g.n_blocks, g.n_edges, g.n_parameters, g.n_parameters_understood,
    coalesce(t.n, 0) AS n_traces, coalesce(r.n, 0) AS n_runs,
    round(coalesce(c.n, 0) * {connection} + coalesce(k.n, 0) * {kernel})::BIGINT AS n_bytes,
    g.created_at
FROM graphs AS g
LEFT JOIN (SELECT graph, count(*) AS n FROM traces GROUP BY graph) AS t ON t.graph = g.id
LEFT JOIN (SELECT graph, count(*) AS n FROM runs GROUP BY graph) AS r ON r.graph = g.id
LEFT JOIN (
    SELECT graph, sum(n_edges) AS n FROM blocks WHERE NOT has_kernels AND place_offset IS NULL GROUP BY graph
) AS c ON c.graph = g.id
LEFT JOIN (SELECT graph, sum(n_edges) AS n FROM blocks WHERE has_kernels GROUP BY graph) AS k
    ON k.graph = g.id
ORDER BY g.id
"""


_RAW_TENSORS = "SELECT graph, shape, dtype FROM tensors WHERE block IS NULL AND shard IS NULL"


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What `compact` did."""

    bytes_before: int
    """Size of the file, in bytes."""
    bytes_after: int


def list_graphs(store: StoreFile) -> pl.DataFrame:
    """Return one row per graph, oldest first.

    Returns:
        Columns id, name, source, format, wiring, parent, step, the counts of the table `graphs`, n_traces,
        n_runs, n_bytes and created_at. `n_bytes` is what its edges and raw tensors take in
        the file: for edges, its share by number of rows; names, units and results are not in it.
    """
    with translated_errors(store.path):
        sizes = {
            name: _bytes_per_row(store, table)
            for name, table in (("connection", "connections"), ("kernel", "kernels"))
        }
        listed = fetch_frame(store.connection, compose(_LIST, **sizes))
        raw = Counter[int]()
        for graph, shape, dtype in fetch_frame(store.connection, _RAW_TENSORS).iter_rows():
            element = element_type(dtype)
            raw[graph] += math.prod(shape) * (element.itemsize if element else 1)
    return listed.with_columns(
        n_bytes=pl.col("n_bytes") + pl.Series([raw[graph] for graph in listed["id"]], dtype=pl.Int64)
    )


def remove_graph(store: StoreFile, name_or_id: str | int) -> str:
    """Remove a graph with its traces and runs from the store; return its name.

    The file keeps its size, and later graphs use the room; `compact` gives it back.

    Raises:
        UsageError: There is no such graph.
        StoreError: The store is open for reading only.
    """
    store.require_write()
    with translated_errors(store.path):
        graph = graph_id(store.connection, name_or_id)
        name = store.graph(graph).name
        with transaction(store.connection):
            remove_rows(store.connection, graph)
    return name


def merge(store: StoreFile, other: str | os.PathLike[str]) -> dict[int, int]:
    """Copy all graphs of another store, with their traces, metrics and runs, into this one.

    A graph whose name is taken gets a number behind it. The other store stays as it is.

    Args:
        store: Open for writing.
        other: File of the other store.

    Returns:
        New ids of the graphs by their ids in the other store.

    Raises:
        UsageError: Both are the same file.
        StoreError: One of them is locked, damaged or from elsewhere; nothing was changed.
    """
    store.require_write()
    path = Path(other)
    if path.exists() and path.samefile(store.file):
        raise UsageError(f"{printable(str(path))}: a store cannot be merged into itself; give another one")
    with open_store(path) as source, translated_errors(store.path), transaction(store.connection):
        return copy_graphs(source.connection, store.connection)


def compact(path: str | os.PathLike[str]) -> Compacted:
    """Rewrite a store without the space that removed graphs left, in place of the old one.

    The old file stays until the new one is complete; both need room on the disk for a while.

    Raises:
        LimitError: The disk is full; the store is as it was.
        StoreError: The store is locked, damaged or from elsewhere.
    """
    file = Path(path).resolve()
    # Holding the old file open for writing keeps other processes out until the new one is in place.
    with open_store(path, mode="write") as store, together() as outputs:
        before = file.stat().st_size
        fresh = outputs.stage(file)
        with (
            open_store(fresh, mode="create", in_place=True, any_name=True) as target,
            translated_errors(file),
            transaction(target.connection),
        ):
            copy_graphs(store.connection, target.connection, keep_ids=True)
        if wal_path(fresh).exists():
            raise LimitError(
                f"{printable(str(path))}: not enough disk space to rewrite it; free some and try again"
            )
    return Compacted(bytes_before=before, bytes_after=file.stat().st_size)


def _bytes_per_row(store: StoreFile, table: str) -> str:
    """Return the bytes of the file that a row of a table takes on average, as SQL number."""
    rows = store.connection.execute(
        compose(
            """
            SELECT (SELECT count(DISTINCT block_id) FROM pragma_storage_info('{table}') WHERE block_id >= 0),
                (SELECT count(*) FROM {table}), (SELECT block_size FROM pragma_database_size())
            """,
            table=table,
        )
    ).fetchall()
    n_blocks, n_rows, block_size = rows[0]
    return f"{n_blocks * block_size / n_rows if n_rows else 0:.9e}"
