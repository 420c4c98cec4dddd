"""`emergraph convert`: a graph for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, ModelChoice, StorePath
from emergraph.options import FileRole

SUFFIXES = {"graphml": ".graphml", "parquet": "", "edgelist": ".txt", "attribution-graph": ".circuit"}
_FORMATS = "graphml, parquet (a folder), edgelist, or attribution-graph (a folder: the newest circuit)."


@command(
    examples="""
    emergraph convert net.duckdb --to graphml
    emergraph convert net.duckdb --graph vad --to parquet --target edges
    """,
    limits=LONG,
)
def convert(
    store: StorePath,
    *,
    to: Annotated[str, typer.Option(metavar="FORMAT", help=_FORMATS)],
    target: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What to write; must not exist.  [default: the graph's name]"),
        FileRole.MAKES,
    ] = None,
    graph: GraphChoice = None,
    model: ModelChoice,
    links: Links,
    max_edges: Annotated[
        int | None,
        typer.Option(min=0, help="Maximum number of edges.  [default: 5 M for graphml, else none]"),
    ] = None,
    output: Output,
) -> None:
    """Write a graph as GraphML, Parquet or an edge list."""
    from emergraph import api

    chosen = api.open_graph(store, graph)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in chosen.name).lstrip(".") or "graph"
    place = target or Path(f"{name}{SUFFIXES.get(to, '')}")
    with model.given(links):
        n_edges = chosen.convert(place, to, max_edges=max_edges)
    facts = {"graph": chosen.name, "format": to, "target": str(place), "edges": n_edges}
    emit(View(facts=facts, document=facts), output)
