"""From descriptions to checked tensors: bounds, tied weights, views, quantization, sparse layouts."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.collect import Leaf
from emergraph.exporters.weightfiles.dtypes import DECODED, stored_bytes
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.numpyobjects import NumpyArray
from emergraph.exporters.weightfiles.placeholders import NoData, SparseRef, StorageRef, TensorRef, wrong_value
from emergraph.exporters.weightfiles.quantized import quantization
from emergraph.exporters.weightfiles.refuse import Finding, refusal
from emergraph.exporters.weightfiles.sparse import sparse_reader
from emergraph.exporters.weightfiles.tensors import Array, LazyTensor, check_bounds, strided_reader
from emergraph.exporters.weightfiles.weightfile import Skipped

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
            LazyTensor(name=name, dtype=leaf.dtype, shape=leaf.shape, quantization=scheme, _read=reader)
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
