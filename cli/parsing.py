"""Option values that are more than a text: choices, sizes, durations, `NAME=VALUE`, lists of numbers."""

import json
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from emergraph.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Choice = TypeVar("Choice", bound=StrEnum)

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SECONDS = {"": 1.0, "S": 1.0, "M": 60.0, "H": 3600.0}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_choice(option: str, word: str, known: Iterable[Choice]) -> Choice:
    """Return the choice that a word names.

    Args:
        option: The option that the word was given for, such as "--norm".
        word: What was given.
        known: An enumeration, or some of its members.

    Raises:
        UsageError: There is no such choice.
    """
    choices = {str(choice): choice for choice in known}
    if word not in choices:
        raise UsageError(f"{option} {word}: expected one of {', '.join(choices)}")
    return choices[word]


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


def parse_shapes(entries: Sequence[str]) -> "dict[str, tuple[int, ...]]":
    """Return shapes by input name from entries such as "pixels=1,3,64,64".

    Raises:
        UsageError: An entry has another form, or a name comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        name, text = _name_and_value(entry, "--input-shape NAME=1,3,64,64", shapes)
        sizes = text.split(",") if text else []
        if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
            raise UsageError(f"--input-shape {entry}: expected sizes of at least 1, such as {name}=1,3,64,64")
        shapes[name] = tuple(map(int, sizes))
    return shapes


def parse_values(entries: Sequence[str]) -> "dict[str, NDArray[np.generic]]":
    """Return arrays by input name from entries such as "sr=16000", "mask=1,1,0" or "x=[[1,2],[3,4]]".

    Raises:
        UsageError: An entry has another form, or a name comes twice.
    """
    import numpy as np

    arrays: dict[str, NDArray[np.generic]] = {}
    for entry in entries:
        name, text = _name_and_value(entry, "--input NAME=VALUE", arrays)
        try:
            value = json.loads(f"[{text}]" if "," in text and not text.startswith("[") else text)
            array = np.asarray(value)
        except ValueError:
            array = np.asarray(None)
        if array.dtype.kind not in "biuf":
            raise UsageError(f"--input {entry}: expected numbers or true/false, such as {name}=16000")
        arrays[name] = array
    return arrays


def parse_axes(entries: Sequence[str]) -> dict[str, int | None]:
    """Return axes by input name from entries such as "state=1" or "sr=none".

    Raises:
        UsageError: An entry has another form, or a name comes twice.
    """
    axes: dict[str, int | None] = {}
    for entry in entries:
        name, text = _name_and_value(entry, "--sample-axis NAME=AXIS", axes)
        if text != "none" and not text.removeprefix("-").isdecimal():
            raise UsageError(f"--sample-axis {entry}: expected a whole number or none, such as {name}=1")
        axes[name] = None if text == "none" else int(text)
    return axes


def _name_and_value(entry: str, form: str, seen: object) -> tuple[str, str]:
    name, separator, text = entry.rpartition("=")  # names from files may hold "=", values never do
    if not separator or not name:
        raise UsageError(f"'{entry}': expected {form}")
    if isinstance(seen, dict) and name in seen:
        raise UsageError(f"'{entry}': {name} is given twice")
    return name, text.strip()


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
