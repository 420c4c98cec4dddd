"""A checked ONNX file: its weightless model, and where the values of its tensors are."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, SparseTensorProto, TensorProto

from emergraph.exporters.mappedfile import MappedFile
from emergraph.exporters.onnxfile.dtypes import RAW_DATA
from emergraph.exporters.onnxfile.external import ExternalFiles
from emergraph.exporters.onnxfile.findings import Finding, refusal
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.stored import Stored, in_file, inline_values
from emergraph.exporters.onnxfile.tensors import (
    MAX_ELEMENTS,
    Array,
    OnnxTensor,
    check_declared,
    checked_tensor,
)
from emergraph.exporters.onnxfile.weightless_model import MAPPED_LOCATION, MappedValues

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


@dataclass(frozen=True)
class TensorSource:
    """Where the tensors of a weightless model find their values."""

    content: memoryview
    """The model file."""
    mapped: Mapping[int, MappedValues]
    """Values that were left in it, by offset."""
    external: ExternalFiles

    def tensor_of(self, proto: TensorProto) -> OnnxTensor:
        """Return the tensor behind a proto of the weightless model, checked.

        Raises:
            InvalidInputError: Type, shape and values do not fit each other.
            UnsafeInputError: External data that leads outside, absurd sizes.
        """
        where = f"tensor {printable(proto.name)!r}"
        if proto.HasField("segment"):
            raise refusal("ONNX-TENSOR-SEGMENT", "is stored in segments, which no reader supports", where)
        if proto.data_location == TensorProto.EXTERNAL:
            stored = self._outside(proto, where)
        else:
            stored = inline_values(proto, where)
        return checked_tensor(proto.name, proto.data_type, tuple(proto.dims), stored)

    def sparse_tensor_of(self, proto: SparseTensorProto) -> SparseTensor:
        """Return the sparse tensor behind a proto of the weightless model, its indices checked."""
        return checked_sparse(self.tensor_of(proto.values), self.tensor_of(proto.indices), tuple(proto.dims))

    def _outside(self, proto: TensorProto, where: str) -> Stored:
        entries = {entry.key: entry.value for entry in proto.external_data}
        if len(entries) < len(proto.external_data):
            raise refusal("ONNX-WIRE-DUPLICATE", "external data has a key twice; readers disagree", where)
        if entries.get("location") == MAPPED_LOCATION:
            values = self.mapped[int(entries["offset"])]
            return in_file(self.content[values.start : values.end], values.field)
        element = check_declared(proto.data_type, tuple(proto.dims), where)
        if element.name == "string":
            raise refusal("ONNX-TENSOR-DATA", "text outside the file, which cannot hold it", where)
        n_bytes = element.n_bytes(math.prod(proto.dims))
        return in_file(self.external.values(entries, n_bytes, where), RAW_DATA)


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX file.

    Reading took no memory for the values of its tensors: they stay in the memory-mapped file until asked for.
    Other programs may replace the file meanwhile, but must not cut it short: the system ends processes that
    read a mapping beyond the end of its file.
    """

    path: Path
    """As given."""
    name: str
    """File name without folders."""
    size: int
    """Bytes of the model file."""
    model: ModelProto = field(repr=False, compare=False)
    """The weightless model: values above `ReadLimits.inline_bytes` are left out, operations are sorted."""
    warnings: tuple[Finding, ...]
    """What did not stop reading, e.g. operations that were not sorted."""
    _file: MappedFile = field(repr=False, compare=False)
    _source: TensorSource = field(repr=False, compare=False)

    @cached_property
    def sha256(self) -> str:
        """What identifies the model and its values, as hexadecimal digits; computed on first use.

        SHA-256 of the model file; if values are in other files, SHA-256 of the lines `digest  name` of the
        model file (without a name) and of these files in the order of their names.
        """
        outside = self.external_files
        if not outside:
            return self._file.sha256
        lines = [
            f"{self._file.sha256}  \n",
            *(f"{outside[name].sha256}  {name}\n" for name in sorted(outside)),
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def content(self) -> memoryview:
        """The bytes of the model file, read-only, memory-mapped."""
        return self._file.content

    @property
    def external_files(self) -> Mapping[str, MappedFile]:
        """Files outside the model file that hold values, by their location."""
        return self._source.external.opened

    @property
    def tensors(self) -> dict[str, OnnxTensor]:
        """Dense initializers of the main graph by name."""
        return {proto.name: self.tensor_of(proto) for proto in self.model.graph.initializer}

    @property
    def sparse_tensors(self) -> dict[str, SparseTensor]:
        """Sparse initializers of the main graph by name."""
        return {
            proto.values.name: self.sparse_tensor_of(proto) for proto in self.model.graph.sparse_initializer
        }

    def tensor_of(self, proto: TensorProto) -> OnnxTensor:
        """Return the tensor behind any TensorProto of the weightless model, wherever it is.

        Works for copies of the proto too, also after operations were moved to other graphs.

        Raises:
            InvalidInputError: Type, shape and values do not fit each other (only protos from elsewhere).
            UnsafeInputError: External data that leads outside (only protos from elsewhere).
        """
        return self._source.tensor_of(proto)

    def sparse_tensor_of(self, proto: SparseTensorProto) -> SparseTensor:
        """Return the sparse tensor behind any SparseTensorProto of the weightless model."""
        return self._source.sparse_tensor_of(proto)
