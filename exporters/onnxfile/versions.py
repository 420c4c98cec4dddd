"""IR and operator set versions: known, unknown, contradictory."""

from collections.abc import Iterator, Sequence

import onnx
from onnx import ModelProto, OperatorSetIdProto

from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.traverse import Body
from emergraph.exporters.operations import normal_domain

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
