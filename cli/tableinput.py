"""The table that a command reads, and what was guessed of it."""

from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.cli.limits import doing
from emergraph.cli.output import Output, say
from emergraph.optionforms import TableForm

if TYPE_CHECKING:
    import polars as pl


def read_input_table(path: Path, form: TableForm, output: Output) -> "pl.DataFrame":
    """Read a table, and say what was guessed."""
    from emergraph.analysis.tablefile import read_table

    with doing(f"reading {path.name}"):
        table = read_table(path, separator=form.separator)
    for note in table.notes:
        say(note, output)
    return table.frame
