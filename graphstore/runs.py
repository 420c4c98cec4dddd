"""Runs of analyses: what ran on which graph, with which parameters, and the rows it made."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import polars as pl

from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.graphstore.catalog import check_graph, next_id, to_json
from emergraph.graphstore.frames import fetch_frame, insert
from emergraph.graphstore.results import ensure_table, registered, result_table_names
from emergraph.graphstore.schema import utc_now
from emergraph.graphstore.sql import compose, identifier
from emergraph.version import __version__


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of an analysis."""

    graph: int | None
    """Graph that was analysed; None when it was not about one."""
    command: str
    parameters: Mapping[str, object]
    seed: int | None
    duration: float | None
    """Seconds."""


def record_run(
    connection: duckdb.DuckDBPyConnection, run: Run, result_tables: Mapping[str, pl.DataFrame]
) -> int:
    """Write a run and its results; return its id.

    Raises:
        KeyError: A result table is not registered.
        ValueError: A frame has not the columns of its table.
        UsageError: There is no such graph.
    """
    if run.graph is not None:
        check_graph(connection, run.graph)
    run_id = next_id(connection, "runs")
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            run_id,
            run.graph,
            run.command,
            to_json(run.parameters),
            run.seed,
            run.duration,
            list(result_tables),
            __version__,
            utc_now(),
        ],
    )
    for name, frame in result_tables.items():
        table = registered(name)
        expected = {column.name for column in table.columns}
        if set(frame.columns) != expected:
            raise ValueError(
                f"result table {name!r}: columns {sorted(frame.columns)}, not {sorted(expected)}"
            )
        ensure_table(connection, table)
        insert(
            connection,
            frame.to_arrow(),
            "INSERT INTO {table} BY NAME SELECT {run}::INTEGER AS run, * FROM {chunk}",
            table=identifier(name),
            run=run_id,
        )
    return run_id


def fetch_results(connection: duckdb.DuckDBPyConnection, table: str, run: int | None) -> pl.DataFrame:
    """Return the rows of a result table, of one run or all.

    Raises:
        UsageError: The store has no such result table.
    """
    names = result_table_names(connection)
    if table not in names:
        raise UsageError(unknown("result table", table, names))
    sql = compose(
        "SELECT * FROM {table} WHERE ?::INTEGER IS NULL OR run = ? ORDER BY run", table=identifier(table)
    )
    return fetch_frame(connection, sql, [run, run])
