"""The header of a GGUF file, read without believing it: metadata by key, tensors by place."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.registry import refusal

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20
_MAX_DIMENSIONS = 4
"""Axes that a tensor of ggml has."""
_MAX_DEPTH = 4
"""Arrays in arrays."""
_KEPT = 4_096
"""Values of an array that are kept: one per layer; of a vocabulary only the number counts."""

_NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""How the numbers of metadata are stored, by type."""
_BOOL, _STRING, _ARRAY = 7, 8, 9
_ALIGNED_TYPE = 4
_LEAST_ENTRY = 8 + 4 + 1
_LEAST_TENSOR = 8 + 4 + 4 + 8


@dataclass(frozen=True)
class Several:
    """An array of metadata: how many values it has, and the first ones."""

    count: int
    first: tuple["Value", ...]

    def all(self) -> tuple["Value", ...] | None:
        """All values; None where there are more than are kept."""
        return self.first if len(self.first) == self.count else None


Value = bool | int | float | str | Several
"""What a key of metadata holds."""


@dataclass(frozen=True)
class TensorInfo:
    """What the header says about a tensor."""

    name: str
    dims: tuple[int, ...]
    """The innermost axis first, as ggml has them."""
    type: int
    offset: int
    """From the begin of the values."""


@dataclass(frozen=True)
class Header:
    """A header whose counts and lengths fit the file."""

    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    end: int
    """Where the values begin."""


def read_header(data: memoryview, where: str, limits: WeightLimits) -> Header:
    """Read the header of a GGUF file.

    Args:
        data: The whole file.
        where: How to name it in messages.
        limits: Caps on bytes, entries and tensors.

    Raises:
        InvalidInputError: Cut short, contradictory, or not as the format defines it (GGUF-HEADER), or of a
            version or byte order that is not read (WEIGHTS-FILE-VERSION).
        UnsafeInputError: A key stands twice (GGUF-DUPLICATE).
        LimitError: More of something than a limit (WEIGHTS-LIMIT).
    """
    if bytes(data[:4]) != MAGIC:
        raise refusal("WEIGHTS-FILE-VERSION", "a big-endian GGUF file; convert it to little-endian", where)
    cursor = _Cursor(data, 4, where, limits)
    version = cursor.number("<I", "version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        found = "a big-endian GGUF file" if swapped else f"GGUF version {version}"
        message = f"{found}; expected little-endian and version {' or '.join(map(str, VERSIONS))}"
        raise refusal("WEIGHTS-FILE-VERSION", message, where)
    n_tensors = cursor.count("tensors", _LEAST_TENSOR, limits.tensors)
    n_entries = cursor.count("metadata entries", _LEAST_ENTRY, limits.metadata_entries)
    metadata = _metadata(cursor, n_entries)
    alignment = _alignment(metadata, where)
    tensors = tuple(_tensor(cursor) for _ in range(n_tensors))
    return Header(metadata, tensors, alignment, -(-cursor.at // alignment) * alignment)


class _Cursor:
    """A place in the header; nothing is read beyond the end of the file or of the limits."""

    def __init__(self, data: memoryview, at: int, where: str, limits: WeightLimits) -> None:
        self.at = at
        self.where = where
        self._data = data
        self._end = min(len(data), limits.header_bytes)
        self._limits = limits
        self._values_left = limits.metadata_values

    def take(self, size: int, what: str) -> memoryview:
        if size > self._end - self.at:
            if self._end < len(self._data) and size <= len(self._data) - self.at:
                message = f"the header has more than {self._end} bytes, the limit"
                raise refusal("WEIGHTS-LIMIT", message, self.where)
            left = self._end - self.at
            raise self.bad(f"{what} takes {size} bytes at byte {self.at}, but {left} are left")
        self.at += size
        return self._data[self.at - size : self.at]

    def number(self, form: str, what: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form), what))[0]
        return value

    def text(self, what: str) -> str:
        raw = self.take(self.number("<Q", f"the length of {what}"), what)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise self.bad(f"{what} is not UTF-8: {printable(bytes(raw[:40]))}") from None

    def count(self, what: str, least: int, limit: int) -> int:
        """A number of things that take at least so many bytes each."""
        found = self.number("<Q", f"the number of {what}")
        self.room(found, least, what)
        if found > limit:
            raise refusal("WEIGHTS-LIMIT", f"the file has {found} {what}, the limit is {limit}", self.where)
        return found

    def room(self, count: int, least: int, what: str) -> None:
        """Refuse a count that the rest of the file cannot hold."""
        left = len(self._data) - self.at
        if count * least > left:
            raise self.bad(f"{count} {what} take at least {count * least} bytes, but {left} are left")

    def spend(self, count: int) -> None:
        """Count values of arrays."""
        self._values_left -= count
        if self._values_left < 0:
            most = self._limits.metadata_values
            raise refusal("WEIGHTS-LIMIT", f"the metadata has more than {most} values in arrays", self.where)

    def bad(self, message: str) -> Exception:
        return refusal("GGUF-HEADER", f"{message}; fetch the file again", self.where)


def _metadata(cursor: _Cursor, count: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.text("a key of the metadata")
        if key in found:
            message = f"key {printable(key, 80)} stands twice; readers differ in which one counts"
            raise refusal("GGUF-DUPLICATE", message, cursor.where)
        found[key] = _value(cursor, cursor.number("<I", "a type of the metadata"), printable(key, 80))
    return found


def _value(cursor: _Cursor, kind: int, key: str, depth: int = 0) -> Value:
    if kind == _STRING:
        return cursor.text(f"the value of {key}")
    if kind == _ARRAY:
        return _array(cursor, key, depth)
    if kind not in _NUMBERS:
        raise cursor.bad(f"the value of {key} is of type {kind}, which GGUF does not define")
    value = cursor.number(_NUMBERS[kind], f"the value of {key}")
    if kind != _BOOL:
        return value
    if value > 1:
        raise cursor.bad(f"the value of {key} is {value}; expected 0 or 1 for false or true")
    return value == 1


def _array(cursor: _Cursor, key: str, depth: int) -> Several:
    if depth == _MAX_DEPTH:
        raise cursor.bad(f"the value of {key} nests arrays more than {_MAX_DEPTH} deep")
    kind = cursor.number("<I", f"the type of the values of {key}")
    count = cursor.number("<Q", f"the number of values of {key}")
    if kind in _NUMBERS:
        return _numbers(cursor, key, kind, count)
    if kind not in (_STRING, _ARRAY):
        raise cursor.bad(f"the values of {key} are of type {kind}, which GGUF does not define")
    cursor.room(count, 8 if kind == _STRING else 12, f"values of {key}")
    cursor.spend(count)
    first: list[Value] = []
    for _ in range(count):
        value = _value(cursor, kind, key, depth + 1)
        if len(first) < _KEPT:
            first.append(value)
    return Several(count, tuple(first))


def _numbers(cursor: _Cursor, key: str, kind: int, count: int) -> Several:
    form = _NUMBERS[kind]
    size = struct.calcsize(form)
    raw = cursor.take(count * size, f"the array of {key}")
    kept = min(count, _KEPT)
    values = struct.unpack(f"<{kept}{form[1]}", raw[: kept * size])
    return Several(count, tuple(bool(value) for value in values) if kind == _BOOL else values)


def _alignment(metadata: Mapping[str, Value], where: str) -> int:
    found = metadata.get(ALIGNMENT, _DEFAULT_ALIGNMENT)
    fits = type(found) is int and 0 < found <= _MAX_ALIGNMENT and found & (found - 1) == 0
    if type(found) is not int or not fits:
        message = (
            f"{ALIGNMENT} is {printable(str(found), 40)}; expected a power of two up to {_MAX_ALIGNMENT}"
        )
        raise refusal("GGUF-HEADER", message, where)
    return found


def _tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.text("the name of a tensor")
    if not name:
        raise cursor.bad("a tensor has no name")
    shown = printable(name, 80)
    n_dims = cursor.number("<I", f"the number of axes of {shown}")
    if n_dims > _MAX_DIMENSIONS:
        message = f"{n_dims} axes; expected at most {_MAX_DIMENSIONS}"
        raise refusal("TENSOR-SHAPE", message, shown)
    dims = tuple(cursor.number("<Q", f"the sizes of {shown}") for _ in range(n_dims))
    kind = cursor.number("<I", f"the element type of {shown}")
    return TensorInfo(name, dims, kind, cursor.number("<Q", f"the place of {shown}"))
