"""Rows on their way to polars, in a module that knows no DuckDB.

polars keeps the class of what it was given until Python ends, and with it the names of the module in which
the class is. Were DuckDB among them, it could not be taken down, and would write forty lines about that.
"""

from typing import Protocol


class _HasStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


class ArrowStream:
    """What gives rows by the Arrow C stream interface, as something that is nothing else."""

    def __init__(self, rows: _HasStream) -> None:
        self._rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as a capsule."""
        return self._rows.__arrow_c_stream__(requested_schema)
