"""Result tables: each analysis registers its own, and the store makes it when the first run needs it."""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from emergraph.errors import StoreError
from emergraph.graphstore.sql import compose, identifier

if TYPE_CHECKING:  # analyses declare their tables without loading what reads them
    import duckdb
    import polars as pl

    PolarsType = pl.DataType | type[pl.DataType]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TYPES = frozenset(
    {"BOOLEAN", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR", "DOUBLE[]", "INTEGER[]", "VARCHAR[]"}
)


@dataclass(frozen=True)
class Column:
    """A column of a result table."""

    name: str
    type: str
    """DuckDB type: BOOLEAN, INTEGER, BIGINT, FLOAT, DOUBLE, VARCHAR, DOUBLE[], INTEGER[] or VARCHAR[]."""
    comment: str
    """Meaning, with unit and range."""


@dataclass(frozen=True)
class ResultTable:
    """A table that holds the results of an analysis; the store puts the column `run` before the others."""

    name: str
    comment: str
    """What one row is, such as "One row per threshold of a sweep."."""
    columns: tuple[Column, ...]

    @property
    def schema(self) -> "dict[str, PolarsType]":
        """Columns as polars types: what a frame of its rows is made with."""
        return {column.name: _polars_types()[column.type] for column in self.columns}


@cache
def _polars_types() -> "dict[str, PolarsType]":
    import polars as pl

    single: dict[str, PolarsType] = {
        "BOOLEAN": pl.Boolean,
        "INTEGER": pl.Int32,
        "BIGINT": pl.Int64,
        "FLOAT": pl.Float32,
        "DOUBLE": pl.Float64,
        "VARCHAR": pl.String,
    }
    return single | {f"{name}[]": pl.List(single[name]) for name in ("DOUBLE", "INTEGER", "VARCHAR")}


_registered: dict[str, ResultTable] = {}


def register(table: ResultTable) -> ResultTable:
    """Make a result table known, when the module that fills it is imported; return it.

    Raises:
        ValueError: A name is not lower-case letters, digits and underscores, a type is unknown, or another
            table has the name.

    Example:
        >>> _ = register(ResultTable("demo", "One row per demo.", (Column("score", "DOUBLE", "In [0, 1]."),)))
        >>> registered("demo").columns[0].name
        'score'
    """
    _check(table)
    if _registered.get(table.name, table) != table:
        raise ValueError(f"result table {table.name!r}: registered before with other columns")
    return _registered.setdefault(table.name, table)


def _check(table: ResultTable) -> None:
    """Raise ValueError when a name or a type is not one that result tables have."""
    names = [table.name, *(column.name for column in table.columns)]
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        raise ValueError(f"result table {table.name!r}: name {bad[0]!r} is not lower-case letters and digits")
    if "run" in names or len(set(names[1:])) != len(names) - 1:
        raise ValueError(f"result table {table.name!r}: a column repeats or is called run")
    if bad := [column.type for column in table.columns if column.type not in _TYPES]:
        raise ValueError(f"result table {table.name!r}: type {bad[0]!r}, expected one of {sorted(_TYPES)}")


def registered(name: str) -> ResultTable:
    """Return a registered result table.

    Raises:
        KeyError: There is none of that name.
    """
    return _registered[name]


def registered_tables() -> tuple[ResultTable, ...]:
    """Return the result tables of the analyses that are imported."""
    return tuple(_registered.values())


def ensure_table(connection: "duckdb.DuckDBPyConnection", table: ResultTable) -> None:
    """Make the table in the store when it is missing; add the columns that an older version did not have.

    Raises:
        ValueError: The store itself has a table or view of that name.
    """
    if table.name in _own_tables() | {"edges", "unit_activations"}:
        raise ValueError(f"result table {table.name!r}: the name is taken")
    present = result_columns(connection, table.name)
    if not present:
        columns = "".join(f', "{column.name}" {column.type}' for column in table.columns)
        connection.execute(f'CREATE TABLE "{table.name}" (run INTEGER NOT NULL{columns})')
        _comment(connection, f'TABLE "{table.name}"', table.comment)
        _comment(connection, f'COLUMN "{table.name}".run', "runs.id.")
    for column in table.columns:
        if present and column.name not in present:
            connection.execute(f'ALTER TABLE "{table.name}" ADD COLUMN "{column.name}" {column.type}')
        if column.name not in present:
            _comment(connection, f'COLUMN "{table.name}"."{column.name}"', column.comment)


_WITH_NEW_COLUMNS = "CREATE OR REPLACE TEMP VIEW {table} AS SELECT *, {added} FROM {store}.main.{table}"


def show_new_columns(connection: "duckdb.DuckDBPyConnection") -> None:
    """Show result tables that an older version filled with the columns that they have now, which are NULL.

    For connections that read: a temporary view stands for each of them, and the store stays as it is.
    """
    for table in registered_tables():
        present = result_columns(connection, table.name)
        missing = [column for column in table.columns if column.name not in present]
        if not present or not missing:
            continue
        added = ", ".join(f"NULL::{column.type} AS {identifier(column.name)}" for column in missing)
        store = identifier(str(connection.execute("SELECT current_database()").fetchall()[0][0]))
        names = {"table": identifier(table.name), "store": store, "added": added}
        connection.execute(compose(_WITH_NEW_COLUMNS, **names))


def result_columns(connection: "duckdb.DuckDBPyConnection", table: str) -> list[str]:
    """Return the columns of a table of the store in order; empty when there is no such table."""
    rows = connection.execute(
        """
        SELECT column_name FROM duckdb_columns()
        WHERE table_name = ? AND NOT internal AND database_name = current_database() ORDER BY column_index
        """,
        [table],
    ).fetchall()
    return [row[0] for row in rows]


def ensure_like(source: "duckdb.DuckDBPyConnection", target: "duckdb.DuckDBPyConnection", name: str) -> None:
    """Make a result table of one store in another, with the same columns and comments.

    Raises:
        StoreError: The table is not one that this project makes.
    """
    rows = source.execute(
        """
        SELECT c.column_name, c.data_type, c.comment, t.comment
        FROM duckdb_columns() AS c JOIN duckdb_tables() AS t USING (table_name)
        WHERE table_name = ? ORDER BY c.column_index
        """,
        [name],
    ).fetchall()
    columns = tuple(Column(column, kind, comment or "") for column, kind, comment, _ in rows[1:])
    table = ResultTable(name, rows[0][3] or "", columns)
    try:
        _check(table)
        ensure_table(target, table)
    except ValueError as error:
        raise StoreError(f"a store from elsewhere: {error}; it cannot be copied") from error


def result_table_names(connection: "duckdb.DuckDBPyConnection") -> list[str]:
    """Return the names of the result tables that the store holds."""
    rows = connection.execute(
        """
        SELECT table_name FROM duckdb_columns()
        WHERE column_index = 1 AND column_name = 'run' AND NOT internal
        ORDER BY table_name
        """
    ).fetchall()
    own = _own_tables()
    return [row[0] for row in rows if row[0] not in own]


def _own_tables() -> frozenset[str]:
    from emergraph.graphstore.schema import base_tables

    return base_tables()


def _comment(connection: "duckdb.DuckDBPyConnection", what: str, text: str) -> None:
    quoted = text.replace("'", "''")
    connection.execute(f"COMMENT ON {what} IS '{quoted}'")
