"""From descriptions to checked tensors: bounds, tied weights, views, quantization, sparse layouts."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.collect import Leaf
from emergraph.exporters.weightfiles.dtypes import DECODED, stored_bytes
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.numpyobjects import (
    Named,
    NoData,
    NumpyArray,
    SparseRef,
    StorageRef,
    TensorRef,
    wrong_value,
)
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.tensors import (
    Array,
    LazyTensor,
    Quantization,
    check_bounds,
    check_shape,
    strided_reader,
)
from emergraph.exporters.weightfiles.weightfile import Skipped

# Sparse tensors written out as dense arrays, every index checked first.


def sparse_reader(layout: str, parts: list[Array], shape: tuple[int, ...], where: str) -> Callable[[], Array]:
    """Return what reads a sparse tensor as a dense array; entries that repeat are added up, as torch does.

    Args:
        layout: "torch.sparse_coo", "torch.sparse_csr" or "torch.sparse_csc".
        parts: (indices, values), or (compressed indices, plain indices, values).
        shape: Dimensions of the dense array.
        where: How to name the tensor in messages.

    Raises:
        InvalidInputError: parts that do not fit each other or the shape (PICKLE-VALUE, TENSOR-SHAPE).
    """
    values = parts[-1]
    check_shape(shape, values.dtype.name, where)
    if any(part.dtype.kind not in "iu" for part in parts[:-1]) or values.ndim != 1:
        raise wrong_value(f"the sparse tensor {where}")
    if layout == "torch.sparse_coo":
        indices = parts[0].astype(np.int64)
        if len(parts) != 2 or indices.shape != (len(shape), len(values)):
            raise wrong_value(f"the sparse tensor {where}")
    else:
        indices = _expanded(parts, shape, transposed=layout == "torch.sparse_csc", where=where)
    bounds = np.array(shape, np.int64)[:, None]
    if np.any(indices < 0) or np.any(indices >= bounds):
        raise wrong_value(f"the sparse tensor {where}")

    def read() -> Array:
        dense = np.zeros(shape, values.dtype)
        np.add.at(dense, tuple(indices), values)
        return dense

    return read


def _expanded(
    parts: list[Array], shape: tuple[int, ...], *, transposed: bool, where: str
) -> NDArray[np.int64]:
    """Return row and column of every entry from compressed rows (or columns)."""
    if len(parts) != 3 or len(shape) != 2 or parts[0].ndim != 1 or parts[1].ndim != 1:
        raise wrong_value(f"the sparse tensor {where}")
    starts, plain = parts[0].astype(np.int64), parts[1].astype(np.int64)
    lines = shape[1] if transposed else shape[0]
    counts = np.diff(starts)
    fits = len(starts) == lines + 1 and len(plain) == len(parts[2])
    if not fits or starts[0] != 0 or starts[-1] != len(plain) or np.any(counts < 0):
        raise wrong_value(f"the sparse tensor {where}")
    major = np.repeat(np.arange(lines), counts)
    return np.stack([plain, major] if transposed else [major, plain])


# The scales of torch's quantized tensors.


def quantization(ref: TensorRef, read: Callable[[TensorRef], Array], where: str) -> Quantization:
    """Return scales and zero points of a quantized tensor, checked against its shape.

    Args:
        ref: The tensor, with the parameters of its scheme as torch pickles them: (per_tensor_affine, scale,
            zero_point) or (per_channel_affine, scales, zero_points, axis).
        read: Gives the values of a checked tensor.
        where: How to name the tensor in messages.

    Raises:
        InvalidInputError: parameters that do not fit the tensor (PICKLE-VALUE).
    """
    scheme = ref.scheme or ()
    kind = scheme[0].name if scheme and isinstance(scheme[0], Named) else ""
    if kind == "per_tensor_affine" and len(scheme) == 3:
        scale, zero = scheme[1], scheme[2]
        if isinstance(scale, (int, float)) and isinstance(zero, (int, float)):
            return Quantization(scale=(float(scale),), zero_point=(float(zero),), axis=None)
    if kind.startswith("per_channel_affine") and len(scheme) == 4:
        axis = scheme[3]
        if type(axis) is int and 0 <= axis < len(ref.shape):
            scales, zeros = (_values(part, read, ref.shape[axis], where) for part in scheme[1:3])
            return Quantization(scale=scales, zero_point=zeros, axis=axis)
    raise wrong_value(f"the quantized tensor {where}")


def _values(part: object, read: Callable[[TensorRef], Array], count: int, where: str) -> tuple[float, ...]:
    if isinstance(part, list) and len(part) == count and all(isinstance(item, (int, float)) for item in part):
        return tuple(float(item) for item in part)
    if isinstance(part, TensorRef) and part.shape == (count,):
        return tuple(float(value) for value in read(part).astype(np.float64))
    raise wrong_value(f"the quantized tensor {where}")


Loader = Callable[[str, int], memoryview]
"""Gives the bytes of a storage by its key; the number of bytes that the pickle declares comes with it."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's elements lie."""

    storage: str
    start: int
    """First byte."""
    end: int
    """One past the last byte."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


@dataclass
class Builder:
    """Builds the tensors of one file, one after the other, in file order."""

    load: Loader
    limits: WeightLimits
    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    places: dict[str, _Place] = field(default_factory=dict)
    """Where each strided tensor lies."""
    _storages: dict[str, tuple[int, memoryview]] = field(default_factory=dict)

    def add(self, name: str, leaf: Leaf) -> None:
        """Check a tensor and add it, or note why it is left out.

        Raises:
            InvalidInputError: values that do not fit (TENSOR-SHAPE, TENSOR-STORAGE, PICKLE-VALUE), or a name
                that is taken (WEIGHTS-NAME-TWICE).
            UnsafeInputError: an element outside its storage, or more elements than it holds.
        """
        where = printable(name)
        if name in self.tensors:
            raise refusal("WEIGHTS-NAME-TWICE", "two tensors would have this name", where)
        if isinstance(leaf, NoData):
            self._leave_out(name, leaf.reason, leaf.finding, leaf.shape)
        elif isinstance(leaf, NumpyArray):
            values = leaf.array()
            self._put(
                LazyTensor(name=name, dtype=values.dtype.name, shape=values.shape, _read=_little(values))
            )
        elif isinstance(leaf, SparseRef):
            self._sparse(name, leaf, where)
        elif leaf.note or leaf.dtype not in DECODED:
            reason = leaf.note or f"elements of type {leaf.dtype} are not decoded"
            self._leave_out(name, reason, "TENSOR-UNREADABLE", leaf.shape)
        else:
            self._dense(name, leaf, where)

    def finish(self) -> None:
        """Mark tied weights and views, once all tensors are there.

        Raises:
            UnsafeInputError: overlapping tensors add up to far more bytes than their storages
                (TENSOR-EXPANDED).
        """
        _mark_shared(self)
        distinct = sum(t.n_bytes for n, t in self.tensors.items() if n in self.places and t.alias_of is None)
        stored = sum(len(data) for _, data in self._storages.values())
        if distinct > self.limits.view_factor * stored + (1 << 20):
            message = f"overlapping tensors claim {distinct} bytes, their storages hold {stored}"
            raise refusal("TENSOR-EXPANDED", message)

    def _dense(self, name: str, leaf: TensorRef, where: str) -> None:
        data = self._data(leaf.storage, where)
        size = DECODED[leaf.dtype].dtype.itemsize
        check_bounds(leaf.shape, leaf.strides, leaf.offset, leaf.dtype, available=len(data), where=where)
        scheme = quantization(leaf, lambda part: self._read(part, where), where) if leaf.scheme else None
        base = leaf.storage.first * stored_bytes(leaf.storage.dtype, 1)
        reach = sum((dim - 1) * stride for dim, stride in zip(leaf.shape, leaf.strides, strict=True))
        start = base + leaf.offset * size
        end = start + (reach + 1) * size if 0 not in leaf.shape else start
        self.places[name] = _Place(leaf.storage.key, start, end, leaf.shape, leaf.strides, leaf.dtype)
        reader = strided_reader(data, leaf.dtype, leaf.shape, leaf.strides, leaf.offset)
        self._put(
            LazyTensor(
                name=name,
                dtype=leaf.dtype,
                shape=leaf.shape,
                quantization=scheme,
                _read=reader,
                _is_view=True,
            )
        )

    def _sparse(self, name: str, leaf: SparseRef, where: str) -> None:
        values = leaf.parts[-1]
        if values.dtype not in DECODED or values.note:
            self._leave_out(name, "its values are not decoded", "TENSOR-UNREADABLE", leaf.shape)
            return
        dense = stored_bytes(values.dtype, math.prod(leaf.shape)) if min(leaf.shape, default=0) >= 0 else 0
        if leaf.layout not in {"torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc"}:
            self._leave_out(
                name, f"the layout {printable(leaf.layout)} is not decoded", "TENSOR-UNREADABLE", leaf.shape
            )
        elif dense > self.limits.dense_bytes:
            reason = f"as a dense array it would take {dense} bytes, the limit is {self.limits.dense_bytes}"
            self._leave_out(name, reason, "TENSOR-UNREADABLE", leaf.shape)
        else:
            parts = [self._read(part, where) for part in leaf.parts]
            reader = sparse_reader(leaf.layout, parts, leaf.shape, where)
            self._put(LazyTensor(name=name, dtype=values.dtype, shape=leaf.shape, _read=reader))

    def _read(self, ref: TensorRef, where: str) -> Array:
        if ref.dtype not in DECODED or ref.note or ref.scheme:
            raise wrong_value("a tensor's parts")
        data = self._data(ref.storage, where)
        check_bounds(ref.shape, ref.strides, ref.offset, ref.dtype, available=len(data), where=where)
        return strided_reader(data, ref.dtype, ref.shape, ref.strides, ref.offset)()

    def _data(self, storage: StorageRef, where: str) -> memoryview:
        """Return the bytes of a storage, exactly as many as the pickle declares."""
        whole = stored_bytes(storage.dtype, storage.whole if storage.whole is not None else storage.count)
        if storage.key not in self._storages:
            data = self.load(storage.key, whole)
            if len(data) < whole:
                message = f"storage {printable(storage.key)} has {len(data)} bytes, the file declares {whole}"
                raise refusal("TENSOR-STORAGE", f"{message}; fetch the file again", where)
            if len(data) > whole:
                message = f"storage {printable(storage.key)} has {len(data)} bytes, the file declares {whole}"
                self.findings.append(Finding("STORAGE-LONGER", message, where))
            self._storages[storage.key] = (whole, data[:whole])
        declared, data = self._storages[storage.key]
        if declared != whole:
            message = f"storage {printable(storage.key)} is declared with {declared} and with {whole} bytes"
            raise refusal("TENSOR-STORAGE", message, where)
        first = stored_bytes(storage.dtype, storage.first)
        return data[first : first + stored_bytes(storage.dtype, storage.count)]

    def _put(self, tensor: LazyTensor) -> None:
        if not tensor.n_elements:
            shape = printable(str(tensor.shape))
            self.findings.append(
                Finding("TENSOR-EMPTY", f"shape {shape} has no elements", printable(tensor.name))
            )
        self.tensors[tensor.name] = tensor

    def _leave_out(self, name: str, reason: str, finding: str, shape: tuple[int, ...]) -> None:
        elements = math.prod(shape) if min(shape, default=0) >= 0 else 0
        self.skipped.append(Skipped(name=name, reason=reason, n_tensors=1, n_elements=elements))
        self.findings.append(Finding(finding, reason, printable(name)))


def _little(values: Array) -> Callable[[], Array]:
    """Return what gives an array in little-endian order."""
    return lambda: values.astype(values.dtype.newbyteorder("<"), copy=False)


def _mark_shared(builder: Builder) -> None:
    places = builder.places
    first: dict[_Place, str] = {}
    for name, place in places.items():
        tensor = builder.tensors[name]
        if place.end == place.start:
            continue
        if place in first:
            builder.tensors[name] = replace(tensor, alias_of=first[place])
            message = f"it is the same tensor as {printable(first[place])} (tied weights)"
            builder.findings.append(Finding("TENSOR-ALIAS", message, printable(name)))
        else:
            first[place] = name
    order = {name: index for index, name in enumerate(places)}
    for name, other in _overlaps(first.items()):
        later, earlier = (name, other) if order[name] > order[other] else (other, name)
        if builder.tensors[later].view_of is None:
            view = _describe(places[later], places[earlier])
            builder.tensors[later] = replace(builder.tensors[later], view_of=earlier, view=view)
            message = f"it shares bytes with {printable(earlier)}: {view}"
            builder.findings.append(Finding("TENSOR-VIEW", message, printable(later)))


def _overlaps(places: Iterable[tuple[_Place, str]]) -> Iterable[tuple[str, str]]:
    """Yield every tensor that overlaps one starting before it, with the one that reaches farthest."""
    ordered = sorted(places, key=lambda item: (item[0].storage, item[0].start, -item[0].end))
    reach: tuple[_Place, str] | None = None
    for place, name in ordered:
        if reach is not None and reach[0].storage == place.storage and place.start < reach[0].end:
            yield name, reach[1]
        if reach is None or reach[0].storage != place.storage or place.end > reach[0].end:
            reach = (place, name)


def _describe(view: _Place, base: _Place) -> str:
    if view.dtype != base.dtype:
        return f"the same bytes as {view.dtype}"
    same_span = (view.start, view.end) == (base.start, base.end)
    if same_span and sorted(zip(view.shape, view.strides, strict=True)) == sorted(
        zip(base.shape, base.strides, strict=True)
    ):
        return "transposed"
    return "reshaped" if same_span and view.shape != base.shape else "a slice"
