"""Numbers that follow from codes in a model file, computed for the rows and columns that are asked for.

A `Coding` is a tree: tensors of the file at its leaves, above them blocks of ggml, scales and zero points,
and what moves rows (the recipes of wired models). It is built for an export, and again when a graph of a
store asks for weights that stayed in the file; a store may come from anybody, and is not trusted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.runtime.quantization import dequantize, laid_out
from emergraph.exporters.weightfiles.gguf.elements import BLOCKS, GGML, BlockType, unpacked
from emergraph.exporters.weightfiles.recipes import Shape, moved_rows
from emergraph.graphstore.inplace import Entries, Held, Part
from emergraph.graphstore.modelfiles import Coding, WantedTensor

Array = NDArray[np.generic]
Mask = NDArray[np.bool_]
Read = Callable[[WantedTensor], Array]

DEQUANTIZE, TURN = "dequantize", "transpose"
"""Operations besides blocks of ggml and those that move rows."""
_BLOCK_TYPES = {kind.name: kind for kind in BLOCKS.values() if kind.decoded}


@dataclass(frozen=True)
class Decoded:
    """A tensor that is computed a part at a time."""

    shape: Shape
    entries: Entries
    """Its values: the last axis that is longer than 1 as columns, those before it as rows."""

    def array(self) -> Array:
        """All values."""
        n_rows, n_columns = self.entries.shape
        return np.ascontiguousarray(self.entries.part(slice(0, n_rows), slice(0, n_columns))).reshape(
            self.shape
        )


@dataclass(frozen=True)
class CodedTensor:
    """A parameter that follows from what the file holds."""

    coding: Coding
    decoded: Decoded
    first: Array
    """What the file holds of the first tensor that it follows from."""


def coded_tensor(coding: Coding, read: Read) -> CodedTensor | None:
    """Return a parameter that can be computed a part at a time; None where it cannot."""
    try:
        return CodedTensor(coding, decoded(coding, read), read(next(coding.tensors())))
    except ValueError:
        return None


def decoded(coding: Coding, read: Read) -> Decoded:
    """Return the tensor that a coding gives.

    Args:
        coding: How it follows from tensors of a file.
        read: Gives the values of such a tensor, without a copy where that is possible.

    Raises:
        ValueError: The coding is not defined, or does not fit its tensors.
    """
    try:
        return _decoded(coding, read)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"coding {coding.op!r}, which does not fit its tensors: {error}") from error


def _decoded(coding: Coding, read: Read) -> Decoded:
    if coding.op == GGML:
        return _of_blocks(coding, read)
    if coding.op == DEQUANTIZE:
        return _of_codes(coding, read)
    parts = [_decoded(one, read) if isinstance(one, Coding) else _plain(read(one)) for one in coding.parts]
    if coding.op == TURN:
        (inner,) = parts
        if len(inner.shape) != 2 or inner.shape != inner.entries.shape:
            raise ValueError(f"a tensor of shape {inner.shape} is turned, expected a matrix")
        return Decoded(inner.shape[::-1], _Turned(inner.entries))
    args = [arg for arg in coding.args if isinstance(arg, int) and arg >= 0]
    shapes = [part.shape for part in parts]
    widths = {part.entries.shape[1] for part in parts}
    if len(widths) != 1 or any(len(shape) < 2 or shape[-1] not in widths for shape in shapes):
        raise ValueError(f"rows of tensors of shapes {shapes} cannot be moved")
    shape, order = moved_rows(coding.op, shapes, args)
    return Decoded(shape, _Moved([part.entries for part in parts], order))


def _plain(values: Array) -> Decoded:
    return Decoded(values.shape, Held(_in_rows(values)))


def _in_rows(values: Array) -> Array:
    """Axes as rows and columns; axes of length 1 at the end make no column."""
    shape = list(values.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return values.reshape(prod(shape[:-1]), shape[-1] if shape else 1)


def _of_blocks(coding: Coding, read: Read) -> Decoded:
    (name,), (leaf,) = coding.args, coding.parts
    kind = _BLOCK_TYPES.get(str(name))
    if kind is None or isinstance(leaf, Coding):
        raise ValueError(f"blocks of type {name!r}, which is not known")
    codes = read(leaf)
    if codes.dtype != np.uint8 or not codes.size or codes.shape[-1] % kind.n_bytes:
        raise ValueError(f"blocks of {kind.name} in {codes.dtype} {codes.shape}")
    width = codes.shape[-1] // kind.n_bytes * kind.values
    return Decoded((*codes.shape[:-1], width), _Blocks(codes.reshape(-1, codes.shape[-1]), kind))


def _of_codes(coding: Coding, read: Read) -> Decoded:
    """Parts: codes and scale, codes and zero point, or all three; the setting says which."""
    axis, given = coding.args
    tensors = [read(part) for part in coding.parts if isinstance(part, WantedTensor)]
    fits = given in _BESIDE and len(coding.parts) == len(tensors) == 1 + len(str(given))
    if not fits or type(axis) is not int:
        raise ValueError("codes without what they have to be scaled by")
    codes = tensors[0]
    factors = dict(zip(str(given), tensors[1:], strict=True))
    scale, zero = (
        None if key not in factors else _beside(factors[key], codes.shape, axis) for key in (SCALE, ZERO)
    )
    return Decoded(codes.shape, _Scaled(_in_rows(codes), scale, zero))


SCALE, ZERO = "s", "z"
"""What stands beside codes, in the settings of `DEQUANTIZE`."""
_BESIDE = ("", SCALE, ZERO, SCALE + ZERO)


def _beside(numbers: Array, shape: Shape, axis: int) -> Array:
    """Scales or zero points as rows and columns that broadcast to those of the codes."""
    if numbers.size == 1:
        return numbers.reshape(1, 1)
    numbers = numbers.reshape(-1)
    if not 0 <= axis < len(shape) or numbers.size != shape[axis]:
        raise ValueError(f"{numbers.size} scales along axis {axis} of {shape}")
    last = max((k for k, size in enumerate(shape) if size > 1), default=0)
    laid = laid_out(numbers, shape, axis=axis).reshape(
        [shape[axis] if k == axis else 1 for k in range(last + 1)]
    )
    if axis == last:
        return laid.reshape(1, -1)
    return np.broadcast_to(laid, (*shape[:last], 1)).reshape(-1, 1)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Rows of blocks of ggml."""

    codes: NDArray[np.generic]
    """(rows, bytes)."""
    kind: BlockType
    by_rows: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.codes.shape[0], self.codes.shape[1] // self.kind.n_bytes * self.kind.values

    def part(self, rows: Part, columns: Part) -> Array:
        """Unpack some rows, of these the blocks in which the columns are."""
        stored, inside = self._stored(rows, columns)
        return unpacked(stored, self.kind)[:, inside]

    def mask(self, rows: Part, columns: Part) -> Mask:
        """Tell from the codes which are not zero, where a block is codes around zero times a scale."""
        codes_of = _AROUND_ZERO.get(self.kind.name)
        stored, inside = self._stored(rows, columns)
        if codes_of is not None:
            blocks = np.ascontiguousarray(stored).reshape(len(stored), -1, self.kind.n_bytes)
            scales = blocks[:, :, :2].copy().view(np.float16)
            if np.isfinite(scales).all():
                told: Mask = codes_of(blocks[:, :, 2:]) & (scales != 0)
                return told.reshape(len(stored), -1)[:, inside]
        return np.asarray(unpacked(stored, self.kind)[:, inside] != 0)

    def _stored(self, rows: Part, columns: Part) -> tuple[Array, Part]:
        first, last = _bounds(columns)
        size, n_bytes = self.kind.values, self.kind.n_bytes
        start, stop = first // size, -(-last // size)
        return self.codes[rows, start * n_bytes : stop * n_bytes], _moved(columns, -start * size)


def _nibbles(codes: Array) -> Mask:
    """Which values of Q4_0 are not zero: low halves of the bytes, then high ones, around 8."""
    return np.concatenate([(codes & np.uint8(15)) != 8, (codes >> np.uint8(4)) != 8], axis=-1)  # type: ignore[operator]


_AROUND_ZERO: dict[str, Callable[[Array], Mask]] = {"Q8_0": lambda codes: codes != 0, "Q4_0": _nibbles}
"""Types whose blocks begin with a scale of two bytes: which of the codes behind it stand for something."""


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Codes less a zero point, times a scale."""

    codes: Array
    scale: Array | None
    zero: Array | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def by_rows(self) -> bool:
        """As the file holds them."""
        return True

    def part(self, rows: Part, columns: Part) -> Array:
        """Scale some of the codes."""
        scale, zero = (
            None if one is None else _of_part(one, rows, columns) for one in (self.scale, self.zero)
        )
        return dequantize(Held(self.codes).part(rows, columns), scale, zero)

    def mask(self, rows: Part, columns: Part) -> Mask:
        """Compare the codes with their zero points, where no scale makes anything else of that."""
        if not self._told_by_codes:
            return np.asarray(self.part(rows, columns) != 0)
        codes = Held(self.codes).part(rows, columns)
        zero = np.zeros((), codes.dtype) if self.zero is None else _of_part(self.zero, rows, columns)
        return np.asarray(codes != zero)

    @cached_property
    def _told_by_codes(self) -> bool:
        if "float" in self.codes.dtype.name:
            return self.scale is None
        scale = np.ones(1) if self.scale is None else self.scale.astype(np.float32)
        return bool((np.isfinite(scale) & (scale != 0)).all())


def _of_part(numbers: Array, rows: Part, columns: Part) -> Array:
    chosen = numbers if numbers.shape[0] == 1 else numbers[rows]
    return chosen if chosen.shape[1] == 1 else chosen[:, columns]


@dataclass(frozen=True, eq=False)
class _Turned:
    """Rows as columns."""

    inner: Entries

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.inner.shape[1], self.inner.shape[0]

    @property
    def by_rows(self) -> bool:
        """The other way round."""
        return not self.inner.by_rows

    def part(self, rows: Part, columns: Part) -> Array:
        """Some rows of some columns."""
        return self.inner.part(columns, rows).T

    def mask(self, rows: Part, columns: Part) -> Mask:
        """Which of them are not zero."""
        return self.inner.mask(columns, rows).T


@dataclass(frozen=True, eq=False)
class _Moved:
    """Rows of several matrices of one width, in another order."""

    members: list[Entries]
    order: NDArray[np.int64]
    """Which row each is, counted over all members."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.order.size, self.members[0].shape[1]

    @property
    def by_rows(self) -> bool:
        """As the members are."""
        return self.members[0].by_rows

    def part(self, rows: Part, columns: Part) -> Array:
        """Some rows of some columns."""
        return self._gathered(rows, lambda member, own: member.part(own, columns))

    def mask(self, rows: Part, columns: Part) -> Mask:
        """Which of them are not zero."""
        return self._gathered(rows, lambda member, own: member.mask(own, columns)).astype(
            np.bool_, copy=False
        )

    def _gathered(self, rows: Part, take: Callable[[Entries, Part], Array]) -> Array:
        wanted = self.order[rows]
        starts = np.cumsum([0, *(member.shape[0] for member in self.members)])
        owner = np.searchsorted(starts, wanted, side="right") - 1
        found = [
            (np.flatnonzero(owner == k), take(self.members[k], _compact(wanted[owner == k] - starts[k])))
            for k in np.unique(owner)
        ]
        if len(found) == 1:
            return found[0][1]
        result = np.empty((wanted.size, found[0][1].shape[1]), found[0][1].dtype)
        for places, values in found:
            result[places] = values
        return result


def _compact(rows: NDArray[np.int64]) -> Part:
    """Consecutive rows as a slice, which makes a view of them."""
    first = int(rows[0])
    return (
        slice(first, first + rows.size) if np.array_equal(rows, np.arange(first, first + rows.size)) else rows
    )


def _bounds(columns: Part) -> tuple[int, int]:
    if isinstance(columns, slice):
        found = range(columns.start, columns.stop, columns.step or 1)
        return found[0], found[-1] + 1
    return int(columns.min()), int(columns.max()) + 1


def _moved(columns: Part, by: int) -> Part:
    if isinstance(columns, slice):
        return slice(columns.start + by, columns.stop + by, columns.step)
    return columns + by
