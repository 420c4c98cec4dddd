"""Arguments that many commands share: the store and the choice of a graph."""

from pathlib import Path
from typing import Annotated

import typer

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The store, a DuckDB file.")]

GraphChoice = Annotated[
    str | None,
    typer.Option("--graph", metavar="NAME|ID", help="The graph, by name or id.  [default: the newest]"),
]


def name_or_id(text: str | None) -> str | int | None:
    """Return what a user gave for a trace: a number is an id."""
    return int(text) if text is not None and text.isdecimal() else text
