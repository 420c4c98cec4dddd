"""`emergraph sql`: one SELECT on a store, read-only and under limits."""

import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.output import Output, View, emit
from emergraph.cli.parsing import parse_bytes, parse_seconds
from emergraph.cli.storeargs import StorePath


@dataclass(frozen=True, kw_only=True)
class QueryChoices:
    """What the query may take."""

    rows: Annotated[int, typer.Option(min=0, help="Rows of the result; more are cut off, with a note.")] = (
        10_000
    )
    time_limit: Annotated[str, typer.Option(metavar="TIME", help="Wall clock, such as 90s or 10m.")] = "60s"
    memory_limit: Annotated[str, typer.Option(metavar="SIZE", help="Memory, such as 8GiB.")] = "2GiB"


@command(
    examples="""
    emergraph sql net.duckdb "SELECT kind, count(*) AS n FROM edges GROUP BY kind"
    emergraph sql net.duckdb "FROM layers" --format csv --out layers.csv
    emergraph sql net.duckdb - < question.sql
    """
)
def sql(
    store: StorePath,
    query: Annotated[
        str,
        typer.Argument(metavar="QUERY", help="One SELECT statement; - reads it from stdin."),
    ],
    *,
    limits: QueryChoices,
    output: Output,
) -> None:
    """Run one SELECT statement on a store.

    It cannot write, reach other files or change settings, and it stops at its limits.
    """
    from emergraph.graphstore.query import QueryLimits, run_query

    text = sys.stdin.read() if query == "-" else query
    result = run_query(
        store,
        text,
        limits=QueryLimits(
            time=parse_seconds(limits.time_limit),
            memory=parse_bytes(limits.memory_limit),
            rows=limits.rows,
        ),
    )
    notes = [f"only the first {limits.rows} rows are shown; --rows N takes more"] if result.truncated else []
    emit(View(rows=result.frame, notes=notes), output)
