"""Values of other floating types as float32, with numpy alone: the child does not load more than it needs."""

import numpy as np
from numpy.typing import NDArray

BFLOAT16, DOUBLE = 16, 11
"""ONNX element types."""

_LARGEST = np.finfo(np.float32).max


def widened_bits(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The float32 values of raw little-endian bfloat16 bytes.

    Example:
        >>> widened_bits(np.array([0x80, 0x3F, 0x00, 0xC0], np.uint8)).tolist()
        [1.0, -2.0]
    """
    halves = np.ascontiguousarray(raw).view("<u2")
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrowed(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """float64 values as float32; finite ones stay finite, since the lowest number masks as infinity does not.

    Example:
        >>> narrowed(np.array([0.5, -1e300, np.inf])).tolist()
        [0.5, -3.4028234663852886e+38, inf]
    """
    with np.errstate(over="ignore"):
        single = np.asarray(values, np.float32)
    beyond = np.isinf(single) & np.isfinite(values)
    return np.where(beyond, np.copysign(_LARGEST, single), single) if beyond.any() else single


def single_bytes(raw: NDArray[np.uint8], element_type: int) -> NDArray[np.float32]:
    """The float32 values of raw little-endian bytes of one of the types above."""
    return widened_bits(raw) if element_type == BFLOAT16 else narrowed(np.ascontiguousarray(raw).view("<f8"))
