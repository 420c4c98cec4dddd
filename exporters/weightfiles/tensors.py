"""Tensors of a weight file: checked descriptions whose values stay in the mapped file until asked for."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.onnxfile.decoding import elements_from_codes, pack_bits, unpack_bits
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.dtypes import DECODED, stored_bytes
from emergraph.exporters.weightfiles.gguf.elements import Blocks
from emergraph.exporters.weightfiles.registry import refusal

Array = NDArray[np.generic]

MAX_RANK = 32
"""Dimensions that a tensor may have."""
MAX_BYTES = (1 << 63) - 1
"""Bytes beyond which array libraries overflow, zero-sized dimensions left out of the product."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantization:
    """How the integers of a quantized tensor become numbers: (q - zero_point) * scale."""

    scale: tuple[float, ...]
    """One value, or one for each index along `axis`."""
    zero_point: tuple[float, ...]
    """As many as scales."""
    axis: int | None
    """None where one scale holds for the whole tensor."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyTensor:
    """A tensor of the file; its values are read when `array` or `raw` is called.

    That every element lies inside the stored bytes was checked when the tensor was made.
    """

    name: str
    """As in the file, with the names of the dicts around it joined by dots."""
    dtype: str
    """numpy or ml_dtypes name: "float32", "bfloat16", "float8_e4m3fn", ..."""
    shape: tuple[int, ...]
    alias_of: str | None = None
    """An earlier name for exactly the same storage, offset, shape and strides: one tensor under two names."""
    view_of: str | None = None
    """An earlier tensor that shares bytes with this one without being the same."""
    view: str | None = None
    """How it shares them, e.g. "transposed"; None unless `view_of` is given."""
    quantization: Quantization | None = None
    blocks: Blocks | None = None
    """What the stored bytes are blocks of, in a GGUF file."""
    _read: Callable[[], Array] = field(repr=False)
    _is_view: bool = field(default=False, repr=False)
    """Whether `_read` copies nothing."""

    @property
    def n_elements(self) -> int:
        """Product of the dimensions; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of `raw`; elements of less than 8 bits are packed."""
        return stored_bytes(self.dtype, self.n_elements)

    def array(self) -> Array:
        """Return the values, exactly, as a read-only array of `shape`, always aligned.

        A view of the file where the file holds the elements as such on an aligned address, a copy otherwise.

        Raises:
            InvalidInputError: a compressed record turns out to be damaged, or a sparse tensor to be
                malformed.
        """
        values = self._read()
        if not values.flags.aligned:
            values = values.copy()
        values.flags.writeable = False
        return values

    def held(self) -> Array | None:
        """Return the values without a copy, aligned or not; None where the file holds something else."""
        if not self._is_view or DECODED[self.dtype].bits < 8:
            return None
        values = self._read()
        values.flags.writeable = False
        return values if values.flags.c_contiguous else None

    @cached_property
    def sha256(self) -> str:
        """Of the values as little-endian bytes in C order, sub-byte elements unpacked."""
        held = self.held()
        values = np.ascontiguousarray(self.array()) if held is None else held
        return hashlib.sha256(values.reshape(-1).view(np.uint8).data if values.size else b"").hexdigest()

    def raw(self) -> memoryview:
        """Return the values as little-endian bytes in C order, `n_bytes` of them; sub-byte ones packed."""
        values = np.ascontiguousarray(self.array()).reshape(-1)
        if DECODED[self.dtype].bits < 8:
            return pack_bits(values.view(np.uint8), DECODED[self.dtype].bits).data
        return values.view(np.uint8).data if values.size else memoryview(b"")


def check_shape(shape: tuple[int, ...], dtype: str, where: str) -> None:
    """Check dimensions on their own.

    Raises:
        InvalidInputError: negative, too many, or a product that overflows (TENSOR-SHAPE).
    """
    if len(shape) > MAX_RANK or any(dim < 0 for dim in shape):
        shown = printable(str(shape))
        raise refusal(
            "TENSOR-SHAPE", f"shape {shown}; expected at most {MAX_RANK} dimensions, none negative", where
        )
    if stored_bytes(dtype, math.prod(dim for dim in shape if dim)) > MAX_BYTES:
        raise refusal("TENSOR-SHAPE", f"the dimensions {printable(str(shape))} overflow", where)


def check_bounds(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, dtype: str, *, available: int, where: str
) -> None:
    """Check that a strided tensor lies inside its storage, in Python integers that cannot overflow.

    Args:
        shape: Dimensions.
        strides: Elements between neighbours along each dimension.
        offset: First element.
        dtype: Element type of at least 8 bits.
        available: Bytes of the storage.
        where: How to name the tensor in messages.

    Raises:
        InvalidInputError: the shape is impossible (TENSOR-SHAPE).
        UnsafeInputError: an element lies outside (TENSOR-BOUNDS), or the tensor has more elements than the
            storage, which only repetition or overlap makes possible (TENSOR-EXPANDED).
    """
    check_shape(shape, dtype, where)
    if len(strides) != len(shape) or offset < 0 or any(stride < 0 for stride in strides):
        message = f"offset {offset}, strides {printable(str(strides))}; expected {len(shape)}, none negative"
        raise refusal("TENSOR-BOUNDS", message, where)
    if 0 in shape:
        return
    last = offset + sum((dim - 1) * stride for dim, stride in zip(shape, strides, strict=True))
    if stored_bytes(dtype, last + 1) > available:
        message = (
            f"its last element ends at byte {stored_bytes(dtype, last + 1)} of a storage of {available} bytes"
        )
        raise refusal("TENSOR-BOUNDS", message, where)
    needed = stored_bytes(dtype, math.prod(shape))
    if needed > available:
        message = (
            f"it claims {needed} bytes of values, its storage holds {available}; save it with .contiguous()"
        )
        raise refusal("TENSOR-EXPANDED", message, where)


def strided_reader(
    data: memoryview, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> Callable[[], Array]:
    """Return what reads a tensor that `check_bounds` has accepted."""
    element = DECODED[dtype]

    def read() -> Array:
        if 0 in shape:
            return np.empty(shape, element.dtype)
        size = element.dtype.itemsize
        steps = tuple(stride * size for stride in strides)
        return np.ndarray(shape, element.dtype, data, offset * size, steps)

    return read


def packed_reader(data: memoryview, dtype: str, shape: tuple[int, ...]) -> Callable[[], Array]:
    """Return what reads a C-order tensor whose bytes are exactly `data`; sub-byte elements come unpacked."""
    element = DECODED[dtype]

    def read() -> Array:
        if element.bits < 8:
            codes = unpack_bits(np.frombuffer(data, np.uint8), element.bits, math.prod(shape))
            return elements_from_codes(codes, element).reshape(shape)
        return np.frombuffer(data, element.dtype).reshape(shape)

    return read
