"""`emergraph convert`: a graph for other tools."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from emergraph.analysis.view import View
from emergraph.api.conversions import FORMATS
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import FolderOutput, emit
from emergraph.cli.storeargs import GraphChoice, ModelChoice, StorePath
from emergraph.errors import UsageError
from emergraph.options import FileRole
from emergraph.outputs import check_output

LAKE = "lake"
_FORMATS = "; ".join([*(f"{name} ({form.about})" for name, form in FORMATS.items()), f"{LAKE} (a folder)."])
_LIMITED = ", ".join(
    f"{form.max_edges // 10**6} M for {name}" for name, form in FORMATS.items() if form.max_edges
)


@command(
    examples="""
    emergraph convert net.duckdb --to graphml
    emergraph convert net.duckdb --to lake --out lake
    emergraph convert net.duckdb --graph vad --to parquet --target edges
    emergraph convert net.duckdb --to model-explorer --target net-layers
    """,
    limits=LONG,
)
def convert(  # noqa: PLR0913 - a parameter for each group of options
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
        typer.Option(min=0, help=f"Maximum number of edges.  [default: {_LIMITED}, else none]"),
    ] = None,
    edges: Annotated[
        bool,
        typer.Option("--edges", help="Of a lake: also the edges that stay in the model file (--model)."),
    ] = False,
    output: FolderOutput,
) -> None:
    """Write a graph for other tools, or graphs with all of their tables into a lake.

    A lake takes all graphs of the store, or that of --graph, with traces, runs and results; what is there
    already stays.
    """
    from emergraph import api

    if to == LAKE:
        if (output.out is None) == (target is None) or max_edges is not None:
            raise UsageError("--to lake needs its folder, --out FOLDER, and takes no --max-edges")
        place, output = output.out or target or Path(), replace(output, out=None)
        with model.given(links):
            rows = api.open_store(store).lake(place, graph, edges=edges)
        emit(_lake_view(rows, place), output)
        return
    if edges:
        raise UsageError("--edges goes with --to lake; the other formats take all edges")
    if output.out is not None:
        check_output(output.out)
    chosen = api.open_graph(store, graph)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in chosen.name).lstrip(".") or "graph"
    place = target or Path(f"{name}{FORMATS[to].suffix if to in FORMATS else ''}")
    with model.given(links):
        n_edges = chosen.convert(place, to, max_edges=max_edges)
    facts = {"graph": chosen.name, "format": to, "target": str(place), "edges": n_edges}
    emit(View(facts=facts, document=facts), output)


def _lake_view(rows: pl.DataFrame, place: Path) -> View:
    """How many graphs are new in the lake, and how to ask it."""
    new = rows.filter(pl.col("files") > 0).height
    shown = shlex.quote(str(place))
    return View(
        finding=f"{rows.height} graphs are in {place}, {new} of them new or with new results: "
        f'emergraph sql {shown} "FROM graphs"',
        rows=rows,
        document={"lake": str(place), "graphs": rows.to_dicts()},
    )
