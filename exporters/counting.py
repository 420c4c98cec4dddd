"""A sink that only counts: what a dry run writes to."""

from collections.abc import Sequence

import numpy as np

from emergraph.graphstore.arrays import FloatArray, IntArray
from emergraph.graphstore.inplace import Matrix, n_edges
from emergraph.graphstore.records import (
    Block,
    Kernels,
    Layer,
    MatrixKernels,
    Operation,
    Place,
    Tensor,
    UnitColumns,
)
from emergraph.graphstore.tensors import KEPT_BYTES

BYTES_PER_EDGE = 5.2
"""Measured for edges of one parameter, 4.7 (a transformer of 50 M edges) to 5.5 (MiniLM int8)."""
BYTES_PER_KERNEL = 27.0
"""Measured for edges that stand for several parameters, with their side columns: 22 to 28."""
BYTES_PER_STRENGTH = 20.0
"""Measured for units of blocks in place: two sums of 8 bytes, which do not compress, and more."""
BASE_BYTES = 340_000
"""What an empty store takes."""


class CountingSink:
    """Counts edges and bytes, keeps nothing."""

    def __init__(self, *, in_place: bool = False) -> None:
        self.in_place = in_place
        """Whether edges stay in the file where they can."""
        self.n_edges = 0
        """All edges."""
        self.n_kernels = 0
        """Those of them that stand for several parameters."""
        self.n_in_place = 0
        """Those of them that would stay in the file."""
        self.n_strengths = 0
        """Units of the blocks that would, on both sides."""
        self.n_bytes = 0
        """Of all tensors."""
        self.n_raw_bytes = 0
        """Of those whose values would be stored raw."""
        self._left: set[str] = set()
        self.layers: tuple[Layer, ...] = ()

    @property
    def estimated_bytes(self) -> int:
        """About what the graph would take in a store of its own."""
        plain = self.n_edges - self.n_kernels - self.n_in_place
        edges = plain * BYTES_PER_EDGE + self.n_kernels * BYTES_PER_KERNEL
        edges += self.n_strengths * BYTES_PER_STRENGTH
        return int(BASE_BYTES + edges + self.n_raw_bytes)

    def write_matrix(
        self,
        block: Block,  # noqa: ARG002 - the sink protocol's signature
        src_units: IntArray,
        dst_units: IntArray,
        weights: FloatArray | Matrix,
        kernels: MatrixKernels | None = None,
        place: Place | None = None,
    ) -> int:
        """Count the entries that would be edges."""
        if weights.shape != (src_units.size, dst_units.size):
            raise ValueError(f"weights {weights.shape}, expected {(src_units.size, dst_units.size)}")
        if isinstance(weights, Matrix):
            count = n_edges(weights)
        else:
            count = int(np.count_nonzero(weights if kernels is None else kernels.n_params))
        self.n_edges += count
        self.n_kernels += 0 if kernels is None else count
        if self.in_place and place is not None and kernels is None:
            self._left.add(place.tensor)
            self.n_in_place += count
            self.n_strengths += src_units.size + dst_units.size
        return count

    def write_edges(
        self,
        block: Block,  # noqa: ARG002
        src: IntArray,
        dst: IntArray,
        weight: FloatArray | None = None,  # noqa: ARG002
        kernels: Kernels | None = None,
    ) -> int:
        """Count the edges."""
        if src.shape != dst.shape:
            raise ValueError(f"{src.shape} sources, {dst.shape} targets")
        self.n_edges += src.size
        self.n_kernels += 0 if kernels is None else src.size
        return int(src.size)

    def write_layers(self, layers: Sequence[Layer]) -> None:
        """Keep the layers, which are few."""
        self.layers = tuple(layers)

    def write_units(self, columns: Sequence[UnitColumns]) -> None:
        """Units are counted by their layers."""

    def write_tensor(self, tensor: Tensor) -> None:
        """Count raw bytes."""
        n_bytes = 0 if tensor.data is None else len(tensor.data)
        self.n_bytes += n_bytes
        stays = self.in_place and tensor.in_file is not None
        if not (stays and (tensor.name in self._left or n_bytes > KEPT_BYTES)):
            self.n_raw_bytes += n_bytes

    def write_operations(self, operations: Sequence[Operation]) -> None:
        """Operations take next to nothing."""
