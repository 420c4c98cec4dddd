"""Tables for people: aligned plain text, rich tables on a terminal, Markdown, and CSV for spreadsheets.

Every cell that came from a file passes through `emergraph.safetext` before it is shown.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from emergraph.cli.jsonform import plain
from emergraph.safetext import escape_controls, guard_formula, reveal_lookalikes, shorten

if TYPE_CHECKING:
    import polars as pl
    from rich.console import RenderableType

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
    from emergraph.cli.fitted import FittedTable, TextColumn

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
