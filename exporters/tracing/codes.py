"""Weights that are codes in the model file and can stay there: how they are told without being computed."""

import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.codings import DEQUANTIZE, SCALE, ZERO, Decoded, decoded
from emergraph.exporters.filetensors import CODE_TYPES
from emergraph.exporters.tracing.constants import Constant
from emergraph.graphstore.inplace import Matrix, place_in
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
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        room = mmap.mmap(-1, max(1, prod(self.decoded.shape)), flags=flags, prot=mmap.PROT_READ)
        return np.ndarray(self.decoded.shape, np.uint8, room)

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
    if any(values.get(one.root) is None or len(one.shape) > 1 for one in beside.values()):
        return None
    found = zero is None or values[zero.root]
    if isinstance(found, np.ndarray) and found.dtype != codes.dtype:
        return None
    leaves = tuple(
        WantedTensor(name=str(one.root), dtype=array.dtype.name, shape=array.shape, sha256="")
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
