"""Tables for people: aligned plain text, rich tables on a terminal, Markdown, and CSV for spreadsheets.

Every cell that came from a file passes through `emergraph.safetext` before it is shown.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from emergraph.cli.jsonform import plain
from emergraph.safetext import escape_controls, guard_formula, reveal_lookalikes, shorten

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console, ConsoleOptions, RenderableType


# Tables that fit a terminal: no number is broken, headings fold, and columns without room go on below.

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


CELL_WIDTH = 160
"""Longest text of a table cell; longer ones lose their middle. CSV, JSON and Parquet keep everything."""

Facts = Mapping[str, object]


def cell_text(value: object) -> str:
    """Return one value as a person reads it: floats with six digits, NULL as a dash, bytes counted."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    simple = value.isoformat(" ", "seconds") if isinstance(value, datetime) else plain(value)
    text = simple if isinstance(simple, str) else json.dumps(simple, ensure_ascii=False)
    return shorten(escape_controls(text), CELL_WIDTH)


def fact_text(value: object) -> str:
    """Return one value of a summary line; whole numbers get thousands separators."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(fact_text(entry) for entry in value) or "-"
    return cell_text(value)


def column_texts(series: "pl.Series") -> list[str]:
    """Return the cells of one column, with look-alike names told apart."""
    values = series.to_list()
    revealed = reveal_lookalikes({v for v in values if isinstance(v, str)})
    return [cell_text(revealed.get(v, v) if isinstance(v, str) else v) for v in values]


def _numeric(frame: "pl.DataFrame") -> list[bool]:
    return [dtype.is_numeric() for dtype in frame.dtypes]


def _columns(frame: "pl.DataFrame") -> list[tuple[str, list[str]]]:
    return [(cell_text(name), column_texts(frame[name])) for name in frame.columns]


def _align(texts: Iterable[str], width: int, *, right: bool) -> list[str]:
    from rich.cells import cell_len

    padded = []
    for text in texts:
        gap = " " * (width - cell_len(text))
        padded.append(gap + text if right else text + gap)
    return padded


def plain_text(facts: Facts, frames: "Sequence[pl.DataFrame]", *, finding: str = "") -> str:
    """Return a finding, summary lines and aligned tables as text without any styling, one line per row."""
    first = [escape_controls(finding)] if finding else []
    parts = [first, plain_facts(facts), *map(_plain_table, frames)]
    return "\n".join("".join(f"{line}\n" for line in part) for part in parts if part)


def plain_facts(facts: Facts) -> list[str]:
    """Return one line per fact: the name, padded, and its value."""
    width = max((len(name) for name in facts), default=0)
    return [f"{name:<{width}}  {fact_text(value)}".rstrip() for name, value in facts.items()]


def _plain_table(frame: "pl.DataFrame") -> list[str]:
    from rich.cells import cell_len

    columns = []
    for (name, texts), right in zip(_columns(frame), _numeric(frame), strict=True):
        cells = [name, *texts]
        columns.append(_align(cells, max(map(cell_len, cells)), right=right))
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def rich_parts(
    facts: Facts, frames: "Sequence[pl.DataFrame]", *, finding: str = ""
) -> "list[RenderableType]":
    """Return the same for a terminal. Cells are `Text`, so that nothing in them is read as markup."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(fact_text(value)))
    first = [Text(escape_controls(finding), style="bold")] if finding else []
    return [*first, *([grid] if facts else []), *(_rich_table(frame) for frame in frames if frame.width)]


def _rich_table(frame: "pl.DataFrame") -> "RenderableType":

    pairs = zip(_columns(frame), _numeric(frame), strict=True)
    return FittedTable([TextColumn(name, texts, right) for (name, texts), right in pairs])


def _markdown_cell(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def markdown_text(facts: Facts, frames: "Sequence[pl.DataFrame]", *, finding: str = "") -> str:
    """Return a finding, facts as a list, rows as Markdown tables; markup and HTML in names stay text."""
    parts = [
        [_markdown_cell(escape_controls(finding))] if finding else [],
        [f"- {name}: {_markdown_cell(fact_text(value))}" for name, value in facts.items()],
        *map(_markdown_table, frames),
    ]
    return "\n".join("".join(f"{line}\n" for line in part) for part in parts if part)


def _markdown_table(frame: "pl.DataFrame") -> list[str]:
    if not frame.width:
        return []
    columns = _columns(frame)
    lines = [
        _markdown_row([_markdown_cell(name) for name, _ in columns]),
        _markdown_row(["---:" if right else "---" for right in _numeric(frame)]),
    ]
    cells = zip(*(map(_markdown_cell, texts) for _, texts in columns), strict=True)
    return [*lines, *map(_markdown_row, cells)]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def csv_text(frame: "pl.DataFrame") -> str:
    """Return the rows as CSV (RFC 4180, UTF-8, line feeds).

    Control characters in text are escaped, and text that a spreadsheet would evaluate gets an apostrophe in
    front. NULL is an empty field, lists and structs are JSON, bytes hexadecimal digits.
    """
    safe = frame.select(_csv_column(frame[name]) for name in frame.columns)
    safe.columns = [guard_formula(escape_controls(name)) for name in frame.columns]
    return safe.write_csv()


def _csv_column(series: "pl.Series") -> "pl.Series":
    import polars as pl

    if series.dtype == pl.String:
        values = series.to_list()
    elif series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        values = [None if v is None else _compact(v) for v in series.to_list()]
    else:
        return series
    texts = [None if v is None else guard_formula(escape_controls(v)) for v in values]
    return pl.Series(series.name, texts, dtype=pl.String)


def _compact(value: object) -> str:
    simple = plain(value)
    return simple if isinstance(simple, str) else json.dumps(simple)
