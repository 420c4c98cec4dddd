"""How values are written on a page."""

import json
from datetime import datetime
from decimal import Decimal

from emergraph.safetext import escape_controls, shorten

LONGEST = 400
"""Characters of a cell; longer texts lose their middle."""


def words(value: object) -> str:
    """Return a text on one line, without characters that steer or hide others."""
    return escape_controls(str(value))


def cell(value: object) -> str:
    """Return one value as a person reads it."""
    match value:
        case None:
            text = "–"
        case bool():
            text = "yes" if value else "no"
        case int():
            text = f"{value:,}"
        case Decimal():  # sums of integers, as DuckDB gives them
            text = f"{int(value):,}" if value == int(value) else number(float(value))
        case float():
            text = number(value)
        case datetime():
            text = value.isoformat(" ", "seconds")
        case list() | tuple():
            text = ", ".join(cell(entry) for entry in value) or "–"
        case dict():
            text = words(json.dumps(value, ensure_ascii=False, default=str))
        case _:
            text = words(value)
    return shorten(text, LONGEST)


def number(value: float) -> str:
    """Return a float with four significant digits, thousands parted where there are no decimals.

    Example:
        >>> number(1234567.0), number(0.000123456), number(0.5)
        ('1,235,000', '0.0001235', '0.5')
    """
    if 1e4 <= abs(value) < 1e9:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{value:.4g}"


def percent(part: int, whole: int) -> str:
    """Return a percentage that is 100 only when nothing is missing, and 0 only when there is nothing.

    Example:
        >>> percent(1, 8), percent(999_999, 1_000_000), percent(1, 1_000_000), percent(0, 0)
        ('12.50 %', '99.99 %', '0.01 %', '100 %')
    """
    if part == whole:
        return "100 %"
    share = 100 * part / whole
    return f"{min(max(share, 0.01), 99.99) if part else 0:.2f} %"


def heading(column: str) -> str:
    """Return the name of a column as a heading."""
    return words(column).replace("_", " ")
