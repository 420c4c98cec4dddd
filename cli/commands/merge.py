"""`emergraph merge`: put the graphs of another store into this one."""

from pathlib import Path
from typing import Annotated

import typer

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import StorePath


@command(
    examples="""
    emergraph merge net.duckdb other.duckdb
    """,
    limits=LONG,
)
def merge(
    store: StorePath,
    other: Annotated[
        Path, typer.Argument(metavar="OTHER", help="The store whose graphs are copied; it is not changed.")
    ],
    *,
    output: Output,
) -> None:
    """Copy all graphs of another store, with their traces and runs, into a store.

    A graph whose name is taken gets a number behind it.
    """
    import polars as pl

    from emergraph import api

    target = api.open_store(store)
    added = target.merge(other)
    rows = target.graphs.filter(pl.col("id").is_in(list(added.values()))).select("id", "name", "n_edges")
    emit(View(rows=rows), output)
