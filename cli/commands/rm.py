"""`emergraph rm`: take a graph out of a store."""

from typing import Annotated

import typer

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import StorePath


@command(
    examples="""
    emergraph rm net.duckdb --graph digits_conv
    emergraph rm net.duckdb --graph 3 && emergraph compact net.duckdb
    """
)
def rm(
    store: StorePath,
    *,
    graph: Annotated[str, typer.Option("--graph", metavar="NAME|ID", help="The graph, by name or id.")],
    output: Output,
) -> None:
    """Remove a graph with its traces and runs from a store.

    Later graphs use the space that it leaves; `emergraph compact` returns it.
    """
    from emergraph import api

    name = api.open_store(store).rm(graph)
    emit(View(facts={"removed": name}, document={"removed": name}), output)
