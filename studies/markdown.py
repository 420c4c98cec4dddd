"""Markdown tables for the pages of studies."""

from collections.abc import Mapping, Sequence

import polars as pl


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, words: int | None = None) -> str:
    """A table as lines, the last one ended too.

    Args:
        head: Names of the columns.
        rows: Cells; others than texts as `str` writes them.
        words: So many columns are words, and the others numbers, which stand right; None leaves that open.
    """
    n_left = len(head) if words is None else words
    lines = [_line(head), "|" + "---|" * n_left + "---:|" * (len(head) - n_left), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def markdown(frame: pl.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """A frame as a table; floats by the format of their column, ".2f" by default, and "-" for nothing."""
    chosen = [(formats or {}).get(name, ".2f") for name in frame.columns]
    rows = [
        [_cell(value, form) for value, form in zip(row, chosen, strict=True)] for row in frame.iter_rows()
    ]
    return table(frame.columns, rows).removesuffix("\n")


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cell(value: object, form: str) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, form) if isinstance(value, float) else str(value)
