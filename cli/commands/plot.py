"""`emergraph plot`: one figure as a file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from emergraph.atomic import write_atomically
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit, say
from emergraph.cli.storeargs import GraphChoice, StorePath
from emergraph.errors import UsageError
from emergraph.options import FileRole


class Image(StrEnum):
    """What a figure is written as."""

    SVG = "svg"
    PNG = "png"
    HTML = "html"


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
    from emergraph.analysis.figures.reading import require_figure
    from emergraph.analysis.figures.rendering import ImageFormat, render
    from emergraph.analysis.registry import known_to
    from emergraph.graphstore.store import open_store

    talk = Output(quiet=quiet)
    if figure == "list":
        _list(store, graph, talk)
        return
    target = out or Path(f"{figure}.svg")
    ending = target.suffix.lower().removeprefix(".")
    if ending not in set(Image):
        raise UsageError(f"--out {target.name}: expected a name that ends in .svg, .png or .html")
    with open_store(store) as opened:
        known = known_to(opened.connection)
        for line in known.problems:
            say(f"Note: {line}", talk)
        chosen = known.figure(figure)
        data = require_figure(opened.graph(graph), chosen)
    image = render(data.chart(), ImageFormat(ending))
    write_atomically(target, image, then=lambda: say(f"Wrote {target}", talk))


def _list(store: Path, graph: str | None, output: Output) -> None:
    """Print which figures there are, and which of them have data."""
    import polars as pl

    from emergraph.analysis.figures.reading import read_figure
    from emergraph.analysis.registry import known_to
    from emergraph.analysis.view import View
    from emergraph.graphstore.store import open_store

    with open_store(store) as opened:
        reader, known = opened.graph(graph), known_to(opened.connection)
        rows = [
            {
                "figure": figure.name,
                "shows": figure.title,
                "state": "ready" if read_figure(reader, figure) else f"needs {figure.command}",
            }
            for figure in known.figures()
        ]
    emit(View(rows=pl.DataFrame(rows), notes=known.problems), output)
