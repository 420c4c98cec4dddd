"""`read_onnx`: a checked ONNX file, its weightless model, and its tensors on demand."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.attributes import node_findings
from emergraph.exporters.onnxfile.external import KNOWN_KEYS, ExternalFiles
from emergraph.exporters.onnxfile.findings import Finding, finding_of, refusal
from emergraph.exporters.onnxfile.functions import function_findings
from emergraph.exporters.onnxfile.limits import DEFAULT_LIMITS, ReadLimits
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.opening import MappedFile, map_model
from emergraph.exporters.onnxfile.report import FindingLog
from emergraph.exporters.onnxfile.scopes import run_order, scope_findings, scopes
from emergraph.exporters.onnxfile.source import TensorSource
from emergraph.exporters.onnxfile.sparse import SparseTensor
from emergraph.exporters.onnxfile.tensors import OnnxTensor
from emergraph.exporters.onnxfile.texts import text_findings
from emergraph.exporters.onnxfile.traverse import Body, bodies, body_tensors
from emergraph.exporters.onnxfile.versions import version_findings
from emergraph.exporters.onnxfile.weightless_model import LightModel, lighten

_MANY_ELEMENTS = 1 << 31


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


def read_onnx(
    path: str | Path, *, limits: ReadLimits = DEFAULT_LIMITS, root: str | Path | None = None
) -> OnnxFile:
    """Read an untrusted ONNX file.

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
    report = FindingLog(collect_all=False)
    try:
        return load(Path(path), limits=limits, root=root, report=report)
    except EmergraphError as error:
        finding = finding_of(error)
        if finding is not None:
            error.args = (f"{printable(Path(path).name)}: {finding.line()} [{finding.id}]",)
        raise


def load(path: Path, *, limits: ReadLimits, root: str | Path | None, report: FindingLog) -> OnnxFile:
    """Read a file as `read_onnx` does, giving every finding to `report`.

    Raises:
        EmergraphError: The report raises it, or the file is too damaged to go on.
    """
    file = map_model(path)
    light = lighten(file.content, limits)
    model = _parsed(light)
    for note in light.notes:
        report.add(note)
    parts = bodies(model)
    folder = path.absolute().parent
    source = TensorSource(
        file.content, light.mapped, ExternalFiles(folder, None if root is None else Path(root))
    )
    for body in parts:
        _check_tensors(body, source, report)
    for finding in chain(
        node_findings(parts), version_findings(model, parts), function_findings(model, parts, limits)
    ):
        report.add(finding)
    _sort(parts, report)
    return OnnxFile(path, path.name, file.size, model, tuple(report.findings()), file, source)


def _parsed(light: LightModel) -> ModelProto:
    try:
        model: ModelProto = ModelProto.FromString(light.content)
    except DecodeError as error:
        if "MaxDepth" in str(error):
            raise refusal("ONNX-WIRE-DEPTH", "messages nested deeper than 100 levels; flatten it") from None
        raise refusal("ONNX-WIRE-DAMAGED", "damaged, cut off, or not an ONNX model; fetch it again") from None
    if not model.HasField("graph") or model.ir_version < 1:
        missing = "valid IR version" if model.HasField("graph") else "graph"
        raise refusal("ONNX-MODEL-NONE", f"not an ONNX model: it has no {missing}")
    for finding in text_findings(model) if light.beyond_ascii else ():
        raise refusal(finding.id, finding.message)
    return model


def _check_tensors(body: Body, source: TensorSource, report: FindingLog) -> None:
    for proto in body_tensors(body):
        try:
            if isinstance(proto, SparseTensorProto):
                source.sparse_tensor_of(proto)
            else:
                _note_oddities(source.tensor_of(proto), proto, report)
        except EmergraphError as error:
            report.add_error(error)


def _note_oddities(tensor: OnnxTensor, proto: TensorProto, report: FindingLog) -> None:
    where = f"tensor {printable(proto.name)!r}"
    if 0 in tensor.shape and math.prod(dim for dim in tensor.shape if dim) > _MANY_ELEMENTS:
        report.add(Finding("ONNX-TENSOR-EMPTY-HUGE", f"no elements, but shape {tensor.shape}", where))
    if not proto.external_data:
        return
    unknown = sorted({entry.key for entry in proto.external_data} - KNOWN_KEYS)
    if unknown:
        report.add(Finding("ONNX-EXT-KEY", f"unknown key {printable(unknown[0])!r} is ignored", where))
    if proto.data_location != TensorProto.EXTERNAL:
        report.add(
            Finding("ONNX-EXT-UNUSED", "holds its values and names a file; the file is ignored", where)
        )


def _sort(parts: list[Body], report: FindingLog) -> None:
    """Check the names of all bodies, and put their operations in an order in which they can run."""
    all_scopes = scopes(parts)
    for finding in scope_findings(parts, all_scopes):
        report.add(finding)
    orders: list[list[int] | None] = []
    for scope in all_scopes:
        order, circle = run_order(scope)
        orders.append(order)
        if circle:
            report.add(
                Finding("ONNX-GRAPH-CYCLE", f"operations form a cycle: {' -> '.join(circle)}", scope.label)
            )
        if order is not None:
            report.add(
                Finding("ONNX-GRAPH-UNSORTED", "operations are not in execution order; sorted", scope.label)
            )
    for body, order in zip(reversed(parts), reversed(orders), strict=True):
        if order is not None:  # children first: the copies made here then hold sorted subgraphs
            nodes = body.proto.node
            in_order = [NodeProto.FromString(nodes[index].SerializeToString()) for index in order]
            body.proto.ClearField("node")
            body.proto.node.extend(in_order)
