"""Unpacking integers of a few bits."""

import numpy as np
from numpy.typing import NDArray

CodeArray = NDArray[np.uint8]

_ROWS = 1 << 12


def unpack_words(words: NDArray[np.generic], bits: int, count: int) -> CodeArray:
    """Return the first `count` codes of each row; codes lie one behind the other, low bits first.

    Args:
        words: (rows, n) integers of 32 bits.
        bits: Of a code, at most 8; codes may straddle two words.
        count: Codes of a row, at most 32 n / bits.
    """
    rows = words.shape[0]
    codes = np.empty((rows, count), np.uint8)
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(rows, -1)
    for start in range(0, rows, _ROWS):
        part = slice(start, start + _ROWS)
        if bits == 8:
            codes[part] = raw[part, :count]
            continue
        digits = np.unpackbits(raw[part], axis=1, count=bits * count, bitorder="little")
        codes[part] = np.packbits(digits.reshape(-1, count, bits), axis=2, bitorder="little")[..., 0]
    return codes


def unpack_columns(words: NDArray[np.generic], bits: int, count: int) -> CodeArray:
    """Return the first `count` codes of each column, as rows of codes: (count, columns)."""
    return unpack_words(words.T, bits, count).T


def nibbles(packed: NDArray[np.uint8], *, high_first: bool) -> CodeArray:
    """Return two codes for each byte of the last axis."""
    low, high = packed & 15, packed >> 4
    pair = (high, low) if high_first else (low, high)
    return np.stack(pair, axis=-1).reshape(*packed.shape[:-1], -1)
