"""Stored bytes to arrays and back: packed sub-byte elements, protobuf's variable-length integers."""

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.onnxfile.dtypes import ElementType
from emergraph.exporters.onnxfile.findings import refusal

Bytes = NDArray[np.uint8]
_CHUNK = 1 << 22


def unpack_bits(packed: Bytes, bits: int, n_elements: int) -> Bytes:
    """Spread packed elements of 2, 4 or 6 bits to one byte each.

    The stream is read from the least significant bit of the first byte, as `raw_data` stores it.

    Args:
        packed: (ceil(n_elements * bits / 8),) bytes.
        bits: 2, 4 or 6.
        n_elements: How many elements; what is left of the last byte is ignored.

    Returns:
        (n_elements,) values below 2^bits.
    """
    period = {2: (1, 4), 4: (1, 2), 6: (3, 4)}[bits]
    n_groups = -(-len(packed) // period[0])
    padded = np.zeros((n_groups, period[0]), dtype=np.uint8)
    padded.reshape(-1)[: len(packed)] = packed
    out = np.empty((n_groups, period[1]), dtype=np.uint8)
    mask = (1 << bits) - 1
    for index in range(period[1]):
        byte, shift = divmod(index * bits, 8)
        column = padded[:, byte] >> shift
        if shift + bits > 8:
            column = column | (padded[:, byte + 1] << (8 - shift))
        out[:, index] = column & mask
    return out.reshape(-1)[:n_elements]


def pack_bits(values: Bytes, bits: int) -> Bytes:
    """Pack bytes below 2^bits the way `raw_data` stores them; the inverse of `unpack_bits`."""
    period = {2: (1, 4), 4: (1, 2), 6: (3, 4)}[bits]
    n_groups = -(-len(values) // period[1])
    padded = np.zeros((n_groups, period[1]), dtype=np.uint8)
    padded.reshape(-1)[: len(values)] = values & ((1 << bits) - 1)
    out = np.zeros((n_groups, period[0]), dtype=np.uint8)
    for index in range(period[1]):
        byte, shift = divmod(index * bits, 8)
        out[:, byte] |= padded[:, index] << shift
        if shift + bits > 8:
            out[:, byte + 1] |= padded[:, index] >> (8 - shift)
    return out.reshape(-1)[: -(-len(values) * bits // 8)]


def elements_from_codes(codes: Bytes, element: ElementType) -> NDArray[np.generic]:
    """Return sub-byte elements from their bit patterns, one per byte."""
    if element.name.startswith("int"):
        shift = 8 - element.bits
        signed = (codes << shift).view(np.int8) >> shift
        return signed.astype(element.dtype)
    if element.name.startswith("uint"):
        return codes.astype(element.dtype)
    return codes.view(element.dtype)


def codes_from_elements(elements: NDArray[np.generic], element: ElementType) -> Bytes:
    """Return the bit patterns of sub-byte elements, one per byte; the inverse of `elements_from_codes`."""
    if "int" in element.name:
        return elements.astype(np.int8).view(np.uint8)
    return elements.view(np.uint8)


def count_varints(stored: Bytes) -> int:
    """Return how many variable-length integers there are: the bytes whose top bit is clear."""
    return sum(int(np.count_nonzero(stored[at : at + _CHUNK] < 0x80)) for at in range(0, len(stored), _CHUNK))


def decode_varints(stored: Bytes, n_values: int) -> NDArray[np.uint64]:
    """Decode protobuf's variable-length integers.

    Args:
        stored: Consecutive integers, 7 bits per byte, lowest first, top bit set on all bytes but the last.
        n_values: How many, as `count_varints` gives.

    Returns:
        (n_values,) values modulo 2^64.

    Raises:
        InvalidInputError: An integer has more than 10 bytes, or the last one is cut off.
    """
    out = np.zeros(n_values, dtype=np.uint64)
    done = at = 0
    while at < len(stored):
        chunk = stored[at : at + _CHUNK]
        last = np.flatnonzero(chunk < 0x80)
        if not len(last):
            raise refusal("ONNX-TENSOR-DATA", "an integer that is cut off")
        starts = np.concatenate(([0], last[:-1] + 1))
        lengths = last - starts + 1
        longest = int(lengths.max())
        if longest > 10:
            raise refusal("ONNX-TENSOR-DATA", "an integer of more than 10 bytes")
        values = out[done : done + len(last)]
        for place in range(longest):
            reaches = lengths > place
            bits = (chunk[starts[reaches] + place] & np.uint8(0x7F)).astype(np.uint64)
            values[reaches] |= bits << np.uint64(7 * place)
        done += len(last)
        at += int(last[-1]) + 1
    return out
