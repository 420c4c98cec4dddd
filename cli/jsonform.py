"""The JSON form of results: strict JSON, ASCII only, and never NaN or Infinity."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath


def plain(value: object) -> object:
    """Return `value` made of dicts, lists, strings, integers, finite floats, booleans and None only.

    NaN and the infinities, which JSON does not know, become None. Bytes become hexadecimal digits, points in
    time ISO 8601 strings, durations seconds, decimals floats. Result classes answer with their `to_dict()`,
    frames with a list of rows, arrays with nested lists.

    Raises:
        TypeError: `value` holds something that has no JSON form.
    """
    if value is None or isinstance(value, str | bool):
        return str(value) if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return _plain_scalar(value)


def _plain_scalar(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    return str(value) if isinstance(value, PurePath | Enum) else _plain_object(value)


def _plain_object(value: object) -> object:
    for method in ("to_dicts", "to_dict", "tolist"):  # polars frame, result class, numpy array or scalar
        if callable(convert := getattr(value, method, None)):
            return plain(convert())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def json_text(value: object) -> str:
    r"""Return `value` as JSON text with a final line break.

    Only ASCII is written: control characters and foreign letters appear as ``\uNNNN``, so the text is safe
    to show in a terminal, and parsing it gives the exact names back.
    """
    return json.dumps(plain(value), ensure_ascii=True, allow_nan=False, indent=2) + "\n"
