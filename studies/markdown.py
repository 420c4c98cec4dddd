"""Tables of polars as Markdown, for the pages of studies."""

from collections.abc import Mapping

import polars as pl


def markdown(frame: pl.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """A table; numbers by the format of their column, ".2f" by default, and "-" for nothing."""
    formats = formats or {}
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    for row in frame.iter_rows():
        cells = [
            _cell(value, formats.get(name, ".2f")) for name, value in zip(frame.columns, row, strict=True)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: object, form: str) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, form) if isinstance(value, float) else str(value)
