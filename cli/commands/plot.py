"""`emergraph plot`: one figure as a file."""

from pathlib import Path
from typing import Annotated

import typer

from emergraph.analysis.view import View
from emergraph.atomic import write_atomically
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit, say
from emergraph.cli.storeargs import GraphChoice, StorePath
from emergraph.options import FileRole


@command(
    examples="""
    emergraph plot net.duckdb emergence-sweep
    emergraph plot net.duckdb percolation --graph vad --out percolation.png
    emergraph plot net.duckdb layers --out map.html
    """,
    limits=LONG,
)
def plot(
    store: StorePath,
    figure: Annotated[
        str,
        typer.Argument(
            metavar="FIGURE",
            help="layers, emergence-sweep, pruning, percolation, landscape-plane, ...; `list` names all.",
        ),
    ] = "list",
    *,
    graph: GraphChoice = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file whose name ends in .svg, .png or .html.  [default: the figure's name, SVG]",
        ),
        FileRole.WRITES,
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Draw a figure from what the store holds; without a figure, list those that it can draw."""
    del debug  # `main` looks at it
    from emergraph.api.figures import figure_bytes, figure_chart, figure_list, image_of
    from emergraph.graphstore.store import open_store

    talk = Output(quiet=quiet)
    if figure == "list":
        with open_store(store) as opened:
            rows, problems = figure_list(opened.graph(graph))
        emit(View(rows=rows, notes=problems), talk)
        return
    target = out or Path(f"{figure}.svg")
    image_of(target)  # before any work
    with open_store(store) as opened:
        chart, problems = figure_chart(opened.graph(graph), figure)
    for line in problems:
        say(f"Note: {line}", talk)
    image = figure_bytes(chart, target)
    write_atomically(target, image, then=lambda: say(f"Wrote {target}", talk))
