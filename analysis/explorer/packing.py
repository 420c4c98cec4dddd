"""A header and arrays as one text that a page unpacks: JSON, bytes side by side, deflated, base64."""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {"float32": "f4", "uint32": "u4", "uint16": "u2", "uint8": "u1"}


def packed(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return a header and arrays as one ASCII text, the same for the same values.

    The bytes of an array lie plane by plane, all lowest bytes first: of small numbers, the other planes are
    zeros, and of floats the planes of the exponents repeat; both deflate well.

    Args:
        header: What JSON can hold; `arrays` is added: name, type and length of each array.
        arrays: One-dimensional, of float32 or unsigned integers.
    """
    listed = [(name, _TYPES[array.dtype.name], int(array.size)) for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listed}, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    parts = [struct.pack("<I", len(text)), text.encode()]
    for (_, kind, length), array in zip(listed, arrays.values(), strict=True):
        raw = np.ascontiguousarray(array, dtype=f"<{kind}").view(np.uint8)
        parts.append(raw.reshape(length, int(kind[1])).T.tobytes())
    return base64.b64encode(zlib.compress(b"".join(parts), 9)).decode()


def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 values with 16 of their 23 bits behind the point: five digits, and a byte of zeros."""
    exact = np.asarray(values, np.float32)
    bits = (exact.view(np.uint32).astype(np.uint64) + np.uint64(0x40)) >> np.uint64(7) << np.uint64(7)
    return np.where(np.isfinite(exact), bits.astype(np.uint32).view(np.float32), exact).astype(np.float32)
