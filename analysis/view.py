"""A result as plain data: what a terminal, a file, JSON and a notebook show of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

BRIEF_ROWS = 10
"""Rows of a table that people see unless they ask for all."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A result, ready to be shown in any format."""

    finding: str = ""
    """What the result says, in a plain sentence, and what to do about it; the first line that people see."""
    rows: "pl.DataFrame | None" = None
    """The table: all there is in CSV and Parquet. None for a result that is one record."""
    details: "pl.DataFrame | None" = None
    """A second table for people, below the first; in tables and Markdown only."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Summary lines above the table; in tables and Markdown only."""
    document: object = None
    """The JSON form; the rows as a list of objects where it is None. Without rows, its single values (those
    of nested objects included) are the one row of CSV and Parquet."""
    notes: Sequence[str] = ()
    """What a person should know besides; goes to stderr."""
    explains: Mapping[str, str] = field(default_factory=dict)
    """By column, a note without which the column is misread; said where the column is shown."""
    columns: Sequence[str] = ()
    """Columns of the table that people see, in tables and Markdown; all of them where it is empty."""
    texts: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    """By format, how it is written where that does not follow from the rest, as a page does not."""
    brief: "Sequence[pl.DataFrame] | None" = None
    """The tables that people see unless they ask for all: the rows and columns that matter. None: all."""

    def table(self) -> "pl.DataFrame":
        """The rows for CSV and Parquet."""
        import polars as pl

        return pl.DataFrame([_record(self.document)]) if self.rows is None else self.rows

    def shown(self, *, full: bool = True) -> "list[pl.DataFrame]":
        """The tables below the facts, for people.

        Args:
            full: All rows and columns, not only those that matter.
        """
        if not full and self.brief is not None:
            return [frame for frame in self.brief if frame.height]
        rows = self.rows
        if rows is not None and self.columns and (not full or self.brief is None):
            rows = rows.select(self.columns)
        return [frame for frame in (rows, self.details) if frame is not None]

    def said(self, *, full: bool = True, people: bool = True) -> list[str]:
        """The notes on what is shown, and on what `--full` would show besides.

        Args:
            full: All rows and columns are shown.
            people: In tables or Markdown; other formats hold all columns.
        """
        if not people:
            return [*self.notes, *self.explains.values()]
        shown = {name for frame in self.shown(full=full) for name in frame.columns}
        more = "" if full else self.left_out()
        about = [note for column, note in self.explains.items() if column in shown]
        return [*self.notes, *about, *([more] if more else [])]

    def left_out(self) -> str:
        """What `--full` would show besides, in words; empty where that is nothing."""
        brief, whole = self.shown(full=False), self.shown()
        if self.brief is None or _cells(brief) == _cells(whole):
            return ""
        rows = " + ".join(str(frame.height) for frame in whole)
        return f"--full shows everything: {rows} rows, {max(frame.width for frame in whole)} columns"


def beside(value: float, *, clear: bool, above: str, below: str, neither: str = "not told apart from") -> str:
    """Say in words on which side of what it is compared with a value lies: above, below, or neither.

    Args:
        value: The value less what it is compared with, or its z.
        clear: Whether the difference is more than chance explains.
        above: Words for a larger value.
        below: Words for a smaller one.
        neither: Words where that is not clear.

    Example:
        >>> beside(-4.2, clear=True, above="later than", below="earlier than")
        'earlier than'
    """
    return neither if not clear else above if value > 0 else below


def first_and_last(frame: "pl.DataFrame", rows: int = BRIEF_ROWS) -> "pl.DataFrame":
    """Return the rows at both ends of a table that is longer than `rows`."""
    if frame.height <= rows:
        return frame
    return frame.head((rows + 1) // 2).vstack(frame.tail(rows // 2))


def evenly(frame: "pl.DataFrame", rows: int = BRIEF_ROWS) -> "pl.DataFrame":
    """Return rows of a curve at even distances, the first and the last among them."""
    if frame.height <= rows:
        return frame
    places = {round(i * (frame.height - 1) / (rows - 1)) for i in range(rows)}
    return frame[sorted(places)]


def _cells(frames: "Sequence[pl.DataFrame]") -> int:
    return sum(frame.height * frame.width for frame in frames)


def _record(document: object) -> dict[str, object]:
    """Return the single values of an object and of the objects in it; the outer ones win."""
    if not isinstance(document, Mapping):
        return {}
    inner: dict[str, object] = {}
    outer: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            inner |= _record(value)
        elif not isinstance(value, list | tuple):
            outer[str(name)] = value
    return outer | {name: value for name, value in inner.items() if name not in outer}
