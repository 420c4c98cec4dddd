"""Tables that fit a terminal: no number is broken, headings fold, and columns without room go on below."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

GAP = 3
"""Cells that rich puts around and between two columns."""

TEXT_WIDTH = 20
"""Cells that a column of text may be folded to."""


@dataclass(frozen=True)
class TextColumn:
    """A column as a person reads it."""

    name: str
    cells: Sequence[str]
    right: bool
    """Numbers: aligned to the right, never folded."""

    @property
    def width(self) -> int:
        """Terminal cells that it takes as it is."""
        return max(map(cell_len, (self.name, *self.cells)))

    @property
    def least(self) -> int:
        """Terminal cells that it takes with its heading folded, and its cells, too, if they are text."""
        widest = max(map(cell_len, self.cells), default=0)
        return max(widest if self.right else min(widest, TEXT_WIDTH), *map(cell_len, _pieces(self.name)))


class FittedTable:
    """Rows on a terminal; where all columns together are too wide, the first one is repeated."""

    def __init__(self, columns: Sequence[TextColumn]) -> None:
        self._columns = columns

    def __rich_console__(self, _console: "Console", options: "ConsoleOptions") -> Iterator[Table]:
        """Yield the table, or one table per group of columns that fits."""
        whole = sum(column.width + GAP for column in self._columns) <= options.max_width
        groups = [list(self._columns)] if whole else column_groups(self._columns, options.max_width)
        for group in groups:
            table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
            for column in group:
                table.add_column(
                    Text(column.name if whole else folded(column.name, column.least)),
                    justify="right" if column.right else "left",
                    overflow="fold",
                    no_wrap=column.right,
                )
            for row in zip(*(column.cells for column in group), strict=True):
                table.add_row(*map(Text, row))
            yield table


def column_groups(columns: Sequence[TextColumn], width: int) -> list[list[TextColumn]]:
    """Return the columns in groups that fit a width; all groups but the first begin with the first column.

    Args:
        columns: All columns.
        width: Cells of the terminal; a single column may be wider.

    Example:
        >>> a, b, c = (TextColumn(name, ["1" * 10], right=True) for name in "abc")
        >>> [[one.name for one in group] for group in column_groups([a, b, c], 30)]
        [['a', 'b'], ['a', 'c']]
    """
    first = columns[0]
    groups, room = [[first]], width - first.least - GAP
    for column in columns[1:]:
        if column.least + GAP > room and groups[-1] != [first]:
            groups.append([first])
            room = width - first.least - GAP
        groups[-1].append(column)
        room -= column.least + GAP
    return groups


def folded(name: str, width: int) -> str:
    r"""Return a heading in lines of at most `width` cells, broken behind underscores, where it has any.

    Example:
        >>> folded("log10_path_norm_l1", 11)
        'log10_path_\nnorm_l1'
    """
    lines = [""]
    for piece in _pieces(name):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _pieces(name: str) -> list[str]:
    return re.findall(r"[^_ ]+[_ ]*|[_ ]+", name) or [name]
