"""The schema of a store: created, recognised, migrated, and described in Markdown."""

import datetime as dt
import itertools
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import duckdb

from emergraph.errors import StoreError
from emergraph.graphstore.connection import database_path, transaction
from emergraph.graphstore.definitions import check_definitions, check_views
from emergraph.graphstore.sql import compose, identifier
from emergraph.graphstore.storefile import wal_path
from emergraph.graphstore.text import printable
from emergraph.version import __version__

APPLICATION = "emergraph"
SCHEMA_VERSION = 5

_MIGRATION_FILE = re.compile(r"migration_(\d{4})_\w+\.sql")


@dataclass(frozen=True)
class Migration:
    """How a store of the version before becomes one of `version`."""

    version: int
    sql: str
    """What changes it."""
    view_sql: str = ""
    """Temporary views that show a store of the version before, `{store}`, as if it had been changed."""


@cache
def schema_sql() -> str:
    """Return the SQL of the current schema, comments included."""
    return resources.files("emergraph.graphstore").joinpath("schema.sql").read_text(encoding="utf-8")


@cache
def base_tables() -> frozenset[str]:
    """Return the names of the tables of the current schema; other tables of a store hold results."""
    return frozenset(re.findall(r"^CREATE TABLE (\w+)", schema_sql(), re.MULTILINE))


Layout = dict[str, list[tuple[str, str, bool]]]
"""Columns of tables, in order: name, type, whether it may be NULL."""

_COLUMN = re.compile(r'^    "?(\w+)"? ([A-Z]+(?:\[\])?)( NOT NULL)?,?$', re.MULTILINE)

_PRESENT = """
SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
WHERE NOT internal AND database_name = current_database() AND schema_name = 'main'
ORDER BY table_name, column_index
"""
_SHOWN = "SELECT table_name, column_name FROM system.main.duckdb_columns() WHERE database_name = 'temp'"


@cache
def expected_layout() -> Layout:
    """Return what the tables of the current schema hold."""
    bodies = re.findall(r"^CREATE TABLE (\w+) \(\n(.*?)\n\);", schema_sql(), re.MULTILINE | re.DOTALL)
    return {
        table: [(name, kind, not required) for name, kind, required in _COLUMN.findall(body)]
        for table, body in bodies
    }


@cache
def view_columns() -> dict[str, list[str]]:
    """Return the columns of the views of the current schema: each has a comment."""
    views = re.findall(r"^CREATE VIEW (\w+)", schema_sql(), re.MULTILINE)
    comment = r"^COMMENT ON COLUMN {}\.(\w+) IS"
    return {view: re.findall(comment.format(view), schema_sql(), re.MULTILINE) for view in views}


def check_layout(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Check that a store has the tables, columns and types that this version reads.

    Columns behind those of the schema are left alone, and so are tables that this process does not know. What
    temporary views show in place of an older store's tables is taken for granted.

    Raises:
        StoreError: A table or a column is missing, or holds something else; the message names it.
    """
    found: Layout = {}
    for table, name, kind, nullable in connection.execute(_PRESENT).fetchall():
        found.setdefault(table, []).append((name, kind, nullable))
    missing = set(connection.execute(_SHOWN).fetchall())
    missing -= {(table, name) for table, columns in found.items() for name, _, _ in columns}
    expected = {
        table: [column for column in columns if (table, column[0]) not in missing]
        for table, columns in expected_layout().items()
    }
    expected = {
        table: columns for table, columns in expected.items() if columns
    }  # others are shown as a whole
    problems = itertools.chain(
        _problems(found, expected, complete=True),
        _view_problems(found, missing),
        _problems(found, _result_layouts(), complete=False),
        _missing_results(connection, found),
    )
    if problem := next(problems, None):
        raise StoreError(
            f"{printable(str(path))}: damaged, {problem}; restore it from a copy or export the model again"
        )


def _problems(found: Layout, expected: Layout, *, complete: bool) -> Iterator[str]:
    """Say what is wrong with tables.

    Args:
        found: What is there.
        expected: What should be there.
        complete: No table and no column may be missing. Result tables are made by their first run, and older
            versions gave them fewer columns.
    """
    for table, columns in expected.items():
        there = {name: (kind, nullable) for name, kind, nullable in found.get(table, ())}
        if not there:
            if complete:
                yield f"table {table} is missing"
            continue
        for name, kind, nullable in columns:
            if name not in there:
                if complete:
                    yield f"column {table}.{name} is missing"
            elif there[name][0] != kind:
                yield f"column {table}.{name} is {printable(there[name][0], limit=60)}, expected {kind}"
            elif there[name][1] and not nullable:
                yield f"column {table}.{name} may be NULL, expected NOT NULL"
        order = [name for name, _, _ in columns]
        if complete and [name for name, _, _ in found[table]][: len(order)] != order:
            yield f"the columns of table {table} are in another order than {', '.join(order)}"


def _missing_results(connection: duckdb.DuckDBPyConnection, found: Layout) -> Iterator[str]:
    """Say which tables of results that runs name are gone."""
    named = connection.execute("SELECT DISTINCT unnest(result_tables) AS name FROM runs ORDER BY name")
    for (name,) in named.fetchall():
        if name not in found:
            yield f"table {printable(str(name), limit=60)} is missing, which holds results of a run"


def _view_problems(found: Layout, shown: Collection[tuple[str, str]]) -> Iterator[str]:
    for view, columns in view_columns().items():
        there = [name for name, _, _ in found.get(view, ())] + [name for of, name in shown if of == view]
        if missing := [name for name in columns if name not in there]:
            yield f"column {view}.{missing[0]} is missing" if there else f"view {view} is missing"


def _result_layouts() -> Layout:
    """The result tables that this process knows."""
    from emergraph.graphstore.results import registered_tables  # it needs this module

    return {
        table.name: [
            ("run", "INTEGER", False),
            *((column.name, column.type, True) for column in table.columns),
        ]
        for table in registered_tables()
    }


def migrations() -> tuple[Migration, ...]:
    """Return all migrations in order.

    They are files of this package such as `migration_0002_what.sql`, with `migration_0002_what.view.sql`
    beside it where an older store that is only read needs views.
    """
    files = {file.name: file for file in resources.files("emergraph.graphstore").iterdir()}
    steps = []
    for name, file in files.items():
        if match := _MIGRATION_FILE.fullmatch(name):
            view = files.get(name.replace(".sql", ".view.sql"))
            views = "" if view is None else view.read_text(encoding="utf-8")
            steps.append(Migration(int(match[1]), file.read_text(encoding="utf-8"), views))
    return tuple(sorted(steps, key=lambda step: step.version))


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Make an empty database a store, in one transaction."""
    with transaction(connection):
        connection.execute(schema_sql())
        connection.execute(
            "INSERT INTO store_info VALUES (?, ?, ?, ?)",
            [APPLICATION, SCHEMA_VERSION, __version__, utc_now()],
        )


def stored_version(
    connection: duckdb.DuckDBPyConnection, path: Path, *, may_be_empty: bool = False
) -> int | None:
    """Return the schema version of the database; None when it has no tables at all and that may be.

    Raises:
        StoreError: It is not a store, is newer than this version, defines what emergraph does not make, or is
            damaged (see `check_layout`).
    """
    name = printable(str(path))
    tables = {
        row[0] for row in connection.execute("SELECT table_name FROM system.main.duckdb_tables()").fetchall()
    }
    if not tables and may_be_empty:
        return None
    rows: list[tuple[object, ...]] = []
    if "store_info" in tables:
        try:
            rows = connection.execute("SELECT application, schema_version FROM store_info").fetchall()
        except duckdb.BinderException:
            rows = []
    if len(rows) != 1 or rows[0][0] != APPLICATION or not isinstance(rows[0][1], int):
        raise StoreError(
            f"{name}: a DuckDB file, but not an emergraph store; give one that `emergraph export` created"
        )
    version = rows[0][1]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{name}: store of schema version {version}, this emergraph supports up to {SCHEMA_VERSION}; "
            "update emergraph"
        )
    state, results = _state(database_path(connection)), frozenset(_result_layouts())
    checked = _CHECKED.get(state)
    if checked is None:
        check_definitions(connection, path)
    if version == SCHEMA_VERSION and (checked is None or results not in checked):
        _check_contents(connection, path)
    if state is not None:
        _CHECKED[state] = {*(checked or ()), results}
    return version


_State = tuple[int, ...]
_CHECKED: dict[_State | None, set[frozenset[str]]] = {}
"""Files that this process has checked, as they were, with the names of the tables of results that were known:
each call of the API opens its store anew."""
_SETTLED_NS = 2_000_000_000
"""What is younger may still be changed without another time of change: file systems count in steps."""


def _state(file: Path) -> _State | None:
    """What changes when a file does; None where that is not certain."""
    try:
        found = file.stat()
    except OSError:  # in memory
        return None
    changed = max(found.st_mtime_ns, found.st_ctime_ns)
    if wal_path(file).exists() or not 0 <= changed < time.time_ns() - _SETTLED_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_contents(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    check_layout(connection, path)
    check_views(connection, path)


def migrate(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    *,
    version: int,
    steps: Sequence[Migration],
    target: int,
) -> None:
    """Bring the store at `path` from schema `version` to `target`, in one transaction.

    Raises:
        StoreError: A step is missing: the store is older than the oldest that can be migrated.
    """
    needed = _steps_between(path, version=version, steps=steps, target=target)
    with transaction(connection):
        for step in needed:
            connection.execute(step.sql)
        connection.execute("UPDATE store_info SET schema_version = ?", [target])
        if target == SCHEMA_VERSION:
            _check_contents(connection, path)


def show_as_current(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    *,
    version: int,
    steps: Sequence[Migration],
    target: int,
) -> None:
    """Let a connection that only reads see a store of schema `version` as one of `target`; the file stays.

    Raises:
        StoreError: A step is missing, or the store lacks something.
    """
    store = identifier(str(connection.execute("SELECT current_database()").fetchall()[0][0]))
    for step in _steps_between(path, version=version, steps=steps, target=target):
        connection.execute(compose(step.view_sql, store=store))
    if target == SCHEMA_VERSION:
        _check_contents(connection, path)


def _steps_between(path: Path, *, version: int, steps: Sequence[Migration], target: int) -> list[Migration]:
    needed = [step for step in steps if version < step.version <= target]
    if [step.version for step in needed] != list(range(version + 1, target + 1)):
        raise StoreError(
            f"{printable(str(path))}: store of schema version {version} cannot be migrated to {target}; "
            "export the model again"
        )
    return needed


def utc_now() -> dt.datetime:
    """Return the current time in UTC, without a time zone, as the store keeps times."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


_DESCRIBE = """
SELECT t.name, t.comment, c.column_name, c.data_type, c.comment
FROM (
    SELECT table_name AS name, comment FROM duckdb_tables()
    UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE NOT internal
) AS t
JOIN duckdb_columns() AS c ON c.table_name = t.name AND NOT c.internal
ORDER BY c.column_index
"""


def schema_markdown() -> str:
    """Return the description of every table, view and column of the schema, as Markdown."""
    connection = duckdb.connect()
    connection.execute(schema_sql())
    rows = connection.execute(_DESCRIBE).fetchall()
    connection.close()
    parts = ["# The schema of a store", "", f"Schema version {SCHEMA_VERSION}. One DuckDB file, many graphs."]
    parts += ["Tables of analyses: [results.md](results.md).", "", "| table | content |", "|---|---|"]
    declared = re.findall(r"^CREATE (TABLE|VIEW) (\w+)", schema_sql(), re.MULTILINE)
    comments = {str(row[0]): str(row[1]) for row in rows}
    parts += [f"| `{name}` | {comments[name]} |" for _, name in declared]
    for kind, name in declared:
        columns = [row for row in rows if row[0] == name]
        title = f"## `{name}`" + (" (view)" if kind == "VIEW" else "")
        parts += ["", title, "", str(columns[0][1]), "", "| column | type | meaning |", "|---|---|---|"]
        parts += [f"| `{column}` | {kind_of} | {meaning} |" for _, _, column, kind_of, meaning in columns]
    return "\n".join([*parts, ""])
