"""ONNX element types as numpy sees them in this process and in the child."""

import ml_dtypes
import numpy as np

PLAIN: dict[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
"""Element types that numpy and onnxruntime share."""

INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})
"""Integers and booleans of whole bytes."""

EXTENDED: dict[int, str] = {
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    24: "float8_e8m0fnu",
}
"""Whole-byte element types that need ml_dtypes."""

STRING = 8


def numpy_dtype(element_type: int) -> np.dtype[np.generic] | None:
    """The array type of an element type; None for text, sub-byte and unknown types."""
    if element_type in PLAIN:
        return np.dtype(PLAIN[element_type])
    if element_type in EXTENDED:
        extended: np.dtype[np.generic] = np.dtype(getattr(ml_dtypes, EXTENDED[element_type]))
        return extended
    return None


def type_name(element_type: int) -> str:
    """Name for messages: "float32", or "element type 21" for what numpy has no array for."""
    dtype = numpy_dtype(element_type)
    if element_type == STRING:
        return "string"
    return dtype.name if dtype is not None else f"element type {element_type}"


def element_type_of(dtype: np.dtype[np.generic]) -> int | None:
    """The ONNX element type of an array type; None where there is none that can be fed."""
    for table in (PLAIN, EXTENDED):
        for element_type, name in table.items():
            if name == dtype.name:
                return element_type
    return None
