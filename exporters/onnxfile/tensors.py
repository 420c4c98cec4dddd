"""Tensors whose values stay where they are until asked for."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.decoding import (
    codes_from_elements,
    elements_from_codes,
    pack_bits,
    unpack_bits,
)
from emergraph.exporters.onnxfile.dtypes import (
    DATA_FIELDS,
    DOUBLE_DATA,
    ELEMENT_TYPES,
    FLOAT_DATA,
    RAW_DATA,
    ElementType,
)
from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.stored import NOTHING, Encoding, Stored

MAX_RANK = 64
"""Dimensions that an array may have (numpy's limit)."""
MAX_ELEMENTS = (1 << 62) - 1
"""Elements beyond which sizes no longer fit the integers that array libraries use."""

Array = NDArray[np.generic]


@dataclass(frozen=True)
class OnnxTensor:
    """A tensor of the model; its values are read when `array` or `raw` is called.

    Shape, type and stored size agree with each other: that was checked when the tensor was made.
    """

    name: str
    """As in the file; "" for tensors in attributes without one."""
    data_type: int
    """TensorProto.DataType."""
    shape: tuple[int, ...]
    _stored: Stored = field(repr=False, compare=False)

    @property
    def element(self) -> ElementType:
        """The element type."""
        return ELEMENT_TYPES[self.data_type]

    @property
    def dtype(self) -> str:
        """Name in numpy or ml_dtypes: "float32", "bfloat16", "int4", ...; "string" for text."""
        return self.element.name

    @property
    def n_elements(self) -> int:
        """Product of the dimensions; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of `raw`: elements of less than 8 bits are packed. 0 for text."""
        return self.element.n_bytes(self.n_elements)

    def array(self) -> Array:
        """Return the values, exactly, as a read-only array of `shape`.

        The array is a view of the file where the file holds the elements as such on an aligned address,
        a copy otherwise (sub-byte elements, variable-length integers, odd addresses). It is always aligned.

        Raises:
            InvalidInputError: The tensor holds text, or values out of the range of their type.
        """
        if self.dtype == "string":
            raise self._refused("holds text, which has no place in a weighted graph")
        try:
            flat = self._flat()
            values = flat.reshape(self.shape)
        except ValueError as error:  # a zero-element shape whose other dimensions overflow
            raise self._refused(f"shape {self.shape} is beyond what arrays can have: {error}") from error
        values.flags.writeable = False
        return values

    def held(self) -> Array | None:
        """Return the values without a copy, aligned or not; None where they are not stored as such."""
        if self._stored.encoding is not Encoding.FIXED or self.element.bits < 8:  # text has no bits
            return None
        dtype = self.element.dtype
        if dtype == np.bool_:
            return None
        if math.prod(self.shape) * dtype.itemsize != len(self._stored.content):
            return None
        values: Array = np.ndarray(self.shape, dtype, self._stored.content)
        values.flags.writeable = False
        return values

    def raw(self) -> memoryview:
        """Return the values as little-endian bytes in C order, `n_bytes` of them.

        This is the layout of ONNX's `raw_data`: elements of 2, 4 and 6 bits are packed from the least
        significant bit up. No copy is made where the file stores them that way.

        Raises:
            InvalidInputError: The tensor holds text, or values out of the range of their type.
        """
        if self._stored.encoding is Encoding.FIXED:
            return self._stored.content
        values = self.array().reshape(-1)
        if self.element.bits < 8:
            return pack_bits(codes_from_elements(values, self.element), self.element.bits).data
        return values.view(np.uint8).data

    def _flat(self) -> Array:
        element, dtype = self.element, self.element.dtype
        if self._stored.encoding is not Encoding.FIXED:
            return self._from_integers(self._stored.integers())
        content = self._stored.content
        if element.bits < 8:
            codes = unpack_bits(np.frombuffer(content, dtype=np.uint8), element.bits, self.n_elements)
            return elements_from_codes(codes, element)
        if dtype == np.bool_:
            return np.frombuffer(content, dtype=np.uint8).astype(np.bool_)
        flat: Array = np.frombuffer(content, dtype=dtype)
        return flat if flat.flags.aligned else flat.copy()

    def _from_integers(self, values: NDArray[np.int64]) -> Array:
        """Return elements from the entries of `int32_data`, `int64_data` or `uint64_data`."""
        element, dtype = self.element, self.element.dtype
        if self.dtype in {"int64", "uint64"}:
            return values.view(dtype)
        if self.dtype == "bool":
            self._check_range(values, 0, 1)
            return values.astype(np.bool_)
        if element.bits >= 8 and dtype.kind in "iu":
            half = 0 if dtype.kind == "u" else 1 << (element.bits - 1)
            self._check_range(values, -half, (1 << element.bits) - 1 - half)
            return values.astype(dtype)
        if element.bits >= 8:
            self._check_range(values, 0, (1 << element.bits) - 1)
            return values.astype(f"<u{element.bits // 8}").view(dtype)
        packed_bits = element.bits * element.per_entry
        self._check_range(values, -(1 << (packed_bits - 1)), (1 << packed_bits) - 1)
        codes = values.astype(np.uint8) & np.uint8((1 << packed_bits) - 1)
        if element.per_entry > 1:
            codes = unpack_bits(codes, element.bits, self.n_elements)
        return elements_from_codes(codes, element)

    def _check_range(self, values: NDArray[np.int64], low: int, high: int) -> None:
        if len(values) and (int(values.min()) < low or int(values.max()) > high):
            raise self._refused(f"values outside {low} .. {high}, the range of {self.dtype}")

    def _refused(self, message: str) -> EmergraphError:
        return refusal("ONNX-TENSOR-DATA", message, f"tensor {printable(self.name)!r}")


def checked_tensor(name: str, data_type: int, dims: tuple[int, ...], stored: Stored) -> OnnxTensor:
    """Return a tensor after checking that type, shape and stored values agree.

    Args:
        name: As in the file.
        data_type: TensorProto.DataType.
        dims: Declared dimensions.
        stored: The stored values.

    Raises:
        InvalidInputError: Unknown type, negative dimension, wrong size, or values in the wrong field.
        UnsafeInputError: More elements than any file can hold.
    """
    where = f"tensor {printable(name)!r}"
    element = check_declared(data_type, dims, where)
    tensor = OnnxTensor(name, data_type, dims, stored)
    is_text = element.name == "string"
    if stored is NOTHING:
        expected = tensor.n_elements
    elif stored.field == RAW_DATA and not is_text:
        expected = tensor.n_bytes
    elif stored.field == element.typed_field:
        expected = element.n_entries(tensor.n_elements)
    else:
        raise refusal("ONNX-TENSOR-DATA", f"{element.name} values in {DATA_FIELDS[stored.field]}", where)
    found, unit = stored.n_entries, "bytes" if stored.field == RAW_DATA else "entries"
    if stored.encoding is Encoding.VARINT and stored.content[-1] >= 0x80:
        raise refusal("ONNX-TENSOR-DATA", "the last integer is cut off", where)
    if stored.encoding is Encoding.FIXED and stored.field in {FLOAT_DATA, DOUBLE_DATA}:
        width = 4 if stored.field == FLOAT_DATA else 8
        expected, found, unit = expected * width, len(stored.content), "bytes"
    if expected != found:
        shape = " x ".join(map(str, dims)) or "a scalar"
        raise refusal(
            "ONNX-TENSOR-DATA",
            f"{found} {unit} of values; {printable(shape, 60)} of {element.name} needs {expected}",
            where,
        )
    return tensor


def check_declared(data_type: int, dims: tuple[int, ...], where: str) -> ElementType:
    """Check an element type and dimensions, without looking at values; return the element type."""
    element = ELEMENT_TYPES.get(data_type)
    if element is None:
        raise refusal("ONNX-TENSOR-TYPE", f"element type {data_type}, which ONNX does not define", where)
    if len(dims) > MAX_RANK:
        raise refusal("ONNX-TENSOR-SHAPE", f"{len(dims)} dimensions, at most {MAX_RANK} are possible", where)
    if any(dim < 0 for dim in dims):
        raise refusal("ONNX-TENSOR-SHAPE", f"negative dimension in {printable(str(dims))}", where)
    if math.prod(dims) > MAX_ELEMENTS:
        raise refusal(
            "ONNX-TENSOR-HUGE",
            f"dimensions {printable(str(dims))} claim 2^{math.prod(dims).bit_length() - 1} elements",
            where,
        )
    return element
