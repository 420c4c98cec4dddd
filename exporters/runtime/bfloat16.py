"""bfloat16 bits as float32 values, with numpy alone: the child does not load more than it needs."""

import numpy as np
from numpy.typing import NDArray

BFLOAT16 = 16
"""ONNX element type."""


def widened_bits(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The float32 values of raw little-endian bfloat16 bytes.

    Example:
        >>> widened_bits(np.array([0x80, 0x3F, 0x00, 0xC0], np.uint8)).tolist()
        [1.0, -2.0]
    """
    halves = np.ascontiguousarray(raw).view("<u2")
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
