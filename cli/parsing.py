"""Values of inputs on the command line: `NAME=VALUE` for shapes, arrays and axes."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emergraph.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
