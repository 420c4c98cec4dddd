"""`read_onnx`: a checked ONNX file, its light model, and its tensors on demand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, SparseTensorProto, TensorProto

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.dtypes import RAW_DATA
from emergraph.exporters.onnxfile.external import KNOWN_KEYS, ExternalFiles
from emergraph.exporters.onnxfile.findings import Finding, finding_of, refusal
from emergraph.exporters.onnxfile.functions import function_findings
from emergraph.exporters.onnxfile.light import MAPPED_LOCATION, MappedValues, lighten
from emergraph.exporters.onnxfile.limits import DEFAULT_LIMITS, ReadLimits
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.opening import MappedFile, map_model
from emergraph.exporters.onnxfile.registry import Severity
from emergraph.exporters.onnxfile.scopes import run_order, scope_findings, scopes
from emergraph.exporters.onnxfile.sparse import SparseTensor, checked_sparse
from emergraph.exporters.onnxfile.stored import Stored, in_file, inline_values
from emergraph.exporters.onnxfile.tensors import LazyTensor, check_declared, checked_tensor
from emergraph.exporters.onnxfile.traverse import Body, bodies, body_tensors
from emergraph.exporters.onnxfile.versions import version_findings


@dataclass(frozen=True)
class TensorSource:
    """Where the tensors of a light model find their values."""

    content: memoryview
    """The model file."""
    mapped: Mapping[int, MappedValues]
    """Values that were left in it, by offset."""
    external: ExternalFiles

    def tensor_of(self, proto: TensorProto) -> LazyTensor:
        """Return the tensor behind a proto of the light model; see `OnnxFile.tensor_of`."""
        where = f"tensor {printable(proto.name)!r}"
        if proto.HasField("segment"):
            raise refusal("ONNX-TENSOR-SEGMENT", "is stored in segments", where)
        if proto.data_location == TensorProto.EXTERNAL:
            stored = self._outside(proto, where)
        else:
            stored = inline_values(proto, where)
        return checked_tensor(proto.name, proto.data_type, tuple(proto.dims), stored)

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

    def sparse_tensor_of(self, proto: SparseTensorProto) -> SparseTensor:
        """Return the sparse tensor behind a proto of the light model."""
        return checked_sparse(self.tensor_of(proto.values), self.tensor_of(proto.indices), tuple(proto.dims))


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX file.

    Reading took no memory for the values of its tensors: they stay in the memory-mapped file until asked for.
    """

    path: Path
    """As given."""
    name: str
    """File name without folders."""
    size: int
    """Bytes of the model file."""
    model: ModelProto = field(repr=False, compare=False)
    """The light model: values of more than `ReadLimits.inline_bytes` are left out, operations are sorted."""
    warnings: tuple[Finding, ...]
    """What did not stop reading, e.g. operations that were not sorted."""
    _file: MappedFile = field(repr=False, compare=False)
    _source: TensorSource = field(repr=False, compare=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file as hexadecimal digits, computed on first use."""
        return self._file.sha256

    @property
    def content(self) -> memoryview:
        """The bytes of the model file, read-only, memory-mapped."""
        return self._file.content

    @property
    def external_files(self) -> Mapping[str, MappedFile]:
        """Files outside the model file that hold values, by their location."""
        return self._source.external.opened

    @property
    def tensors(self) -> dict[str, LazyTensor]:
        """Dense initializers of the main graph by name."""
        return {proto.name: self.tensor_of(proto) for proto in self.model.graph.initializer}

    @property
    def sparse_tensors(self) -> dict[str, SparseTensor]:
        """Sparse initializers of the main graph by name."""
        return {
            proto.values.name: self.sparse_tensor_of(proto) for proto in self.model.graph.sparse_initializer
        }

    def tensor_of(self, proto: TensorProto) -> LazyTensor:
        """Return the tensor behind any TensorProto of the light model (initializer, attribute, subgraph).

        Works for copies of the proto too, also after operations were moved to other graphs.

        Raises:
            InvalidInputError: Type, shape and values do not fit each other (only protos from elsewhere).
            UnsafeInputError: External data that leads outside (only protos from elsewhere).
        """
        return self._source.tensor_of(proto)

    def sparse_tensor_of(self, proto: SparseTensorProto) -> SparseTensor:
        """Return the sparse tensor behind any SparseTensorProto of the light model."""
        return self._source.sparse_tensor_of(proto)


class _Report:
    """Collects findings; the first that stops reading is raised unless all are wanted."""

    def __init__(self, *, collect_all: bool) -> None:
        self.findings: list[Finding] = []
        self.collect_all = collect_all

    def add(self, finding: Finding) -> None:
        if finding.severity is Severity.ERROR and not self.collect_all:
            raise refusal(finding.id, finding.message, finding.where)
        self.findings.append(finding)

    def add_error(self, error: EmergraphError) -> None:
        finding = finding_of(error)
        if finding is None:
            raise error
        self.add(finding)


def read_onnx(
    path: str | Path, *, limits: ReadLimits = DEFAULT_LIMITS, root: str | Path | None = None
) -> OnnxFile:
    """Read an ONNX file that nobody vouches for.

    Every length, size, shape, name and path in the file is checked before anything relies on it. Nothing in
    the file is run, and nothing outside its folder is read.

    Args:
        path: The model file.
        limits: How much is believed.
        root: Files with external data may be symbolic links if they lead to somewhere below this folder.

    Raises:
        InvalidInputError: Missing, unreadable, not an ONNX model, damaged, or contradictory.
        UnsafeInputError: The file asks for paths outside its folder, or for absurd sizes.
        LimitError: The file needs more than `limits` allow.

    Example:
        >>> file = read_onnx("model.onnx")  # doctest: +SKIP
        >>> file.tensors["conv1.weight"].array().shape  # doctest: +SKIP
        (64, 3, 7, 7)
    """
    return inspect_onnx(Path(path), limits=limits, root=root, report=_Report(collect_all=False))


def inspect_onnx(path: Path, *, limits: ReadLimits, root: str | Path | None, report: _Report) -> OnnxFile:
    """Read a file, giving every finding to `report`."""
    file = map_model(path)
    light = lighten(file.content, limits)
    model = _parsed(light.content)
    for note in light.notes:
        report.add(note)
    parts = bodies(model)
    folder = Path(path).absolute().parent
    source = TensorSource(
        file.content, light.mapped, ExternalFiles(folder, None if root is None else Path(root))
    )
    for body in parts:
        _check_tensors(body, source, report)
    for finding in (*version_findings(model, parts), *function_findings(model, parts, limits)):
        report.add(finding)
    _check_scopes(parts, report)
    return OnnxFile(path, path.name, file.size, model, tuple(report.findings), file, source)


def _parsed(content: bytes) -> ModelProto:
    try:
        model: ModelProto = ModelProto.FromString(content)
    except DecodeError as error:
        if "MaxDepth" in str(error):
            raise refusal("ONNX-WIRE-DEPTH", "messages nested deeper than 100 levels; flatten it") from None
        raise refusal(
            "ONNX-WIRE-DAMAGED", "damaged, cut off, or not an ONNX model; fetch the file again"
        ) from None
    if not model.HasField("graph") or not model.ir_version:
        missing = "IR version" if model.HasField("graph") else "graph"
        raise refusal("ONNX-MODEL-NONE", f"not an ONNX model: it has no {missing}")
    return model


def _check_tensors(body: Body, source: TensorSource, report: _Report) -> None:
    for proto in body_tensors(body):
        try:
            if isinstance(proto, SparseTensorProto):
                source.sparse_tensor_of(proto)
            else:
                _note_oddities(source.tensor_of(proto), proto, report)
        except EmergraphError as error:
            report.add_error(error)


def _note_oddities(tensor: LazyTensor, proto: TensorProto, report: _Report) -> None:
    where = f"tensor {printable(proto.name)!r}"
    if 0 in tensor.shape and int(np.prod([float(dim) for dim in tensor.shape if dim])) > 1 << 31:
        report.add(Finding("ONNX-TENSOR-EMPTY-HUGE", f"no elements, but shape {tensor.shape}", where))
    unknown = sorted({entry.key for entry in proto.external_data} - KNOWN_KEYS)
    if unknown:
        report.add(Finding("ONNX-EXT-KEY", f"unknown key {printable(unknown[0])!r} is ignored", where))
    if proto.external_data and proto.data_location != TensorProto.EXTERNAL:
        report.add(
            Finding("ONNX-EXT-UNUSED", "holds its values and names a file; the file is ignored", where)
        )


def _check_scopes(parts: list[Body], report: _Report) -> None:
    all_scopes = scopes(parts)
    for finding in scope_findings(parts, all_scopes):
        report.add(finding)
    orders: list[list[int] | None] = []
    for scope in all_scopes:
        order, circle = run_order(scope)
        orders.append(order)
        if circle:
            report.add(
                Finding("ONNX-GRAPH-CYCLE", f"operations form a circle: {' -> '.join(circle)}", scope.label)
            )
        if order is not None:
            report.add(
                Finding("ONNX-GRAPH-UNSORTED", "operations are not in running order; sorted", scope.label)
            )
    for body, order in zip(reversed(parts), reversed(orders), strict=True):
        if order is not None:  # children first: copies below then hold sorted subgraphs
            sorted_nodes = [
                type(body.proto.node[0]).FromString(body.proto.node[i].SerializeToString()) for i in order
            ]
            body.proto.ClearField("node")
            body.proto.node.extend(sorted_nodes)
