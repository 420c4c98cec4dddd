"""Counts over values of a tensor: how many, exact zeros, NaN and infinities."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20
"""Values that are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts over values."""

    n_params: int
    n_zeros: int
    n_nonfinite: int


def count(values: NDArray[np.generic]) -> Counts:
    """Count values, exact zeros, and NaN and infinities, a part at a time.

    Args:
        values: Of any type and shape; in C order no copy is made of more than a part.
    """
    flat = values.reshape(-1)
    zeros = bad = 0
    floating = flat.dtype.kind not in "biu" and not re.fullmatch(r"u?int\d", flat.dtype.name)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        zeros += part.size - int(np.count_nonzero(part != np.zeros((), part.dtype)))
        bad += part.size - int(np.count_nonzero(np.isfinite(part))) if floating else 0
    return Counts(n_params=flat.size, n_zeros=zeros, n_nonfinite=bad)


def bytes_of(values: NDArray[np.generic]) -> memoryview:
    """Return values in C order as bytes, one for each element of fewer than 8 bits; a view if possible."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(np.uint8).data if flat.size else memoryview(b"")
