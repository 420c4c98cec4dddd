"""How blocks lie between layers: worked out and checked when the last edge of a graph is written."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.graphstore.inplace import MatrixSums
from emergraph.graphstore.records import Block, EdgeKind, Layer, Place

Int32Array = NDArray[np.int32]

_ANY_DIRECTION = frozenset({EdgeKind.RECURRENT, EdgeKind.NORM})


@dataclass
class BlockRow:
    """A block as far as it is written."""

    id: int
    """Store-wide id."""
    block: Block
    src: Int32Array
    """Units of the matrix rows; for a block without a matrix, distinct sources, ascending."""
    dst: Int32Array
    n_edges: int
    has_kernels: bool
    is_matrix: bool
    zero_signs: bytes | None = None
    place: Place | None = None
    """Of a block in place: where its matrix is."""
    sums: MatrixSums | None = None
    """Of a block in place: what one pass over its matrix has told."""

    @property
    def dense(self) -> bool:
        """Whether all pairs are edges."""
        return 0 < self.n_edges == self.src.size * self.dst.size

    def add(self, other: "BlockRow") -> None:
        """Take in more edges of the same block."""
        self.src = np.union1d(self.src, other.src)
        self.dst = np.union1d(self.dst, other.dst)
        self.n_edges += other.n_edges


@dataclass(frozen=True)
class LayerStarts:
    """The layers of a graph by their first unit."""

    ids: Int32Array
    starts: Int32Array
    n_units: int

    def of(self, units: Int32Array) -> tuple[Int32Array, Int32Array]:
        """Return the ids and the first units of the layers that `units` lie in, by ascending first unit."""
        found = np.unique(np.searchsorted(self.starts, units, side="right") - 1)
        return self.ids[found], self.starts[found]


def distinct(units: Int32Array) -> Int32Array:
    """Return the distinct entries, ascending; linear in the number of edges where that is large."""
    if units.size < 1 << 12:
        return np.unique(units)
    seen = np.zeros(int(units.max()) + 1, dtype=np.bool_)
    seen[units] = True
    return np.flatnonzero(seen).astype(np.int32)


def layer_starts(layers: Sequence[Layer]) -> LayerStarts:
    """Return where layers start.

    Raises:
        ValueError: Ids or names repeat, or the ranges of units leave gaps or overlap.
    """
    for what in ("id", "name"):
        if len({getattr(layer, what) for layer in layers}) != len(layers):
            raise ValueError(f"layers: {what} repeats")
    ordered = sorted(layers, key=lambda layer: (layer.first_unit, layer.n_units))
    expected = 0
    for layer in ordered:
        if layer.first_unit != expected or layer.n_units < 0:
            raise ValueError(f"layer {layer.name!r}: starts at unit {layer.first_unit}, expected {expected}")
        expected += layer.n_units
    return LayerStarts(
        ids=np.array([layer.id for layer in ordered], dtype=np.int32),
        starts=np.array([layer.first_unit for layer in ordered], dtype=np.int32),
        n_units=expected,
    )


def check_block(row: BlockRow, layers: dict[int, Layer], starts: LayerStarts) -> None:
    """Check that a block leads from known units into its layer, and forward in the order of layers.

    Raises:
        ValueError: It does not.
    """
    what = f"block {row.block.id} ({row.block.name!r})"
    layer = layers.get(row.block.layer)
    if layer is None:
        raise ValueError(f"{what}: target layer {row.block.layer} was not written")
    end = layer.first_unit + layer.n_units
    if row.dst.size and (row.dst.min() < layer.first_unit or row.dst.max() >= end):
        raise ValueError(f"{what}: targets outside layer {layer.id} (units {layer.first_unit} to {end - 1})")
    if row.src.size == 0:
        return
    if row.src.max() >= starts.n_units:
        raise ValueError(f"{what}: source unit {row.src.max()}, but there are {starts.n_units} units")
    sources, _ = starts.of(row.src)
    if row.block.kind not in _ANY_DIRECTION and sources.max() >= layer.id:
        raise ValueError(
            f"{what}: leads from layer {sources.max()} to layer {layer.id}, expected a higher id"
        )
