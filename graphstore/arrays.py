"""Arrays of whole and of real numbers: their types, and weights as a store has them."""

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating]
_TINY = np.finfo(np.float32).smallest_subnormal


def as_float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return contiguous float32 values; non-zero values stay non-zero, too large ones become infinite."""
    values = np.asarray(values)
    if values.dtype.itemsize <= 4 or values.dtype.kind != "f":
        return np.ascontiguousarray(values, dtype=np.float32)
    with np.errstate(over="ignore", under="ignore"):
        result = np.ascontiguousarray(values, dtype=np.float32)
    vanished = (result == 0) & (values != 0)
    if vanished.any():
        result[vanished] = np.copysign(_TINY, values[vanished])
    return result
