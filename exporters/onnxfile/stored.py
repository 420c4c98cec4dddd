"""Stored values: some bytes, and how they stand for the elements of a tensor."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from emergraph.exporters.onnxfile.decoding import count_varints, decode_varints
from emergraph.exporters.onnxfile.dtypes import (
    DATA_FIELDS,
    DOUBLE_DATA,
    FLOAT_DATA,
    INT32_DATA,
    INT64_DATA,
    RAW_DATA,
    STRING_DATA,
    UINT64_DATA,
)
from emergraph.exporters.onnxfile.findings import refusal


class Encoding(Enum):
    """How bytes stand for elements."""

    FIXED = "fixed"
    """Little-endian elements one after the other, those of less than 8 bits packed: `raw_data`."""
    VARINT = "varint"
    """Protobuf's variable-length integers."""
    WIDE = "wide"
    """Integers of 8 bytes each."""
    TEXT = "text"
    """Strings; the bytes are left out."""


@dataclass(frozen=True)
class Stored:
    """Stored values."""

    field: int
    """TensorProto field that they come from; external data counts as `raw_data`."""
    encoding: Encoding
    content: memoryview
    n_strings: int = 0

    @property
    def n_entries(self) -> int:
        """Entries of the field: bytes of `raw_data`, numbers of the typed fields."""
        size = len(self.content)
        if self.encoding is Encoding.TEXT:
            return self.n_strings
        if self.encoding is Encoding.VARINT:
            return count_varints(np.frombuffer(self.content, dtype=np.uint8))
        if self.encoding is Encoding.WIDE:
            return size // 8
        return {FLOAT_DATA: size // 4, DOUBLE_DATA: size // 8}.get(self.field, size)

    def integers(self) -> NDArray[np.int64]:
        """Return the entries of an integer field (modulo 2^64, read as signed)."""
        if self.encoding is Encoding.WIDE:
            return np.frombuffer(self.content, dtype=np.int64)
        return decode_varints(np.frombuffer(self.content, dtype=np.uint8), self.n_entries).view(np.int64)


NOTHING = Stored(RAW_DATA, Encoding.FIXED, memoryview(b""))
"""No values at all, as tensors without elements may have."""


def in_file(content: memoryview, data_field: int) -> Stored:
    """Return values that were left in the model file."""
    varint = data_field in {INT32_DATA, INT64_DATA, UINT64_DATA}
    return Stored(data_field, Encoding.VARINT if varint else Encoding.FIXED, content)


def inline_values(proto: TensorProto, where: str) -> Stored:
    """Return the values that a proto holds itself.

    Raises:
        InvalidInputError: Values in two fields; readers disagree about which ones count.
    """
    filled = [
        number for number, name in DATA_FIELDS.items() if number != RAW_DATA and len(getattr(proto, name))
    ]
    if proto.HasField("raw_data"):
        filled.append(RAW_DATA)
    if len(filled) > 1:
        names = " and in ".join(DATA_FIELDS[number] for number in filled)
        raise refusal("ONNX-TENSOR-TWICE", f"values in {names}; readers disagree", where)
    if not filled:
        return NOTHING
    number = filled[0]
    if number == STRING_DATA:
        return Stored(number, Encoding.TEXT, memoryview(b""), len(proto.string_data))
    if number == RAW_DATA:
        return Stored(number, Encoding.FIXED, memoryview(proto.raw_data))
    values = getattr(proto, DATA_FIELDS[number])
    if number in {FLOAT_DATA, DOUBLE_DATA}:
        floats = np.array(values, dtype=np.float32 if number == FLOAT_DATA else np.float64)
        return Stored(number, Encoding.FIXED, floats.view(np.uint8).data)
    integers = np.array(values, dtype=np.uint64 if number == UINT64_DATA else np.int64)
    return Stored(number, Encoding.WIDE, integers.view(np.uint8).data)
