"""Weights that are codes in the model file and can stay there: how they are told without being computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.codings import DEQUANTIZE, SCALE, ZERO, Decoded, decoded
from emergraph.exporters.filetensors import CODE_TYPES, blank, place_in
from emergraph.exporters.tracing.constants import Constant
from emergraph.graphstore.inplace import Matrix
from emergraph.graphstore.modelfiles import Coding, WantedTensor
from emergraph.graphstore.records import Place

Array = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class CodedWeights:
    """Weights that follow from one tensor of the graph, which stays in the model file."""

    tensor: str
    """Name of the tensor."""
    decoded: Decoded
    """The weights, with the axes of the tensor."""
    permutation: tuple[int, ...]
    """Which axis of the tensor each axis of the weights is."""
    coding: Coding | None
    """How the weights follow from the tensor; None where they are its values."""

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        """As many bytes as there are weights, none of which takes memory as long as nobody reads it."""
        return blank(self.decoded.shape, np.dtype(np.uint8)).view(np.uint8)

    @property
    def stand_in(self) -> NDArray[np.uint8]:
        """An array that is laid out as the weights are; where its views lie says which weights they are."""
        return self._bytes.transpose(self.permutation)

    def matrix(self, view: NDArray[np.generic]) -> tuple[Matrix, Place] | None:
        """The weights that a view (n_src, n_dst) of the stand-in is, and their place; None for no view."""
        place = place_in(self._bytes, self.tensor, view)  # type: ignore[arg-type]  # bytes that nobody reads
        if place is None:
            return None
        try:
            whole = Matrix.of(self.decoded.entries, place, (view.shape[0], view.shape[1]))
        except ValueError:
            return None
        return whole, replace(place, coding=self.coding)


def transposed(codes: CodedWeights, order: Sequence[int]) -> CodedWeights:
    """The same weights with their axes in another order."""
    return replace(codes, permutation=tuple(codes.permutation[k] for k in order))


def dequantized_codes(
    stored: Constant,
    scale: Constant | None,
    zero: Constant | None,
    axis: int,
    held: Callable[[str], Array | None],
) -> CodedWeights | None:
    """The weights (codes - zero) * scale; None where they are not told by whole tensors of the file.

    Args:
        stored: The codes.
        scale: None for 1.
        zero: None for 0.
        axis: Axis of the codes that vectors of scales and zero points run along.
        held: Gives a tensor as the file holds it; None where it does not.
    """
    beside = {key: one for key, one in ((SCALE, scale), (ZERO, zero)) if one is not None}
    values: Mapping[str | None, Array | None] = {
        one.root: held(one.root) for one in (stored, *beside.values()) if one.root is not None
    }
    codes, permutation = values.get(stored.root), stored.permutation
    if stored.root is None or permutation is None or codes is None or codes.dtype.name not in CODE_TYPES:
        return None
    if any(values.get(one.root) is None or not _is_vector(one.shape) for one in beside.values()):
        return None
    found = zero is None or values[zero.root]
    if isinstance(found, np.ndarray) and found.dtype != codes.dtype:
        return None
    leaves = tuple(
        _leaf(str(one.root), array)
        for one in (stored, *beside.values())
        if (array := values[one.root]) is not None
    )
    of_root = permutation[axis] if permutation else 0
    coding = Coding(DEQUANTIZE, (of_root, "".join(beside)), leaves)
    try:
        made = decoded(coding, lambda one: np.asarray(values[one.name]))
    except ValueError:
        return None
    return CodedWeights(stored.root, made, permutation, coding)


def scaled_codes_again(
    stored: Constant, other: Constant, *, is_scale: bool, held: Callable[[str], Array | None]
) -> CodedWeights | None:
    """What codes become where their dequantization is written out: less a zero point, then times a scale.

    Args:
        stored: The codes as floats, or what is left of them after a zero point was taken away.
        other: The scale, or the zero point, which is a code as a float.
        is_scale: Which of the two it is.
        held: Gives a tensor as the file holds it; None where it does not.
    """
    known, axis = stored.codes, _axis_of(other.shape, stored.shape)
    name = other.root if is_scale else None if other.codes is None else other.codes.tensor
    values = None if name is None else held(name)
    if known is None or known.coding is None or axis is None or name is None or values is None:
        return None
    codes, *before = known.coding.parts
    fits = isinstance(codes, WantedTensor) and (is_scale or values.dtype.name == codes.dtype)
    if not fits or known.coding.args[1] not in (("", ZERO) if is_scale else ("",)):
        return None
    of_root = known.permutation[axis] if values.size > 1 or not before else known.coding.args[0]
    long = any(prod(part.shape) > 1 for part in before if isinstance(part, WantedTensor))
    if long and of_root != known.coding.args[0]:
        return None
    given = SCALE + ZERO if before else SCALE if is_scale else ZERO
    coding = Coding(DEQUANTIZE, (of_root, given), (codes, _leaf(name, values), *before))
    try:
        made = decoded(coding, lambda one: np.asarray(held(one.name)))
    except ValueError:
        return None
    return replace(known, decoded=made, coding=coding)


def _leaf(name: str, values: Array) -> WantedTensor:
    return WantedTensor(name=name, dtype=values.dtype.name, shape=values.shape, sha256="")


def _is_vector(shape: tuple[int, ...]) -> bool:
    return sum(size > 1 for size in shape) <= 1


def _axis_of(shape: tuple[int, ...], codes: tuple[int, ...]) -> int | None:
    """The axis of codes that a scale of another shape runs along; None for several."""
    if not _is_vector(shape) or len(shape) > len(codes):
        return None
    place = next((k for k, size in enumerate(shape) if size > 1), len(shape) - 1)
    return place + len(codes) - len(shape) if shape else 0
