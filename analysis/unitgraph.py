"""The unit graph as arrays: what every analysis of paths, reachability or strengths works on.

Layers and units are held in memory as arrays; edges stay where they are (a store, or arrays in tests) and are
streamed block by block, as often as an analysis passes over them. Nothing here holds an edge as a Python
object.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, UsageError
from emergraph.graphstore.arrays import IntArray
from emergraph.graphstore.records import NEURON_LAYER_KINDS, EdgeKind, LayerKind, Role

if TYPE_CHECKING:
    import polars as pl

    from emergraph.graphstore.inplace import Matrix

EdgeColumns = Mapping[str, NDArray[Any]]
"""Columns of one block's edges by name: src, dst (unit ids), weight, l1, l2, max_abs, n_params."""

ROLES = (Role.INPUT, Role.HIDDEN, Role.OUTPUT)
"""`UnitGraph.role[i]` is an index into this tuple."""


@dataclass(frozen=True, kw_only=True)
class UnitLayer:
    """A layer: the contiguous units `first_unit .. first_unit + n_units - 1`.

    Layer ids are a topological order for edges of every kind but `recurrent` and `norm`.
    """

    id: int
    name: str
    kind: str
    """A `LayerKind` value."""
    first_unit: int
    n_units: int
    n_params: int = 0
    n_zeros: int = 0

    @property
    def units(self) -> slice:
        """The layer's unit ids as a slice."""
        return slice(self.first_unit, self.first_unit + self.n_units)


@dataclass(frozen=True, kw_only=True)
class UnitBlock:
    """A set of edges of one kind into one layer; no (src, dst) pair repeats within it."""

    id: int
    kind: EdgeKind
    layer: int
    """Id of the target layer."""
    n_edges: int
    dense: bool = False
    """Every pair of `src_units` x `dst_units` is an edge."""
    src_units: IntArray | None = None
    """Source units in the order of the block's matrix; None when the block was not written as a matrix."""
    dst_units: IntArray | None = None
    name: str = ""
    tensor: str | None = None
    shared_with: int | None = None
    has_kernels: bool = False
    """Whether l1, l2, max_abs and n_params hold more than the weight does."""
    in_place: bool = False
    """Whether the edges stay in the model file: `UnitGraph.matrix` shows them without copies."""


class EdgeSource(Protocol):
    """Where a graph's edges come from."""

    def iter_edges(
        self, blocks: Sequence[UnitBlock], *, columns: Sequence[str]
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Yield each block with its columns, in the order of `blocks`."""
        ...


@runtime_checkable
class HasMatrices(Protocol):
    """A source of edges some of which stay in a model file."""

    @property
    def has_weights(self) -> bool:
        """Whether the model file was given."""
        ...

    def side_sums(self, block: UnitBlock) -> "pl.DataFrame":
        """Return degrees and strengths of a block in place, without its weights."""
        ...

    def matrix(self, block: UnitBlock, *, counted: bool = False) -> "Matrix":
        """Return the matrix of a block in place; `counted`: after a look at how many edges it has."""
        ...

    def mask_times(self, block: UnitBlock, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for every source of a block in place the sum of its targets' values."""
        ...


@dataclass(frozen=True)
class ArrayEdges:
    """Edges held in memory: block id -> columns. Dense blocks need no entry."""

    columns_of: Mapping[int, EdgeColumns] = field(default_factory=dict)

    def iter_edges(
        self, blocks: Sequence[UnitBlock], *, columns: Sequence[str]
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Yield each block's columns; absent ones follow from the block or from the weight."""
        for block in blocks:
            held = self.columns_of.get(block.id, {})
            yield block, {name: _column(block, held, name) for name in columns}


def _column(block: UnitBlock, held: EdgeColumns, name: str) -> NDArray[Any]:
    if name in held:
        return held[name]
    if name in ("src", "dst"):
        if not block.dense or block.src_units is None or block.dst_units is None:
            raise InvalidInputError(
                f"Block {block.id} has no column '{name}': expected arrays src and dst, or a dense block"
            )
        if name == "src":
            return np.asarray(np.repeat(block.src_units, len(block.dst_units)))
        return np.asarray(np.tile(block.dst_units, len(block.src_units)))
    if name == "n_params":
        return np.ones(block.n_edges, dtype=np.int32)
    if name == "weight":
        return np.full(block.n_edges, np.nan)
    if name in ("l1", "l2", "max_abs"):
        return np.asarray(np.abs(_column(block, held, "weight")))
    raise InvalidInputError(f"Unknown edge column '{name}'")


@dataclass(frozen=True, kw_only=True)
class UnitGraph:
    """Layers and units as arrays, blocks as descriptions, edges as a stream.

    Build one with `from_arrays`, or with `storedgraph.read_unit_graph` from a store.
    """

    layers: tuple[UnitLayer, ...]
    """In order of id."""
    blocks: tuple[UnitBlock, ...]
    unit_layer: NDArray[np.int32]
    """(n_units,) position in `layers` of each unit's layer."""
    neuron: NDArray[np.bool_]
    """(n_units,) True for neurons, False for structural units."""
    role: NDArray[np.uint8]
    """(n_units,) index into `ROLES`."""
    n_params: int
    """Parameters, zeros included."""
    n_nonzero: int
    """Parameters that are not exactly zero."""
    edges: EdgeSource
    name: str = ""
    n_nonfinite: int = 0
    """Parameters that are NaN or infinite."""

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.unit_layer)

    @property
    def n_edges(self) -> int:
        """Number of edges of all kinds."""
        return sum(block.n_edges for block in self.blocks)

    def layer_of(self, layer_id: int) -> UnitLayer:
        """The layer with this id."""
        return self.layers[self._positions[layer_id]]

    def layer_position(self, layer_id: int) -> int:
        """Where the layer with this id stands in `layers`."""
        return self._positions[layer_id]

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {layer.id: position for position, layer in enumerate(self.layers)}

    def edges_by_kind(self) -> dict[EdgeKind, int]:
        """Number of edges of each kind that the graph has."""
        counts: dict[EdgeKind, int] = {}
        for block in self.blocks:
            counts[block.kind] = counts.get(block.kind, 0) + block.n_edges
        return counts

    def iter_edges(
        self, blocks: Sequence[UnitBlock] | None = None, *, columns: Sequence[str] = ("src", "dst")
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Stream edges block by block, in the order of `blocks` (default: all blocks)."""
        return self.edges.iter_edges(self.blocks if blocks is None else blocks, columns=columns)

    def iter_pieces(
        self, blocks: Sequence[UnitBlock] | None = None, *, columns: Sequence[str] = ("src", "dst")
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Stream edges as `iter_edges` does, but those of a block in place in pieces of bounded size."""
        chosen = self.blocks if blocks is None else blocks
        pieces = getattr(self.edges, "iter_pieces", self.edges.iter_edges)
        found: Iterator[tuple[UnitBlock, EdgeColumns]] = pieces(chosen, columns=columns)
        return found

    def side_sums(self, block: UnitBlock) -> "pl.DataFrame":
        """Return degrees and strengths of a block in place: columns unit, outgoing, degree, total, l1.

        Raises:
            UsageError: The block is not in place.
        """
        if not isinstance(self.edges, HasMatrices):
            raise UsageError(f"block {block.id} is not in place")
        return self.edges.side_sums(block)

    def lacks_weights(self, blocks: Sequence[UnitBlock]) -> bool:
        """Whether weights of some blocks stayed in a model file that was not given."""
        left = any(block.in_place and block.n_edges for block in blocks)
        return left and isinstance(self.edges, HasMatrices) and not self.edges.has_weights

    def matrix(self, block: UnitBlock, *, counted: bool = False) -> "Matrix":
        """Return the matrix of a block in place.

        Args:
            block: The block.
            counted: Count its edges first.

        Raises:
            UsageError: The block is not in place, or no model was given.
            StoreError: It has other edges than the store says.
        """
        if not isinstance(self.edges, HasMatrices):
            raise UsageError(f"block {block.id} is not in place")
        return self.edges.matrix(block, counted=counted)

    def mask_times(self, block: UnitBlock, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for every source of a block in place the sum of its targets' values over the edges.

        Args:
            block: A block in place.
            vectors: (n_dst, K).

        Raises:
            UsageError: The block is not in place, or no model was given.
        """
        if not isinstance(self.edges, HasMatrices):
            raise UsageError(f"block {block.id} is not in place")
        return self.edges.mask_times(block, vectors)


def matrix_units(block: UnitBlock) -> tuple[IntArray, IntArray]:
    """Source and target units of a block that was written as a matrix."""
    if block.src_units is None or block.dst_units is None:
        raise InvalidInputError(
            f"Block {block.id} is not a matrix: it has no list of source and target units"
        )
    return block.src_units, block.dst_units


def from_arrays(
    layers: Sequence[UnitLayer],
    blocks: Sequence[UnitBlock],
    columns: Mapping[int, EdgeColumns] | None = None,
    *,
    neuron: NDArray[np.bool_] | None = None,
    role: Sequence[Role] | NDArray[np.uint8] | None = None,
    n_params: int | None = None,
    n_nonzero: int | None = None,
    name: str = "",
) -> UnitGraph:
    """Build a graph from arrays.

    Args:
        layers: In order of id; together they cover units 0 .. n-1 once.
        blocks: In any order.
        columns: Block id -> src, dst and optionally weight, l1, l2, max_abs, n_params. Dense blocks with
            `src_units` and `dst_units` need none.
        neuron: (n_units,); default: by the kind of the layer.
        role: One role per unit; default: units of input layers are inputs, units of the last layer outputs.
        n_params: Default: the sum over layers.
        n_nonzero: Default: the sum over layers less their zeros.
        name: Name of the graph.

    Raises:
        InvalidInputError: Layers leave gaps or overlap, or a block names a layer that does not exist.
    """
    ids = [layer.id for layer in layers]
    if ids != sorted(set(ids)):
        raise InvalidInputError(f"Layer ids must increase, got {ids[:10]}")
    unknown = {block.layer for block in blocks} - set(ids)
    if unknown:
        raise InvalidInputError(f"Blocks lead into unknown layers {sorted(unknown)}")
    unit_layer = layer_positions(layers)
    total_params = sum(layer.n_params for layer in layers)
    return UnitGraph(
        layers=tuple(layers),
        blocks=tuple(blocks),
        unit_layer=unit_layer,
        neuron=_neurons_by_kind(layers, unit_layer) if neuron is None else np.asarray(neuron, dtype=bool),
        role=_default_roles(layers, unit_layer) if role is None else _role_codes(role),
        n_params=total_params if n_params is None else n_params,
        n_nonzero=total_params - sum(layer.n_zeros for layer in layers) if n_nonzero is None else n_nonzero,
        edges=ArrayEdges(dict(columns or {})),
        name=name,
    )


def layer_positions(layers: Sequence[UnitLayer]) -> NDArray[np.int32]:
    """(n_units,) position of each unit's layer.

    Raises:
        InvalidInputError: The layers leave gaps or overlap.
    """
    next_unit = 0
    for layer in sorted(layers, key=lambda layer: (layer.first_unit, layer.n_units)):
        if layer.first_unit != next_unit:
            raise InvalidInputError(
                f"Layer '{layer.name}' starts at unit {layer.first_unit}, expected {next_unit}"
            )
        next_unit += layer.n_units
    unit_layer = np.empty(next_unit, dtype=np.int32)
    for position, layer in enumerate(layers):
        unit_layer[layer.units] = position
    return unit_layer


def _neurons_by_kind(layers: Sequence[UnitLayer], unit_layer: NDArray[np.int32]) -> NDArray[np.bool_]:
    per_layer = np.array([LayerKind(layer.kind) in NEURON_LAYER_KINDS for layer in layers], dtype=bool)
    return per_layer[unit_layer]


def _default_roles(layers: Sequence[UnitLayer], unit_layer: NDArray[np.int32]) -> NDArray[np.uint8]:
    role = np.full(len(unit_layer), ROLES.index(Role.HIDDEN), dtype=np.uint8)
    if layers:
        role[layers[-1].units] = ROLES.index(Role.OUTPUT)
    for layer in layers:
        if layer.kind in (LayerKind.INPUT, LayerKind.EMBEDDING):
            role[layer.units] = ROLES.index(Role.INPUT)
    return role


def _role_codes(role: Iterable[Role] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(role, np.ndarray) and role.dtype.kind in "iu":
        return role.astype(np.uint8)
    code = {name: index for index, name in enumerate(ROLES)}
    return np.array([code[Role(name)] for name in role], dtype=np.uint8)
