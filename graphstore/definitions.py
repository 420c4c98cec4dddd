"""What a store defines beside its tables, held against what emergraph makes.

A view, a macro or a trigger is SQL that its author wrote and that runs when anyone else reads or writes the
store. On opening, the views of the schema must be the ones that this project ships, and nothing may take the
place of something else. Macros are refused: the defaults of their parameters are SQL that DuckDB runs but
does not show, and a macro can stand in for `sum` or `=`. So are triggers, which run when a store is written.
Before SQL of a user runs, all other definitions are held against the rules for that SQL.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import duckdb

from emergraph.errors import StoreError, UsageError
from emergraph.graphstore.sqltree import Names, check, parse, same
from emergraph.graphstore.text import printable

_NAME = r'(?:\w+|"(?:[^"]|"")*")'
_VIEW = re.compile(
    rf"CREATE (?:TEMP(?:ORARY)? )?VIEW (?:{_NAME}\.)*{_NAME} ?"
    r"(?P<columns>\([^()]*\) ?)?AS (?P<body>.*?);?\s*",
    re.DOTALL,
)
_INDEX = re.compile(
    rf"CREATE (?:UNIQUE )?INDEX {_NAME} ON (?:{_NAME}\.)*{_NAME} ?(?:USING \w+ ?)?\((?P<body>.*)\);?\s*",
    re.DOTALL,
)

# Names of DuckDB's own catalog are given in full: a store can define some of the same name.
_RELATIONS = """
SELECT 'view', schema_name, view_name, sql FROM system.main.duckdb_views() WHERE NOT internal
UNION ALL
SELECT 'table', schema_name, table_name, NULL FROM system.main.duckdb_tables()
"""
_RUNNING_BY_THEMSELVES = (  # together in one statement, they take twice as long
    "SELECT 'macro', schema_name, function_name, NULL FROM system.main.duckdb_functions() WHERE NOT internal",
    "SELECT 'trigger', schema_name, trigger_name, NULL FROM system.main.duckdb_triggers()",
)
_COMPUTED = """
SELECT 'column', table_name, column_name, column_default FROM system.main.duckdb_columns()
WHERE NOT internal AND column_default IS NOT NULL
UNION ALL
SELECT 'index', table_name, index_name, sql FROM system.main.duckdb_indexes()
UNION ALL
SELECT 'constraint', table_name, constraint_text, expression FROM system.main.duckdb_constraints()
WHERE expression IS NOT NULL
"""
_BUILTIN_VIEWS = """
SELECT view_name FROM system.main.duckdb_views() WHERE internal AND schema_name <> 'information_schema'
"""
"""Those that are found without a schema."""


@dataclass(frozen=True)
class _Object:
    """Something that a store defines."""

    kind: str
    parent: str
    """Its schema; the table of a column or an index."""
    name: str
    sql: str | None


def check_definitions(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise unless nothing runs by itself and nothing takes the place of what DuckDB has.

    Raises:
        StoreError: The store defines a macro, a trigger, or a table or view named like one of DuckDB's own.
    """
    for sql in _RUNNING_BY_THEMSELVES:
        for each in _objects(connection, sql):
            raise _refused(path, each, "emergraph creates none, and it would run SQL that someone else wrote")
    relations = _objects(connection, _RELATIONS)
    builtin = _names(connection, relations).builtin
    for each in relations:
        if each.name.lower() in builtin:
            raise _refused(path, each, "DuckDB has one of that name itself")


def check_views(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise unless the views of the schema are those that emergraph makes.

    Raises:
        StoreError: A view is missing, or is defined in another way.
    """
    shipped = shipped_views()
    found = {each.name: each for each in _objects(connection, _RELATIONS) if _is_in(each, shipped)}
    for name, expected in shipped.items():
        if name not in found or not _is_same(found[name].sql or "", expected):
            raise StoreError(
                f"{printable(str(path))}: damaged, view {name} is not emergraph's own; restore it "
                "from a copy or export the model again"
            )


def check_foreign(connection: duckdb.DuckDBPyConnection, path: Path) -> Names:
    """Return the names that SQL of a user can refer to, if no definition reaches further than the store.

    Raises:
        StoreError: A view, or what a column, an index or a constraint computes, asks for what it may not.
    """
    relations = _objects(connection, _RELATIONS)
    names = _names(connection, relations)
    shipped = shipped_views()
    for each in (*relations, *_objects(connection, _COMPUTED)):
        if not _is_in(each, shipped):
            _check_foreign(path, each, names)
    return names


def known_names(connection: duckdb.DuckDBPyConnection) -> Names:
    """Return the names that SQL of a user can refer to where this program itself has defined everything."""
    return _names(connection, _objects(connection, _RELATIONS))


def _is_in(each: _Object, shipped: Mapping[str, str]) -> bool:
    return each.kind == "view" and each.parent == "main" and each.name in shipped


def _objects(connection: duckdb.DuckDBPyConnection, sql: str) -> list[_Object]:
    return [_Object(*row) for row in connection.execute(sql).fetchall()]


def _names(connection: duckdb.DuckDBPyConnection, relations: Sequence[_Object]) -> Names:
    return Names(
        tables=frozenset(each.name.lower() for each in relations),
        builtin=frozenset(str(row[0]).lower() for row in connection.execute(_BUILTIN_VIEWS).fetchall()),
    )


@cache
def shipped_views() -> dict[str, str]:
    """Return the views of the schema by name, in the words in which DuckDB shows them.

    They are a file, because DuckDB takes longer to make them than to answer most questions.
    """
    text = resources.files("emergraph.graphstore").joinpath("schema_views.sql").read_text(encoding="utf-8")
    return {statement.split()[2]: statement for statement in text.splitlines()}


def foreign_views(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Return the views that somebody else has made, in lower case."""
    rows = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    return frozenset(str(name).lower() for (name,) in rows if name not in shipped_views())


def _is_same(view: str, expected: str) -> bool:
    if view == expected:
        return True
    found, wanted = _VIEW.fullmatch(view), _VIEW.fullmatch(expected)
    if found is None or wanted is None or found["columns"]:
        return False
    # another version of DuckDB may write the same view in other words
    return same(parse(found["body"]), parse(wanted["body"]))


def _check_foreign(path: Path, each: _Object, names: Names) -> None:
    """Check the SQL of a view, or of what a column, an index or a constraint computes.

    Raises:
        StoreError: It reaches further than the store, or cannot be read.
    """
    try:
        if each.sql is not None:
            check(parse(_query(each.kind, each.sql)), names)
    except UsageError as error:
        raise _refused(path, each, str(error).removeprefix("sql: ").split(";")[0]) from error


def _query(kind: str, sql: str) -> str:
    """The part of a definition that can ask for something, as a query; nothing where it cannot be told."""
    pattern = {"view": _VIEW, "index": _INDEX}.get(kind)
    if pattern is None:
        return f"SELECT ({sql}\n)"
    found = pattern.fullmatch(sql)
    if found is None:
        return ""
    return found["body"] if kind == "view" else f"SELECT {found['body']}"


def _refused(path: Path, each: _Object, why: str) -> StoreError:
    name = printable(each.name, limit=60)
    known = f"{each.kind} {name}"
    if each.kind in {"column", "constraint"}:
        known += f" of table {printable(each.parent, limit=60)}"
    return StoreError(
        f"{printable(str(path))}: defines the {known}: {why}; drop it with a DuckDB client, or get the "
        "store from a source that you trust"
    )
