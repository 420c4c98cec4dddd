"""A result as plain data: what a terminal, a file, JSON and a notebook show of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class View:
    """A result, ready to be shown in any format."""

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
    columns: Sequence[str] = ()
    """Columns of the table that people see, in tables and Markdown; all of them where it is empty."""

    def table(self) -> "pl.DataFrame":
        """The rows for CSV and Parquet."""
        import polars as pl

        return pl.DataFrame([_record(self.document)]) if self.rows is None else self.rows

    def shown(self) -> "list[pl.DataFrame]":
        """The tables below the facts, for people."""
        rows = self.rows
        if rows is not None and self.columns:
            rows = rows.select(self.columns)
        return [frame for frame in (rows, self.details) if frame is not None]


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
