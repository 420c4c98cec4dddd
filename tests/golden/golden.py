"""What the program answers, frozen: structure as hashes, numbers as values, pictures by specification.

A golden is made through the command line and the documented tables alone, so that code may move freely
beneath it. Structure and whole numbers are compared exactly, numbers that a model run gives to 1e-5 of
their size. Times, versions and dates are left out. A golden that changes is a finding: explain it in the
CHANGELOG in the commit that renews it (`make golden`).
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RELATIVE = 1e-5
"""Numbers from model runs agree to this part of their size; libraries and processors differ below it."""

VOLATILE = ("seconds", "version", "created", "started", "duration", "rates", "variant", "bytes")
"""Keys with one of these words hold times, versions or measured speed."""
_LONG = 12
"""Lists above this length are kept by their sums."""


def condense(value: Any) -> Any:
    """Return a JSON document without times and versions, with long lists as sums and hashes."""
    match value:
        case dict():
            return {key: condense(item) for key, item in value.items() if not _volatile(key)}
        case list() if len(value) > _LONG:
            return _long(value)
        case list():
            return [condense(item) for item in value]
        case str() if len(value) > 400:
            return {"sha256": hashlib.sha256(value.encode()).hexdigest()}
        case int() if not isinstance(value, bool) and abs(value) >= 10**17:
            return str(value)
        case _:
            return value


def _volatile(key: str) -> bool:
    return any(word in key.lower() for word in VOLATILE)


def _long(values: list[Any]) -> dict[str, Any]:
    """Rows by column, numbers by sums, everything else by its hash."""
    if all(isinstance(item, dict) for item in values):
        names = sorted({name for item in values for name in item if not _volatile(name)})
        return {"rows": len(values), **{name: _long([item.get(name) for item in values]) for name in names}}
    numbers = [item for item in values if isinstance(item, int | float) and not isinstance(item, bool)]
    if len(numbers) == len(values) and all(math.isfinite(float(item)) for item in numbers):
        if all(isinstance(item, int) for item in numbers):
            text = json.dumps(numbers)
            return {
                "n": len(numbers),
                "sum": str(sum(numbers)),
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
        return {
            "n": len(numbers),
            "sum": math.fsum(numbers),
            "absolute": math.fsum(map(abs, numbers)),
            "moment": math.fsum(item * (index + 1) / len(numbers) for index, item in enumerate(numbers)),
        }
    if numbers:
        return {"n": len(values), "missing": len(values) - len(numbers), "numbers": condense(numbers)}
    return {"n": len(values), "sha256": _hash([condense(item) for item in values])}


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def differences(expected: Any, found: Any, where: str = "", scale: float = 0.0) -> list[str]:
    """Return where two condensed documents differ, one line each.

    Args:
        expected: What was frozen.
        found: What the program answers now.
        where: Path of both in the whole document.
        scale: Numbers also agree within `RELATIVE` of this: sums of signed numbers may cancel.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        scale = expected.get("absolute", 0.0)
        alone = sorted(expected.keys() ^ found.keys())
        lines = [f"{where}/{key}: only {'expected' if key in expected else 'found'}" for key in alone]
        for key in sorted(expected.keys() & found.keys()):
            lines += differences(expected[key], found[key], f"{where}/{key}", scale)
        return lines
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, f"{where}[{index}]")]
    if type(expected) is type(found) and (expected == found or _close(expected, found, scale)):
        return []
    return [f"{where}: expected {_short(expected)}, found {_short(found)}"]


def _close(expected: Any, found: Any, scale: float) -> bool:
    if not isinstance(expected, float):
        return False
    slack = max(1e-9, RELATIVE * scale)
    undefined = math.isnan(expected) and math.isnan(found)
    return undefined or math.isclose(expected, found, rel_tol=RELATIVE, abs_tol=slack)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def path_of(name: str) -> Path:
    """Return the file of a golden."""
    return FOLDER / f"{name}.json"


def read(name: str) -> Any:
    """Return a golden."""
    return json.loads(path_of(name).read_text(encoding="utf-8"))


def write(name: str, document: Any) -> None:
    """Keep a golden."""
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True)
    path_of(name).write_text(text + "\n", encoding="utf-8")
