"""Arguments that many commands share: the store and the choice of a graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from emergraph.options import FileRole

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The store, a DuckDB file.")]

AnyName = Annotated[
    bool, typer.Option("--any-name", help="Allow a new store whose name does not end in .duckdb or .db.")
]

GraphChoice = Annotated[
    str | None,
    typer.Option("--graph", metavar="NAME|ID", help="The graph, by name or id.  [default: the newest]"),
]


@dataclass(frozen=True, kw_only=True)
class ResultStore:
    """Where a result is kept, besides being shown."""

    store: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Keep the result in this store, which is created if missing."),
        FileRole.STORES,
    ] = None
    any_name: AnyName = False


def name_or_id(text: str | None) -> str | int | None:
    """Return what a user gave for a trace: a number is an id."""
    return int(text) if text is not None and text.isdecimal() else text
