"""Numbers as tables and JSON hold them."""

import math
from typing import TypeVar

Number = TypeVar("Number", int, float)


def finite_or_none(value: Number | None) -> Number | None:
    """Return the number; None for NaN and the infinities, which JSON lacks and a table would take for values.

    Example:
        >>> finite_or_none(0.5), finite_or_none(2), finite_or_none(float("inf")), finite_or_none(None)
        (0.5, 2, None, None)
    """
    return None if value is None or not math.isfinite(value) else value
