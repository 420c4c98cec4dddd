"""A graph sink that keeps everything in memory, and checks what every exporter promises."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from emergraph.graphstore.arrays import FloatArray, IntArray
from emergraph.graphstore.records import (
    Block,
    EdgeKind,
    Kernels,
    Layer,
    MatrixKernels,
    Operation,
    Place,
    Tensor,
    UnitColumns,
)


@dataclass(frozen=True)
class BlockEdges:
    """The edges of one block; NaN stands for a NULL weight (`has_weight` tells)."""

    block: Block
    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    weight: NDArray[np.float64]
    has_weight: bool
    l1: NDArray[np.float64]
    l2: NDArray[np.float64]
    max_abs: NDArray[np.float64]
    n_params: NDArray[np.int32]
    has_kernels: bool
    matrix: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    """(source units, target units) of a block that was written as a matrix."""


@dataclass
class EdgeSink:
    """Keeps all that is written."""

    blocks: list[BlockEdges] = field(default_factory=list)
    layers: Sequence[Layer] = ()
    columns: Sequence[UnitColumns] = ()
    tensors: dict[str, Tensor] = field(default_factory=dict)
    operations: Sequence[Operation] = ()

    def write_matrix(
        self,
        block: Block,
        src_units: IntArray,
        dst_units: IntArray,
        weights: FloatArray,
        kernels: MatrixKernels | None = None,
        place: Place | None = None,
    ) -> int:
        assert weights.shape == (len(src_units), len(dst_units))
        keep = weights != 0 if kernels is None else kernels.n_params > 0
        i, j = np.nonzero(keep)
        magnitude = np.abs(weights[i, j]).astype(np.float64)
        self.blocks.append(
            BlockEdges(
                block,
                np.asarray(src_units)[i],
                np.asarray(dst_units)[j],
                weights[i, j].astype(np.float64),
                True,
                magnitude if kernels is None else kernels.l1[i, j].astype(np.float64),
                magnitude if kernels is None else kernels.l2[i, j].astype(np.float64),
                magnitude if kernels is None else kernels.max_abs[i, j].astype(np.float64),
                np.ones(i.size, np.int32) if kernels is None else kernels.n_params[i, j],
                kernels is not None,
                (np.asarray(src_units), np.asarray(dst_units)),
            )
        )
        return int(i.size)

    def write_edges(
        self,
        block: Block,
        src: IntArray,
        dst: IntArray,
        weight: FloatArray | None = None,
        kernels: Kernels | None = None,
    ) -> int:
        assert src.shape == dst.shape
        assert src.ndim == 1
        plain = np.full(src.size, np.nan) if weight is None else np.asarray(weight, np.float64)
        assert plain.shape == src.shape
        self.blocks.append(
            BlockEdges(
                block,
                np.asarray(src),
                np.asarray(dst),
                plain,
                weight is not None,
                np.abs(plain) if kernels is None else kernels.l1,
                np.abs(plain) if kernels is None else kernels.l2,
                np.abs(plain) if kernels is None else kernels.max_abs,
                np.ones(src.size, np.int32) if kernels is None else kernels.n_params,
                kernels is not None,
            )
        )
        return int(src.size)

    def write_layers(self, layers: Sequence[Layer]) -> None:
        assert not self.layers
        self.layers = list(layers)

    def write_units(self, columns: Sequence[UnitColumns]) -> None:
        assert len(columns) == len(self.layers)
        self.columns = list(columns)

    def write_tensor(self, tensor: Tensor) -> None:
        assert tensor.name not in self.tensors
        self.tensors[tensor.name] = tensor

    def write_operations(self, operations: Sequence[Operation]) -> None:
        self.operations = list(operations)

    @property
    def n_units(self) -> int:
        """Units of all layers."""
        return sum(layer.n_units for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """The layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)

    def columns_of(self, layer: Layer) -> UnitColumns:
        """The unit columns of a layer."""
        return next(c for c in self.columns if c.layer == layer.id)

    def of_kind(self, *kinds: EdgeKind) -> list[BlockEdges]:
        """Blocks of some kinds."""
        return [b for b in self.blocks if b.block.kind in kinds]

    def into(self, layer: str, *kinds: EdgeKind) -> list[BlockEdges]:
        """Blocks into a layer, of some kinds (default: all)."""
        wanted = self.layer(layer).id
        return [b for b in self.blocks if b.block.layer == wanted and (not kinds or b.block.kind in kinds)]

    def count(self, *kinds: EdgeKind) -> int:
        """Edges of some kinds."""
        return sum(b.src.size for b in self.of_kind(*kinds))

    def connections(self) -> int:
        """Edges that carry parameters."""
        return sum(b.src.size for b in self.blocks if b.block.tensor is not None)

    def digraph(self, kinds: Iterable[EdgeKind] = tuple(EdgeKind)) -> nx.MultiDiGraph:
        """The unit graph with the edges of some kinds; keys are block ids."""
        graph: nx.MultiDiGraph = nx.MultiDiGraph()
        graph.add_nodes_from(range(self.n_units))
        for found in self.of_kind(*kinds):
            for s, d, w in zip(found.src.tolist(), found.dst.tolist(), found.l1.tolist(), strict=True):
                graph.add_edge(s, d, key=found.block.id, l1=w, kind=found.block.kind)
        return graph


def reach(sink: EdgeSink, kinds: Iterable[EdgeKind]) -> NDArray[np.bool_]:
    """(units, units): whether a path of edges of these kinds leads from row to column (each to itself)."""
    n = sink.n_units
    step = np.eye(n, dtype=bool)
    for found in sink.of_kind(*kinds):
        step[found.src, found.dst] = True
    while True:
        further = (step.astype(np.float32) @ step.astype(np.float32)) > 0
        if np.array_equal(further, step):
            return step
        step = further
