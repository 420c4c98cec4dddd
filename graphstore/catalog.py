"""Which graphs a store holds: ids, names, and whether a file is there already."""

import json
import math
from collections.abc import Mapping, Sequence

import duckdb

from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import storable


def next_id(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Return the id that a new row of `table` gets."""
    sql = compose("SELECT coalesce(max(id), -1) + 1 FROM {table}", table=table)
    return int(connection.execute(sql).fetchall()[0][0])


def unique_name(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object], wanted: str
) -> str:
    """Return `wanted`, or the first of `wanted-2`, `wanted-3`, ... that `sql` does not select."""
    wanted = storable(wanted)
    taken = {row[0] for row in connection.execute(sql, list(parameters)).fetchall()}
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def graph_id(connection: duckdb.DuckDBPyConnection, name_or_id: str | int | None) -> int:
    """Return the id of the graph that a user means; a text of digits is an id when no graph has that name.

    Raises:
        UsageError: There is no such graph.
    """
    rows = connection.execute("SELECT id, name FROM graphs ORDER BY id").fetchall()
    if not rows:
        raise UsageError("the store holds no graph; `emergraph export MODEL STORE` writes one")
    if name_or_id is None:
        return int(rows[-1][0])
    by_name = {name: identifier for identifier, name in rows}
    if isinstance(name_or_id, str) and name_or_id in by_name:
        return int(by_name[name_or_id])
    if str(name_or_id).isdecimal() and int(name_or_id) in by_name.values():
        return int(name_or_id)
    newest_first = [f"{name} (id {number})" for number, name in reversed(rows)]
    raise UsageError(unknown("graph", name_or_id, newest_first))


def check_graph(connection: duckdb.DuckDBPyConnection, graph: int) -> int:
    """Return the number of units of a graph.

    Raises:
        UsageError: There is no graph with this id.
    """
    rows = connection.execute("SELECT n_units FROM graphs WHERE id = ?", [graph]).fetchall()
    if not rows:
        raise UsageError(f"no graph with id {graph} in the store")
    return int(rows[0][0])


def find_graph(
    connection: duckdb.DuckDBPyConnection, sha256: str, settings: Mapping[str, object] | None = None
) -> int | None:
    """Return the newest graph of a file with this checksum, and these settings if any; None for none."""
    wanted = None if settings is None else to_json(settings)
    rows = connection.execute(
        "SELECT max(id) FROM graphs WHERE sha256 = $1 AND ($2 IS NULL OR settings = $2)", [sha256, wanted]
    ).fetchall()
    return None if rows[0][0] is None else int(rows[0][0])


def to_json(values: Mapping[str, object]) -> str:
    """Return the canonical, valid JSON of a mapping: sorted keys, arrays as lists, other objects as text."""
    return storable(json.dumps(_plain(values), sort_keys=True, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):  # an array or a number of numpy, which is not needed to tell
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted(str(entry) for entry in value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN and no infinities
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
