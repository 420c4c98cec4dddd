"""Rows of graphs from one store to another, and out of a store."""

from collections.abc import Callable
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from emergraph.graphstore.catalog import next_id, unique_name
from emergraph.graphstore.frames import fetch_batches, fetch_table, insert
from emergraph.graphstore.results import ensure_like, result_columns, result_table_names
from emergraph.graphstore.sql import compose, identifier
from emergraph.steps import steps

_ROWS = 1 << 22
_ROWS_WITH_BYTES = 512

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Table:
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


_TABLES = (
    _Table("layers", "graph", "graphs"),
    _Table("units", "graph", "graphs"),
    _Table("blocks", "graph", "graphs", (("id", "blocks"), ("shared_with", "blocks")), rows=_ROWS_WITH_BYTES),
    _Table("connections", "block", "blocks"),
    _Table("kernels", "block", "blocks"),
    _Table("tensors", "graph", "graphs", (("block", "blocks"),), rows=_ROWS_WITH_BYTES),
    _Table("tensor_parts", "graph", "graphs", rows=_ROWS_WITH_BYTES),
    _Table("operations", "graph", "graphs"),
    _Table("metrics", "graph", "graphs"),
    _Table("traces", "graph", "graphs", (("id", "traces"),)),
    _Table("activations", "trace", "traces", rows=_ROWS_WITH_BYTES),
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
    for table in steps(_TABLES, "tables"):
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
    for table in reversed(_TABLES):
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
    columns = ", ".join(
        compose("{c} + ({shift}) AS {c}", c=identifier(c), shift=shifts[c]) if c in shifts else identifier(c)
        for c in result_columns(source, table)
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
