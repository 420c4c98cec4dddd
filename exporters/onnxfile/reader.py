"""`read_onnx`: a checked ONNX file, its weightless model, and its tensors on demand."""

import math
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto, TensorProto

from emergraph.errors import EmergraphError, InvalidInputError, LimitError
from emergraph.exporters.formats import Reader, format_of
from emergraph.exporters.mappedfile import OUT_OF_RESOURCES, MappedFile, map_descriptor
from emergraph.exporters.onnxfile.external import KNOWN_KEYS, ExternalFiles
from emergraph.exporters.onnxfile.file import OnnxFile, TensorSource
from emergraph.exporters.onnxfile.findings import Finding, finding_of, refusal
from emergraph.exporters.onnxfile.functions import function_findings
from emergraph.exporters.onnxfile.limits import DEFAULT_LIMITS, ReadLimits
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.report import FindingLog
from emergraph.exporters.onnxfile.scopes import run_order, scope_findings, scopes
from emergraph.exporters.onnxfile.tensors import OnnxTensor
from emergraph.exporters.onnxfile.traverse import Body, bodies, body_tensors
from emergraph.exporters.onnxfile.weightless_model import LightModel, lighten
from emergraph.exporters.operations import normal_domain
from emergraph.paths import NotRegularError, open_descriptor

VALUE_FIELDS: dict[int, str] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
"""The field of an AttributeProto that holds the value, by type."""
_VALUES = frozenset(VALUE_FIELDS.values())
MAX_PROTOBUF_BYTES = (1 << 31) - 1
"""Bytes that a protobuf message may have."""


def node_findings(bodies: Sequence[Body]) -> Iterator[Finding]:
    """Yield operations without a type, and attributes that readers would read differently."""
    for body in bodies:
        for node in body.proto.node:
            problem = _problem(node)
            if problem is not None:
                where = f"operation {printable(node.name)!r}" if node.name else f"a {printable(node.op_type)}"
                yield Finding("ONNX-NODE-INVALID", problem, where)


def _problem(node: NodeProto) -> str | None:
    if not node.op_type:
        return "no operation type"
    seen: set[str] = set()
    for attribute in node.attribute:
        name = attribute.name
        if not name:
            return "an attribute without a name"
        if name in seen:
            return f"attribute {printable(name)!r} is given twice"
        seen.add(name)
        held = [descriptor.name for descriptor, _ in attribute.ListFields() if descriptor.name in _VALUES]
        expected = VALUE_FIELDS.get(attribute.type)
        if attribute.type != AttributeProto.UNDEFINED and expected is None:
            return f"attribute {printable(name)!r} has type {attribute.type}, which ONNX does not define"
        if len(held) > 1 or (expected is not None and held not in ([], [expected])):
            return f"attribute {printable(name)!r} holds {' and '.join(held)}; expected {expected or 'one'}"
    return None


# IR and operator set versions: known, unknown, contradictory.

_NEWEST: dict[str, int] = {domain: newest for domain, (_, newest) in onnx.defs.C.schema_version_map().items()}
"""Newest operator set of each domain that the installed onnx package knows."""
_MAX_VERSION = (1 << 31) - 1
"""What the onnx package can look up."""


def version_findings(model: ModelProto, bodies: Sequence[Body]) -> Iterator[Finding]:
    """Yield what a reader should know about versions, and contradictions between them."""
    newest_ir = int(onnx.IR_VERSION)
    if not 1 <= model.ir_version <= newest_ir:
        yield Finding("ONNX-IR-VERSION", f"IR version {model.ir_version}; known are 1 to {newest_ir}")
    yield from _import_findings(model.opset_import, "")
    imported = {normal_domain(entry.domain) for entry in model.opset_import}
    for function in model.functions:
        yield from _import_findings(function.opset_import, f"function {printable(function.name)!r}")
        imported.update(normal_domain(entry.domain) for entry in function.opset_import)
        imported.add(normal_domain(function.domain))
    used = {normal_domain(node.domain) for body in bodies for node in body.proto.node}
    for domain in sorted(used - imported):
        yield Finding("ONNX-OPSET-MISSING", f"operator set {_shown(domain)} is used but not imported")


def _import_findings(entries: Sequence[OperatorSetIdProto], where: str) -> Iterator[Finding]:
    versions: dict[str, int] = {}
    for entry in entries:
        domain = normal_domain(entry.domain)
        if versions.setdefault(domain, entry.version) != entry.version:
            yield Finding(
                "ONNX-OPSET-CONFLICT",
                f"operator set {_shown(domain)} is imported as {versions[domain]} and as {entry.version}",
                where,
            )
        newest = _NEWEST.get(domain, _MAX_VERSION)
        if not 1 <= entry.version <= _MAX_VERSION:
            message = f"operator set {_shown(domain)} has version {entry.version}; expected 1 or more"
            yield Finding("ONNX-OPSET-INVALID", message, where)
        elif entry.version > newest:
            message = f"operator set {_shown(domain)} has version {entry.version}; known are 1 to {newest}"
            yield Finding("ONNX-OPSET-RANGE", message, where)


def _shown(domain: str) -> str:
    return printable(domain or "ai.onnx")


# Text fields that are not UTF-8: protobuf hands them out as bytes, which no caller expects.


def text_findings(message: Message) -> Iterator[Finding]:
    """Yield the text fields of a message, and of all messages in it, that are not UTF-8.

    Slow (it looks at everything): called only for files with bytes beyond ASCII where text stands.
    """
    stack = [message]
    while stack:
        for descriptor, value in stack.pop().ListFields():
            values = value if descriptor.is_repeated else (value,)
            if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
                stack.extend(values)
            elif descriptor.type == FieldDescriptor.TYPE_STRING:
                for text in values:
                    if not isinstance(text, str):
                        yield Finding(
                            "ONNX-WIRE-TEXT", f"{descriptor.full_name} is not UTF-8: {printable(text)}"
                        )


_MANY_ELEMENTS = 1 << 31


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


def map_model(path: Path) -> MappedFile:
    """Open and map the file that a user named.

    Raises:
        InvalidInputError: No such file, no permission, a folder, a pipe or a device, empty, larger than
            protobuf allows, or visibly another format.
        LimitError: The process may not map or open that much.
    """
    shown = printable(str(path), 200)
    try:
        descriptor, status = open_descriptor(path)
    except NotRegularError as error:
        raise InvalidInputError(f"{shown} is {error.kind}; expected a model file") from None
    except FileNotFoundError:
        raise InvalidInputError(f"no such file: {shown}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(f"cannot open {shown}: {reason}") from None
    if status.st_size == 0:
        os.close(descriptor)
        raise refusal("FILE-EMPTY", "the file is empty; fetch it again")
    try:
        mapped = map_descriptor(descriptor, path, status)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
            raise LimitError(f"cannot map {shown}: {reason}; raise `ulimit`") from None
        raise InvalidInputError(f"cannot map {shown}: {reason}") from None
    found = format_of(path.name, mapped.content)
    if found.reader is not Reader.ONNX:
        # looks into files of all formats: of no use for an ONNX model
        from emergraph.exporters.weightfiles.wrongformat import wrong_format

        raise wrong_format(found, mapped, expected="an ONNX model")
    if mapped.size > MAX_PROTOBUF_BYTES:
        raise refusal(
            "ONNX-FILE-SIZE",
            f"{mapped.size} bytes, but an ONNX file holds at most 2 GiB; save it with external data",
        )
    return mapped
