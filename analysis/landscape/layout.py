"""Where each parameter tensor lies in one flat buffer, and which of its entries belong to one filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.options import Norm
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ParameterBlock:
    """One parameter tensor inside the flat buffer."""

    name: str
    shape: tuple[int, ...]
    offset: int
    """Position of its first entry in the buffer."""
    unit_axes: tuple[int, ...] = (0,)
    """Axes whose positions are separate filters (rows of a dense layer, output channels)."""
    is_vector: bool = False
    """A bias or a normalisation's scale or shift: `filter` and `layer` directions leave it alone."""
    layer: str | None = None
    """Name of the operation or module that uses the tensor."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def span(self) -> slice:
        """The tensor's place in the flat buffer."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """All parameter tensors of a flat buffer, in order and without gaps."""

    blocks: tuple[ParameterBlock, ...]

    def __post_init__(self) -> None:
        """Refuse gaps, overlaps and repeated names.

        Raises:
            UsageError: The blocks do not tile the buffer or two share a name.
        """
        starts = [block.offset for block in self.blocks]
        ends = [0, *(block.offset + block.size for block in self.blocks)]
        if starts != ends[:-1]:
            raise UsageError(f"layout: expected offsets {ends[:-1][:5]}..., found {starts[:5]}...")
        if len({block.name for block in self.blocks}) != len(self.blocks):
            raise UsageError("layout: two parameter tensors have the same name; expected unique names")

    @property
    def n_params(self) -> int:
        """Length of the flat buffer."""
        return sum(block.size for block in self.blocks)

    @classmethod
    def of_shapes(cls, shapes: Sequence[tuple[int, ...]], names: Sequence[str] | None = None) -> "Layout":
        """Lay out tensors one after another; tensors with at most one axis are vectors.

        Example:
            >>> [b.offset for b in Layout.of_shapes([(3, 2), (3,)]).blocks]
            [0, 6]
        """
        offsets = np.concatenate([[0], np.cumsum([prod(shape) for shape in shapes])]).astype(int)
        labels = names if names is not None else [f"p{i}" for i in range(len(shapes))]
        return cls(
            tuple(
                ParameterBlock(
                    name=name,
                    shape=tuple(shape),
                    offset=int(offset),
                    unit_axes=(0,) if shape else (),
                    is_vector=len(shape) <= 1,
                )
                for name, shape, offset in zip(labels, shapes, offsets, strict=False)
            )
        )


def group_ids(layout: Layout, norm: Norm) -> NDArray[np.int64]:
    """Return for every parameter the group whose norm is matched: its filter or its tensor.

    Args:
        layout: Of the flat buffer.
        norm: `filter` groups by the positions along `unit_axes`, `layer` by tensor; others are refused.

    Returns:
        (n_params,) int64 group ids counted from 0.

    Example:
        >>> group_ids(Layout.of_shapes([(2, 3), (2,)]), Norm.FILTER).tolist()
        [0, 0, 0, 1, 1, 1, 2, 3]
    """
    if norm not in (Norm.FILTER, Norm.LAYER):
        raise UsageError(f"norm: expected filter or layer for groups, found {norm}")
    ids = np.empty(layout.n_params, dtype=np.int64)
    first = 0
    for block in layout.blocks:
        if norm == Norm.LAYER:
            ids[block.span] = first
            first += 1
            continue
        kept = [size if axis in block.unit_axes else 1 for axis, size in enumerate(block.shape)]
        filters = np.arange(first, first + prod(kept), dtype=np.int64).reshape(kept)
        ids[block.span] = np.broadcast_to(filters, block.shape).ravel()
        first += prod(kept)
    return ids


def vector_mask(layout: Layout) -> NDArray[np.bool_]:
    """Return which parameters belong to biases and normalisation vectors, as (n_params,) booleans."""
    mask = np.zeros(layout.n_params, dtype=np.bool_)
    for block in layout.blocks:
        mask[block.span] = block.is_vector
    return mask
