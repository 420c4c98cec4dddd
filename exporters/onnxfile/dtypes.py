"""The element types of ONNX tensors: bits, array types, and where values may stand."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

FLOAT_DATA, INT32_DATA, STRING_DATA, INT64_DATA, RAW_DATA, DOUBLE_DATA, UINT64_DATA = 4, 5, 6, 7, 9, 10, 11
"""Fields of a TensorProto that hold values."""
DATA_FIELDS = {
    FLOAT_DATA: "float_data",
    INT32_DATA: "int32_data",
    STRING_DATA: "string_data",
    INT64_DATA: "int64_data",
    RAW_DATA: "raw_data",
    DOUBLE_DATA: "double_data",
    UINT64_DATA: "uint64_data",
}
"""Their names."""


@dataclass(frozen=True)
class ElementType:
    """One element type."""

    code: int
    """TensorProto.DataType."""
    name: str
    """numpy or ml_dtypes name, e.g. "float32", "bfloat16", "int4"; "string" for text."""
    bits: int
    """Bits of one element in `raw_data`; 0 for text."""
    typed_field: int
    """The one field besides `raw_data` that may hold values of this type."""
    per_entry: int = 1
    """Elements per entry of that field."""

    @property
    def dtype(self) -> "np.dtype[np.generic]":
        """The array type; sub-byte elements take one byte each in memory."""
        return np.dtype(getattr(ml_dtypes, self.name, self.name))

    @property
    def is_whole(self) -> bool:
        """Whether elements are real numbers or booleans of whole bytes, which can be fed to a model."""
        return self.bits >= 8 and not self.name.startswith("complex")

    @property
    def is_shared(self) -> bool:
        """Whether numpy knows the type by itself, like onnxruntime."""
        return self.is_whole and not hasattr(ml_dtypes, self.name)

    def n_bytes(self, n_elements: int) -> int:
        """Return the bytes of `n_elements` in the packed layout of `raw_data`."""
        return -(-n_elements * self.bits // 8)

    def n_entries(self, n_elements: int) -> int:
        """Return the entries of `n_elements` in `typed_field`."""
        if self.name.startswith("complex"):
            return 2 * n_elements
        return -(-n_elements // self.per_entry)


ELEMENT_TYPES: dict[int, ElementType] = {
    element.code: element
    for element in (
        ElementType(1, "float32", 32, FLOAT_DATA),
        ElementType(2, "uint8", 8, INT32_DATA),
        ElementType(3, "int8", 8, INT32_DATA),
        ElementType(4, "uint16", 16, INT32_DATA),
        ElementType(5, "int16", 16, INT32_DATA),
        ElementType(6, "int32", 32, INT32_DATA),
        ElementType(7, "int64", 64, INT64_DATA),
        ElementType(8, "string", 0, STRING_DATA),
        ElementType(9, "bool", 8, INT32_DATA),
        ElementType(10, "float16", 16, INT32_DATA),
        ElementType(11, "float64", 64, DOUBLE_DATA),
        ElementType(12, "uint32", 32, UINT64_DATA),
        ElementType(13, "uint64", 64, UINT64_DATA),
        ElementType(14, "complex64", 64, FLOAT_DATA),
        ElementType(15, "complex128", 128, DOUBLE_DATA),
        ElementType(16, "bfloat16", 16, INT32_DATA),
        ElementType(17, "float8_e4m3fn", 8, INT32_DATA),
        ElementType(18, "float8_e4m3fnuz", 8, INT32_DATA),
        ElementType(19, "float8_e5m2", 8, INT32_DATA),
        ElementType(20, "float8_e5m2fnuz", 8, INT32_DATA),
        ElementType(21, "uint4", 4, INT32_DATA, 2),
        ElementType(22, "int4", 4, INT32_DATA, 2),
        ElementType(23, "float4_e2m1fn", 4, INT32_DATA, 2),
        ElementType(24, "float8_e8m0fnu", 8, INT32_DATA),
        ElementType(25, "uint2", 2, INT32_DATA, 4),
        ElementType(26, "int2", 2, INT32_DATA, 4),
        ElementType(27, "float6_e2m3fn", 6, INT32_DATA),
        ElementType(28, "float6_e3m2fn", 6, INT32_DATA),
    )
}
"""Element types by TensorProto.DataType; anything else is refused."""
BY_NAME: dict[str, ElementType] = {element.name: element for element in ELEMENT_TYPES.values()}
"""Element types by name."""
PLAIN: dict[int, str] = {code: element.name for code, element in ELEMENT_TYPES.items() if element.is_shared}
"""Element types that numpy and onnxruntime share."""
INTEGERS = frozenset(code for code in PLAIN if ELEMENT_TYPES[code].dtype.kind in "iub")
"""Integers and booleans of whole bytes."""
STRING = BY_NAME["string"].code


def numpy_dtype(element_type: int) -> "np.dtype[np.generic] | None":
    """The array type of an element type; None for text, sub-byte and unknown types."""
    element = ELEMENT_TYPES.get(element_type)
    return element.dtype if element is not None and element.is_whole else None


def type_name(element_type: int) -> str:
    """Name for messages: "float32", or "element type 21" for what numpy has no array for."""
    dtype = numpy_dtype(element_type)
    if element_type == STRING:
        return "string"
    return dtype.name if dtype is not None else f"element type {element_type}"


def element_type_of(dtype: "np.dtype[np.generic]") -> int | None:
    """The ONNX element type of an array type; None where there is none that can be fed."""
    element = BY_NAME.get(dtype.name)
    return element.code if element is not None and element.is_whole else None
