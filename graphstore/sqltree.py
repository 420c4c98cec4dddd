"""SQL as DuckDB's parser reads it, held against what SQL on a store may do.

The parsed statement is the only thing looked at, never its text: names arrive unquoted, and comments, escapes
and layout play no part. Everything is allowed by name (`sandbox_functions.txt`) or by kind; what is unknown
is refused. The parser runs in a connection of its own to an empty database, where no store has defined
anything.
"""

import contextlib
import difflib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import duckdb

from emergraph.errors import UsageError
from emergraph.graphstore.text import printable

Tree = dict[str, Any]

_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""Kinds of statement, wherever they stand; INSERT and its kin can stand in a WITH."""
_SOURCES = frozenset(
    {
        *("BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT"),
        "SHOW_REF",
    }
)
"""Kinds of what can stand behind FROM."""
_EXPRESSIONS = frozenset(
    {
        *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"),
        *("DEFAULT", "FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE"),
        *("STAR", "SUBQUERY", "TYPE", "WINDOW"),
    }
)
_SHOWN = frozenset({"databases", "schemas", "tables", "__show_tables_expanded"})
"""What SHOW lists of a store beside its tables."""

_PARSER: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoload_known_extensions": False,
    "threads": 1,
}


@dataclass(frozen=True)
class Allowed:
    """The names that SQL on a store may use."""

    functions: frozenset[str]
    table_functions: frozenset[str]
    views: frozenset[str]
    """Of DuckDB itself, without their schemas."""


@cache
def allowed_names() -> Allowed:
    """Return what `sandbox_functions.txt` lists."""
    text = resources.files("emergraph.graphstore").joinpath("sandbox_functions.txt").read_text("utf-8")
    sections: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in text.splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), set())
        elif not line.startswith("#"):
            current.update(line.split())
    table_functions, views = sections.pop("table"), sections.pop("view")
    return Allowed(
        functions=frozenset().union(*sections.values()),
        table_functions=frozenset(table_functions),
        views=frozenset(views),
    )


@dataclass(frozen=True)
class Names:
    """The names that a statement can refer to, in lower case."""

    tables: frozenset[str]
    """Tables and views of the store."""
    builtin: frozenset[str]
    """Views of DuckDB itself, those that are not allowed included."""
    allowed: Allowed = field(default_factory=allowed_names)


def parse(sql: str) -> Tree:
    """Return the one SELECT statement that `sql` is, as the parser reads it.

    Raises:
        UsageError: It is not SQL, something else than a SELECT, none or several.
    """
    with contextlib.closing(duckdb.connect(":memory:", config=_PARSER)) as connection:
        try:
            kinds = [statement.type for statement in connection.extract_statements(sql)]
        except duckdb.Error as error:
            raise UsageError(f"sql: {one_line(str(error))}") from error
        if kinds != [duckdb.StatementType.SELECT]:
            found = ", ".join(kind.name for kind in kinds) or "nothing"
            raise UsageError(f"sql: expected one SELECT statement, found {found}")
        text = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0]
    try:
        tree: Tree = json.loads(text)
    except RecursionError:
        raise UsageError("sql: nested too deeply") from None
    if tree.get("error"):
        raise UsageError(f"sql: {one_line(str(tree.get('error_message')))}")
    return tree


def check(tree: Tree, names: Names) -> None:
    """Raise unless a statement stays within a store.

    Raises:
        UsageError: It uses a function, a table or a form of SQL that is not allowed or does not exist; the
            message names it.
    """
    nodes = list(_nodes(tree))
    own = {str(name).lower() for node in nodes for name in _own_names(node)}
    if taken := sorted(own & (names.builtin - names.allowed.views)):
        raise _refused(taken[0])
    for node in nodes:
        _check_node(node, names, own)


def names_in(tree: Tree) -> frozenset[str] | None:
    """Return what a statement names behind FROM, in lower case; None where it asks which tables there are."""
    nodes = list(_nodes(tree))
    listing = ("duckdb_", "pragma_", "sqlite_")
    names = {str(node.get("table_name", "")).lower() for node in nodes}
    called = {str(node["function"].get("function_name", "")) for node in nodes if _calls(node)}
    described = any(node.get("type") == "SHOW_REF" for node in nodes)
    catalog = any("information_schema" in map(str, node.values()) for node in nodes)
    if described or catalog or any(name.startswith(listing) for name in names | called):
        return None
    return frozenset(names - {""})


def _calls(node: Tree) -> bool:
    return node.get("type") == "TABLE_FUNCTION" and isinstance(node.get("function"), dict)


def one_line(text: str) -> str:
    """Return what DuckDB said without the drawing of the statement."""
    said, *_ = text.split("\n\nLINE ", maxsplit=1)
    return printable("; ".join(line.strip() for line in said.splitlines() if line.strip()), limit=400)


def same(tree: Tree, other: Tree) -> bool:
    """Return whether two statements are the same but for where their parts stand in the text."""
    return bool(_without_places(tree) == _without_places(other))


def _without_places(part: object) -> object:
    if isinstance(part, dict):
        return {name: _without_places(value) for name, value in part.items() if "location" not in name}
    if isinstance(part, list):
        return [_without_places(value) for value in part]
    return part


def _nodes(tree: object) -> Iterator[Tree]:
    """Yield every object of a parsed statement; of a function behind FROM, what it is called with only."""
    pending = [tree]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield current
            behind_from = current.get("type") == "TABLE_FUNCTION"
            for name, value in current.items():
                pending.append(list(value.values()) if behind_from and name == "function" else value)
        elif isinstance(current, list):
            pending.extend(current)


def _own_names(node: Tree) -> Iterator[object]:
    """Yield the names that WITH gives to results."""
    entries = node.get("cte_map")
    if isinstance(entries, dict):
        yield from (entry["key"] for entry in entries.get("map", []))
    if node.get("type") == "RECURSIVE_CTE_NODE":
        yield node["cte_name"]


def _check_node(node: Tree, names: Names, own: Collection[str]) -> None:
    kind = str(node.get("type", ""))
    if "class" in node:
        if node["class"] not in _EXPRESSIONS:
            raise _refused(str(node["class"]).lower())
        _check_function(node, names)
    elif kind.endswith("_NODE"):
        if kind not in _NODES:
            raise _refused(kind.removesuffix("_QUERY_NODE").removesuffix("_NODE"))
    elif "sample" in node and "alias" in node:
        if kind not in _SOURCES:
            raise _refused(kind.lower())
        _check_source(node, kind, names, own)
    elif "function_name" in node or "table_name" in node:
        raise _refused(str(node.get("function_name", node.get("table_name"))))


def _check_function(node: Tree, names: Names) -> None:
    name = str(node.get("function_name", "")).lower()
    if name and name not in names.allowed.functions:
        raise _refused(name, names.allowed.functions)


def _check_source(node: Tree, kind: str, names: Names, own: Collection[str]) -> None:
    name = str(node.get("table_name", ""))
    if kind == "TABLE_FUNCTION":
        function = node["function"]
        if function.get("class") != "FUNCTION":
            raise _refused(str(function.get("class")).lower())
        called = str(function["function_name"]).lower()
        if called not in names.allowed.table_functions:
            raise _refused(called, names.allowed.table_functions)
    elif kind == "BASE_TABLE":
        _check_table(name, names, own)
    elif kind == "SHOW_REF" and node.get("query") is None:
        special = node.get("show_type") == "SHOW_SPECIAL"
        if special and name.strip('"').lower() not in _SHOWN:
            raise _refused(f"SHOW {name}")
        if not special:
            _check_table(name, names, ())


def _check_table(name: str, names: Names, own: Collection[str]) -> None:
    lowered = name.lower()
    if lowered in own or lowered in names.tables or lowered in names.allowed.views:
        return
    if lowered in names.builtin:
        raise _refused(name)
    close = difflib.get_close_matches(lowered, sorted({*names.tables, *own}), n=1)
    meant = f'; Did you mean "{printable(close[0], limit=60)}"?' if close else ""
    raise UsageError(f"sql: Table with name {printable(name)} does not exist{meant}")


def _refused(name: str, known: Collection[str] = ()) -> UsageError:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    meant = f'; Did you mean "{close[0]}"?' if close else ""
    return UsageError(
        f"sql: {printable(name, limit=60)} is not available here; query the tables of the store{meant}"
    )
