"""Sparse tensors, kept sparse."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.tensors import MAX_ELEMENTS, Array, OnnxTensor

_MAX_LINEAR = (1 << 63) - 1


@dataclass(frozen=True)
class SparseTensor:
    """A sparse initializer or attribute: its non-zero values and where they stand. Never made dense here."""

    name: str
    shape: tuple[int, ...]
    values: OnnxTensor
    """(n_values,)"""
    indices: OnnxTensor
    """(n_values,) linear indices in C order, or (n_values, rank) coordinates; int64."""

    @property
    def n_elements(self) -> int:
        """Product of the dimensions, zeros included."""
        return math.prod(self.shape)

    def linear_indices(self) -> NDArray[np.int64]:
        """Return the position of each value in the raveled tensor, (n_values,), each below `n_elements`."""
        stored = self.indices.array().astype(np.int64, copy=False)
        if stored.ndim == 1:
            return stored
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return stored @ np.array(strides, dtype=np.int64)

    def coordinates(self) -> NDArray[np.int64]:
        """Return the coordinates of each value, (n_values, rank)."""
        stored = self.indices.array().astype(np.int64, copy=False)
        if stored.ndim == 2:
            return stored
        return np.stack(np.unravel_index(stored, self.shape), axis=1).astype(np.int64, copy=False)

    def array(self) -> Array:
        """Return the values, (n_values,)."""
        return self.values.array()


def checked_sparse(values: OnnxTensor, indices: OnnxTensor, dims: tuple[int, ...]) -> SparseTensor:
    """Return a sparse tensor after checking bounds and duplicates of its indices.

    Raises:
        InvalidInputError: Shapes that do not fit, an index out of bounds or given twice.
        UnsafeInputError: A shape whose elements cannot be counted in 64 bits.
    """
    where = f"sparse tensor {printable(values.name)!r}"
    tensor = SparseTensor(values.name, dims, values, indices)
    if not dims or any(dim < 0 for dim in dims) or len(dims) > 64:
        raise refusal("ONNX-SPARSE-INVALID", f"shape {printable(str(dims))}", where)
    if tensor.n_elements > MAX_ELEMENTS:
        raise refusal(
            "ONNX-TENSOR-HUGE", f"shape {printable(str(dims))} claims {tensor.n_elements:.3g} elements", where
        )
    n_values = values.n_elements
    if (
        len(values.shape) != 1
        or indices.dtype != "int64"
        or indices.shape not in {(n_values,), (n_values, len(dims))}
    ):
        raise refusal(
            "ONNX-SPARSE-INVALID",
            f"values {values.shape} with {indices.dtype} indices {indices.shape}; expected int64 "
            f"({n_values},) or ({n_values}, {len(dims)})",
            where,
        )
    stored = indices.array().astype(np.int64, copy=False)
    bounds = np.array(dims if stored.ndim == 2 else [tensor.n_elements], dtype=np.int64)
    if n_values and bool(np.any((stored < 0) | (stored >= (bounds if stored.ndim == 2 else bounds[0])))):
        raise refusal("ONNX-SPARSE-INVALID", f"an index outside the shape {printable(str(dims))}", where)
    linear = np.sort(tensor.linear_indices())
    if bool(np.any(linear[1:] == linear[:-1])):
        raise refusal("ONNX-SPARSE-INVALID", "an index that is given twice", where)
    return tensor
