"""Values of options that are more than a number or a word, as they stand on the command line."""

import re
from collections.abc import Sequence

from emergraph.errors import UsageError
from emergraph.options import Form, Options, option, text_of

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SECONDS = {"": 1.0, "S": 1.0, "M": 60.0, "H": 3600.0}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_bytes(text: str) -> int:
    """Return a size in bytes: "8GiB" is 8 * 2**30, "500MB" is 500 * 10**6, a bare number is bytes.

    Raises:
        UsageError: The text is not a size.
    """
    number, unit = _quantity(text)
    if unit.upper() not in _BYTES:
        raise UsageError(f"'{text}' is not a size: expected a number with MB, GB, MiB or GiB, such as 8GiB")
    return int(number * _BYTES[unit.upper()])


def parse_seconds(text: str) -> float:
    """Return a duration in seconds: "90" and "90s" are 90, "5m" is 300, "1h" is 3600.

    Raises:
        UsageError: The text is not a duration.
    """
    number, unit = _quantity(text)
    if unit.upper() not in _SECONDS:
        raise UsageError(f"'{text}' is not a duration: expected a number with s, m or h, such as 90s or 5m")
    return number * _SECONDS[unit.upper()]


def _quantity(text: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        return 0.0, "?"  # no unit has this name, so that the caller says what it expected
    return float(match[1]), match[2]


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Return the numbers of a comma-separated list.

    Raises:
        UsageError: The list is empty or holds something that is not a finite number.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(abs(number) < float("inf") for number in numbers):
        raise UsageError(f"{option} {text}: expected numbers separated by commas, such as 0.01,0.05,0.1")
    return numbers


def name_or_id(text: str) -> str | int:
    """Return what a user gave for a thing of the store: a number is an id."""
    return int(text) if text.isdecimal() else text


NAME_OR_ID = Form(name_or_id)
"""A thing of the store; a number is its id."""


def _budget(text: str) -> float | None:
    return None if text == "0" else parse_seconds(text)


def _budget_text(seconds: float | None) -> str:
    if seconds is None:
        return "0"
    return f"{seconds:.0f}s" if seconds == round(seconds) else f"{seconds:f}s"


BUDGET = Form(_budget, _budget_text)
"""Seconds, or None for no end."""


def _grid(text: str) -> tuple[float, ...] | int | str:
    if text == "all":
        return text
    return int(text) if text.isdecimal() and int(text) > 1 else parse_numbers(text, "--thresholds")


def _grid_text(grid: object) -> str:
    return text_of([float(value) for value in grid]) if isinstance(grid, tuple | list) else str(grid)


GRID = Form(_grid, _grid_text)
"""Numbers, how many to choose, or "all"."""


class TableForm(Options):
    """How a table that is read is written."""

    separator: str | None = option(
        default=None,
        help="Separator of CSV fields: comma, semicolon, tab, pipe or a character.",
        metavar="NAME",
        default_text="guessed",
    )


def parse_axes(entries: Sequence[str]) -> dict[str, int | None]:
    """Return axes by input name from entries such as "state=1" or "sr=none".

    Raises:
        UsageError: An entry has another form, or a name comes twice.
    """
    axes: dict[str, int | None] = {}
    for entry in entries:
        name, text = name_and_value(entry, "--sample-axis NAME=AXIS", axes)
        if text != "none" and not text.removeprefix("-").isdecimal():
            raise UsageError(f"--sample-axis {entry}: expected a whole number or none, such as {name}=1")
        axes[name] = None if text == "none" else int(text)
    return axes


def name_and_value(entry: str, form: str, seen: object) -> tuple[str, str]:
    """Split NAME=VALUE.

    Args:
        entry: What was given.
        form: What is expected, for the message.
        seen: The names so far, where each may come once.
    """
    name, separator, text = entry.rpartition("=")  # names from files may hold "=", values never do
    if not separator or not name:
        raise UsageError(f"'{entry}': expected {form}")
    if isinstance(seen, dict) and name in seen:
        raise UsageError(f"'{entry}': {name} is given twice")
    return name, text.strip()
