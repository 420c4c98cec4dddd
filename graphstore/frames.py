"""Between DuckDB, Arrow, numpy and polars."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from emergraph.errors import StoreError
from emergraph.graphstore.arrowstream import ArrowStream
from emergraph.graphstore.connection import database_path, translate
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import printable

if TYPE_CHECKING:  # commands that only show tables start without them
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_CHUNK = "emergraph_chunk"
_TIMES = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""Microseconds from 1970 to the first and the last moment that Python knows."""


def fetch_table(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()
) -> "pa.Table":
    """Run a query and return its rows as an Arrow table."""
    with _translated(connection):
        return _relation(connection, sql, parameters).to_arrow_table()


def fetch_batches(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = (), *, rows: int
) -> "Iterator[pa.RecordBatch]":
    """Run a query and yield its rows, at most `rows` at a time, in the order in which they are stored."""
    yield from _relation(connection, sql, parameters).to_arrow_reader(rows)


def fetch_frame(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()
) -> pl.DataFrame:
    """Run a query and return its rows as a polars frame.

    Raises:
        StoreError: A time is outside the years 1 to 9999, or a list of numbers has a gap: no program of this
            project has written that.
    """
    with _translated(connection):
        # rows that are complete before polars sees them: an error in between would come from there
        frame = pl.DataFrame(ArrowStream(_relation(connection, sql, parameters).materialize()))
    for column in frame.select(pl.selectors.datetime()):
        ticks = column.cast(pl.Datetime("us")).to_physical()
        if not ticks.is_between(*_TIMES).all():
            raise damaged(connection, f"{column.name} holds a time outside the years 1 to 9999")
    for column in frame.select(pl.selectors.list(pl.selectors.integer())):
        if column.list.eval(pl.element().is_null()).list.any().any():
            raise damaged(connection, f"{column.name} holds a list with nothing in the place of a number")
    return frame


def fetch_counted(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object]
) -> pl.DataFrame:
    """`fetch_frame` of a table of this project, in which integers called `n_...` are counts.

    Raises:
        StoreError: As `fetch_frame`; or a count is negative, or there are more zeros than parameters.
    """
    frame = fetch_frame(connection, sql, parameters)
    for column in frame.select(pl.selectors.integer() & pl.selectors.starts_with("n_")):
        if (column < 0).any():
            raise damaged(connection, f"{column.name} holds {column.min()!r}, a count")
    if {"n_zeros", "n_params"} <= set(frame.columns) and (frame["n_zeros"] > frame["n_params"]).any():
        raise damaged(connection, "n_zeros holds more than n_params")
    return frame


def damaged(connection: duckdb.DuckDBPyConnection, what: str) -> StoreError:
    """Return the error that says what of an open store no program of this project has written."""
    shown = printable(str(database_path(connection)))
    return StoreError(f"{shown}: damaged, {what}; restore it from a copy or export the model again")


def _relation(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object]
) -> duckdb.DuckDBPyRelation:
    relation = connection.sql(sql, params=list(parameters))
    if relation is None:
        raise ValueError(f"not a query: {sql}")
    return relation


@contextlib.contextmanager
def _translated(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, database_path(connection)) from error


def fetch_arrays(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()
) -> "dict[str, NDArray[np.generic]]":
    """Run a query over numeric columns and return one array per column; NULL becomes NaN in float columns."""
    frame = fetch_frame(connection, sql, parameters)
    return {column.name: column.to_numpy() for column in frame}


def insert(
    connection: duckdb.DuckDBPyConnection,
    rows: "pa.Table",
    sql: str,
    *,
    parameters: object = None,
    **parts: str | int,
) -> int:
    """Run an INSERT that reads `rows`; return how many rows went in.

    Args:
        connection: Where to insert.
        rows: The rows that travel.
        sql: INSERT statement with `{chunk}` where the rows are named.
        parameters: Values of the statement's parameters.
        parts: What fills the other placeholders, see `compose`.
    """
    connection.register(_CHUNK, rows)
    try:
        statement = compose(sql, chunk=_CHUNK, **parts)
        inserted = connection.execute(statement, parameters).fetchall()[0][0]
    except BaseException:
        # An aborted transaction takes no statement, not even this one: the first error is the one to show.
        with contextlib.suppress(duckdb.Error):
            connection.unregister(_CHUNK)
        raise
    connection.unregister(_CHUNK)
    return int(inserted)


def append(
    connection: duckdb.DuckDBPyConnection, rows: "pa.Table", table: str, expressions: str, condition: str = ""
) -> None:
    """Append rows to a table, computed from `rows`, and let go of them at once.

    What is registered for a statement, as `insert` does, stays in memory until the transaction ends.

    Args:
        connection: Where to append.
        rows: The rows that travel.
        table: Whose columns the expressions fill, in order.
        expressions: SQL over the columns of `rows`.
        condition: SQL that picks rows; all of them by default.
    """
    relation = connection.from_arrow(rows)
    if condition:
        relation = relation.filter(condition)
    relation.project(expressions).insert_into(table)


def element_type(name: str) -> "np.dtype[np.generic] | None":
    """Return the numpy type of a stored tensor; None when its elements are not numbers (strings, objects)."""
    import numpy as np

    try:
        found = np.dtype(name)
    except TypeError:
        return _extended_type(name)
    return found if found.kind in "biufc" else _extended_type(name)


def _extended_type(name: str) -> "np.dtype[np.generic] | None":
    """A type of numbers that numpy has not, such as bfloat16."""
    import ml_dtypes
    import numpy as np

    found = getattr(ml_dtypes, name, None)
    return np.dtype(found) if isinstance(found, type) and issubclass(found, np.generic) else None
