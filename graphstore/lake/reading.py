"""A lake as a connection that shows it as a store: the same tables, columns and views.

The files become tables of a database in memory. Graphs, blocks, traces and runs get the whole numbers that
they have in a store, in the order of their times, so that each query on a store is one on a lake. The
connection reaches the listed files and nothing else.
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import duckdb

from emergraph.errors import StoreError
from emergraph.graphstore.connection import translated_errors
from emergraph.graphstore.definitions import shipped_views
from emergraph.graphstore.lake.layout import GRAPH, IN_PLACE, Files, lake_files
from emergraph.graphstore.maintain import TABLES
from emergraph.graphstore.schema import SCHEMA_VERSION, expected_layout
from emergraph.graphstore.sql import compose, identifier
from emergraph.graphstore.store import StoreFile, open_store
from emergraph.graphstore.text import printable

_NUMBERED = ("graphs", "traces", "runs")
"""Tables with an id that has to be made up; blocks are counted on from those of the graphs before."""
_OWNERS = {table.name: table for table in TABLES}
_UNDER = {
    "edges": ("blocks", "connections", "kernels"),
    "activations": ("traces",),
    "connections": ("blocks",),
    "unit_activations": ("activations", "traces", "units", "layers"),
    "unit_strengths": ("blocks", "strengths", "connections", "kernels"),
}
"""What views and tables cannot be shown without."""
_IDS = """
CREATE TABLE lake.graphs AS
SELECT graph AS key, (row_number() OVER latest - 1)::INTEGER AS id,
    (sum(n_blocks) OVER latest - n_blocks)::INTEGER AS first_block, graph IN ({with_edges}) AS with_edges
FROM {graphs} WINDOW latest AS (ORDER BY created_at, name, graph);
CREATE TABLE lake.traces AS
SELECT id AS key, (row_number() OVER (ORDER BY created_at, id) - 1)::INTEGER AS id FROM {traces};
CREATE TABLE lake.runs AS
SELECT id AS key, (row_number() OVER (ORDER BY created_at, id) - 1)::INTEGER AS id FROM {runs}
"""


_KEYS = {"graphs": "parent", "traces": "id", "runs": "id", "activations": "trace"}
"""Columns that hold names in a lake, and numbers in a store."""


def tables_of(named: AbstractSet[str]) -> frozenset[str]:
    """Return the tables that a query needs which names these tables and views."""
    below = {table for name in named for table in _UNDER.get(name, ())}
    results = {"runs"} if named - expected_layout().keys() - _UNDER.keys() else set()
    return frozenset({"graphs", *named, *below, *results})


@contextlib.contextmanager
def lake_connection(
    folder: Path, wanted: Collection[str] | None = None, *, shown: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Show a lake as a store.

    Args:
        folder: The lake. The views of the connection name its files as they are named here.
        wanted: Tables that are asked for; all by default.
        shown: What errors call the lake; `folder` by default.

    Raises:
        InvalidInputError: It is no lake.
        UnsafeInputError: A file of it is a link, or no regular file.
        StoreError: A file is damaged, or was written by a newer version.
    """
    name = shown or folder
    found = lake_files(folder, wanted, shown=name)
    files = {key: [os.path.join(folder, path) for path in paths] for key, paths in found.items()}  # noqa: PTH118
    with contextlib.closing(_connected(files)) as connection:
        with translated_errors(name):
            _show(connection, files, name)
        yield connection


@contextlib.contextmanager
def open_stored(path: Path) -> Iterator[StoreFile]:
    """Open a store or a lake for reading."""
    if not path.is_dir():
        with open_store(path) as store:
            yield store
        return
    with lake_connection(path) as connection:
        yield StoreFile.over(path, connection)


def _connected(files: Files) -> duckdb.DuckDBPyConnection:
    """A database in memory that may read these files alone."""
    allowed = [path for paths in files.values() for path in paths]
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "temp_directory": "",
        },
    )
    connection.execute("SET parquet_metadata_cache = true")  # each view asks the same files again
    connection.execute("SET allowed_paths = $1", [allowed])
    connection.execute("SET enable_external_access = false")
    return connection


def _show(connection: duckdb.DuckDBPyConnection, files: Files, folder: Path) -> None:
    """Make the tables and views of a store over the files."""
    layout = expected_layout()
    sources = {
        table: _scan(files[GRAPH, table], GRAPH) if (GRAPH, table) in files else _empty(table)
        for table in layout
        if table != "store_info"
    }
    connection.execute("CREATE SCHEMA lake")
    for table in _NUMBERED:  # which are asked several times
        sql = "CREATE TABLE lake.{table}_rows AS FROM {source}"
        connection.execute(compose(sql, table=table, source=sources[table]))
        sources[table] = f"lake.{table}_rows"
    newest = connection.execute(
        compose("SELECT max(schema_version) FROM {graphs}", graphs=sources["graphs"])
    ).fetchall()[0][0]
    if newest is not None and newest > SCHEMA_VERSION:
        raise StoreError(
            f"{printable(str(folder))}: graphs of schema version {newest}, this emergraph supports up to "
            f"{SCHEMA_VERSION}; update emergraph"
        )
    rows = [Path(path) for path in files.get((GRAPH, "connections"), ())]
    keys = [path.parts[-3].partition("=")[2] for path in rows if path.name == IN_PLACE]
    given = {table: sources[table] for table in ("graphs", "traces", "runs")}
    connection.execute(compose(_IDS, **given, with_edges=", ".join(map(_text, keys)) or "''"))
    for table, source in sources.items():
        _show_table(connection, table, source)
    for key, table in files:
        if key == GRAPH and table not in layout:
            _show_results(connection, table, _scan(files[key, table], key))
        elif key != GRAPH:
            sql = "CREATE VIEW {table} AS SELECT * FROM {source}"
            connection.execute(compose(sql, table=identifier(table), source=_scan(files[key, table], key)))
    for view in shipped_views().values():
        connection.execute(view)


def _scan(paths: Collection[str], key: str) -> str:
    listed = ", ".join(map(_text, paths))
    return (
        f"read_parquet([{listed}], union_by_name = true, hive_partitioning = true, "
        f"hive_types = {{'{key}': VARCHAR}}, hive_types_autocast = false)"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _empty(table: str) -> str:
    """The columns of a table of which there is no file."""
    columns = ", ".join(
        f"NULL::{'VARCHAR' if name == _KEYS.get(table) else kind} AS {identifier(name)}"
        for name, kind, _ in expected_layout()[table]
        if name != GRAPH
    )
    more = ", NULL::INTEGER AS schema_version" if table == "graphs" else ""
    return f"(SELECT {columns}{more}, NULL::VARCHAR AS graph WHERE false)"


def _show_table(connection: duckdb.DuckDBPyConnection, table: str, source: str) -> None:
    """Make a table of the schema: its columns in their order and types, with the numbers of a store."""
    present = set(connection.sql(f"FROM {source}").columns)
    columns = ", ".join(
        f"({_value(table, name, present)})::{kind} AS {identifier(name)}"
        for name, kind, _ in expected_layout()[table]
    )
    joins = " LEFT JOIN lake.graphs AS g ON g.key = t.graph"
    if table == "graphs":
        columns += ", t.graph AS key"
        joins += " LEFT JOIN lake.graphs AS above ON above.key = t.parent"
    if table in ("traces", "runs"):
        joins += f" JOIN lake.{table} AS own ON own.key = t.id"
    if table == "activations":
        joins += " JOIN lake.traces AS own ON own.key = t.trace"
    if table == "strengths":
        joins += " WHERE NOT coalesce(g.with_edges, false)"  # their edges are rows
    sql = "CREATE VIEW {table} AS SELECT {columns} FROM {source} AS t{joins}"
    connection.execute(compose(sql, table=table, columns=columns, source=source, joins=joins))


def _value(table: str, column: str, present: Collection[str]) -> str:
    """What a column of a store is in terms of a lake."""
    owned = _OWNERS.get(table)
    of_blocks = {} if owned is None else dict([*owned.others, (owned.owner, owned.owner_ids)])
    if of_blocks.get(column) == "blocks":
        return f"g.first_block + t.{identifier(column)}"
    if column == GRAPH or (table == "graphs" and column == "id"):
        return "g.id"
    if (table, column) in {("traces", "id"), ("runs", "id"), ("activations", "trace")}:
        return "own.id"
    if (table, column) == ("graphs", "parent"):
        return "above.id"
    if (table, column) in {("blocks", "place_offset"), ("blocks", "place_steps")}:
        return f"CASE WHEN NOT g.with_edges THEN t.{column} END"
    return f"t.{identifier(column)}" if column in present else "NULL"


def _show_results(connection: duckdb.DuckDBPyConnection, table: str, source: str) -> None:
    sql = (
        "CREATE VIEW {table} AS SELECT own.id AS run, t.* EXCLUDE (run, graph) "
        "FROM {source} AS t JOIN lake.runs AS own ON own.key = t.run"
    )
    connection.execute(compose(sql, table=identifier(table), source=source))
