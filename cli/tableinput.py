"""The table that a command reads: its options, and what was guessed of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.limits import doing
from emergraph.cli.output import Output, say

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class TableForm:
    """How a table is written."""

    separator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Between the fields of CSV: comma, semicolon, tab, pipe or a character.  [default: guessed]",
        ),
    ] = None

    def read(self, path: Path, output: Output) -> "pl.DataFrame":
        """Read a table, and say what was guessed."""
        from emergraph.analysis.tablefile import read_table

        with doing(f"reading {path.name}"):
            table = read_table(path, separator=self.separator)
        for note in table.notes:
            say(note, output)
        return table.frame
