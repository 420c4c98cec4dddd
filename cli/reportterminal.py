"""The short report for a terminal: 80 columns, colours only where they can be seen."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emergraph.cli.tables import cell_text, column_texts, fact_text
from emergraph.safetext import escape_controls, shorten

if TYPE_CHECKING:
    import polars as pl
    from rich.console import RenderableType

    from emergraph.analysis.report.document import Report, Section, Table

WIDTH = 80
ROWS = 12
COLUMN = 28
BARS = "▁▂▃▄▅▆▇█"
CURVES = {
    "emergence-sweep": ("sweep", "log10", "log10 E over rising thresholds"),
    "pruning": ("levels", "log10_emergence_any", "log10 E over rising sparsity"),
    "percolation": ("curve", "giant", "largest component as edges are added"),
}
"""Figures that have a line of bars: frame, column, and what it is."""


def print_report(report: "Report") -> None:
    """Print the summary, and of every section its figures as bars and its first table."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, width=WIDTH, markup=False, highlight=False, emoji=False)
    title = f"emergraph report: {escape_controls(str(report.graph['name']))}"
    console.print(Text(title, style="bold"))
    for section in report.sections:
        console.print()
        console.print(Text(section.title, style="bold cyan"))
        for part in _section(section, report.warnings if section.id == "summary" else ()):
            console.print(part)


def _section(section: "Section", warnings: Sequence[str]) -> "list[RenderableType]":
    from rich.table import Table as Grid
    from rich.text import Text

    parts: list[RenderableType] = []
    if section.id == "summary":
        parts.append(Text(escape_controls(section.lead)))
    if section.finding:
        parts.append(Text(escape_controls(section.finding), style="bold"))
    for point in section.points:
        said = f"{point.severity}: {point.sentence} {point.action} ({point.grade})"
        parts.append(Text(escape_controls(said), style="yellow" if point.severity != "info" else ""))
    parts += [Text(f"Warning: {escape_controls(text)}", style="yellow") for text in warnings]
    parts += [Text(f"Note: {escape_controls(text)}") for text in section.notes]
    if section.missing is not None or section.why_missing is not None:
        why = f" ({section.why_missing})" if section.why_missing else ""
        parts.append(Text(escape_controls(f"Not measured{why}. {section.missing or ''}".rstrip())))
    if section.facts:
        grid = Grid.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in section.facts.items():
            grid.add_row(Text(name, style="bold"), Text(shorten(fact_text(value), 160)))
        parts.append(grid)
    parts += [Text(line) for line in _bars(section)]
    parts += [_table(table) for table in section.tables[:1]]
    return parts


def _bars(section: "Section") -> list[str]:
    lines = []
    for data in section.figures:
        if data.figure.name not in CURVES:
            continue
        frame, column, label = CURVES[data.figure.name]
        rows = data.frames[frame]
        for key, name in (("paths", "through any unit"), ("series", "observed")):
            if key in rows.columns:
                rows = rows.filter(rows[key] == name)
        values = [value for value in rows[column].to_list() if value is not None]
        if values:
            lines.append(f"{label}: {sparkline(values)}  {min(values):.3g} to {max(values):.3g}")
    return lines


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Return at most `width` bars whose heights follow the values, lowest to highest.

    Example:
        >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7])
        '▁▂▃▄▅▆▇█'
    """
    n = min(width, len(values))
    chosen = [values[i * len(values) // n] for i in range(n)]
    low, span = min(chosen), max(chosen) - min(chosen)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (value - low) / span) if span else 0] for value in chosen)


def _table(table: "Table") -> "RenderableType":
    from rich.table import Table as Grid
    from rich.text import Text

    frame = _narrow(table.frame.head(ROWS))
    grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name, dtype in frame.schema.items():
        grid.add_column(Text(name), justify="right" if dtype.is_numeric() else "left", overflow="fold")
    texts = [[_fitted(text) for text in column_texts(frame[name])] for name in frame.columns]
    for row in zip(*texts, strict=True):
        grid.add_row(*map(Text, row))
    return grid


def _fitted(text: str) -> str:
    """The text, or where it is long the end of a path and the ends of anything else."""
    from emergraph.analysis.figures.names import short_name

    return short_name(text, COLUMN) if "/" in text else shorten(text, COLUMN)


def _narrow(frame: "pl.DataFrame") -> "pl.DataFrame":
    """The first columns that fit beside each other."""
    room, kept = WIDTH, []
    for name in frame.columns:
        widest = max([len(name), *(min(COLUMN, len(cell_text(value))) for value in frame[name].to_list())])
        if room < widest:
            break
        room -= widest + 1
        kept.append(name)
    return frame.select(kept)
