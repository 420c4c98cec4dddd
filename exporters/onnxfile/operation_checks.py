"""Findings about operations: unknown ones, huge constants, control flow."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from emergraph.exporters.onnxfile.constants import Constants
from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.functions import call_key, function_key
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.traverse import Body
from emergraph.exporters.operations import Kind, kind_of, normal_domain, spec_of
from emergraph.exporters.trainingmode import TRAINING, trains

_STANDARD_DOMAINS = frozenset(
    {"", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training"}
)
_CONTRIB_DOMAINS = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})
_PYTHON_OPS = frozenset({"PyOp", "PythonOp"})


def operation_findings(model: ModelProto, bodies: Sequence[Body]) -> Iterator[Finding]:
    """Yield operations that are not of the standard, and whether there is control flow."""
    functions = {function_key(function) for function in model.functions}
    counts = Counter(call_key(node) for body in bodies for node in body.proto.node)
    for (domain, op_type, overload), count in counts.items():
        where = f"{printable(op_type)} of {printable(domain or 'ai.onnx')}"
        known = not domain or domain in _STANDARD_DOMAINS
        if (domain, op_type, overload) in functions:
            if known and onnx.defs.has(op_type, domain=domain):
                yield Finding("ONNX-FUNC-OVERRIDE", f"{count} calls of a local function", where)
        elif op_type in _PYTHON_OPS:
            yield Finding("ONNX-OP-PYTHON", f"{count} operations", where)
        elif known and not onnx.defs.has(op_type, domain=domain):
            yield Finding("ONNX-OP-UNKNOWN", f"{count} operations", where)
        elif domain in _CONTRIB_DOMAINS:
            yield Finding("ONNX-OP-CONTRIB", f"{count} operations", where)
        elif not known:
            yield Finding("ONNX-OP-CUSTOM", f"{count} operations", where)
    depth = max(body.depth for body in bodies)
    if depth:
        count = sum(body.depth > 0 for body in bodies)
        yield Finding("ONNX-CONTROL-FLOW", f"{count} subgraphs, nested up to {depth} deep")


def training_findings(model: ModelProto, constants: Constants) -> Iterator[Finding]:
    """Yield operations that run as in training: their outputs depend on the batch, or on chance."""
    for at, body in enumerate(constants.bodies):
        imports = getattr(body.proto, "opset_import", None) or model.opset_import
        versions = [entry.version for entry in imports if not normal_domain(entry.domain)]
        for node in body.proto.node:
            small = partial(constants.numbers, at, at_most=1)
            if versions and trains(node, versions[0], small):
                where = f"{printable(node.op_type)} {printable(node.name or node.output[0])!r}"
                yield Finding("ONNX-OP-TRAINING", TRAINING[node.op_type], where)


def size_findings(constants: Constants, limits: ReadLimits) -> Iterator[Finding]:
    """Yield operations that would make huge or impossible constants out of small ones."""
    for at, body in enumerate(constants.bodies):
        for node in body.proto.node:
            if normal_domain(node.domain):
                continue
            sizes = _claimed(node, at, constants)
            where = f"{printable(node.op_type)} {printable(node.name)!r}"
            if kind_of(node) is Kind.RESHAPE and sizes is not None:
                if sum(size == -1 for size in sizes) > 1 or min(sizes, default=0) < -1:
                    yield Finding("ONNX-FOLD-INVALID", f"shape {_shown(sizes)}", where)
            elif sizes is not None and not all(size >= 0 for size in sizes):
                yield Finding("ONNX-FOLD-INVALID", f"shape {_shown(sizes)}", where)
            elif sizes is not None and math.prod(sizes) > limits.folded_elements:
                yield Finding("ONNX-FOLD-HUGE", f"shape {_shown(sizes)}", where)


def _claimed(node: NodeProto, at: int, constants: Constants) -> list[float] | None:
    """Return the shape, or the factors of the size, that an operation's constant arguments name."""
    spec = spec_of(node)
    if spec.sizes is not None and len(node.input) > spec.sizes:
        values = constants.numbers(at, node.input[spec.sizes])
        return None if values is None or len(values) > 64 else values.tolist()
    if spec.is_random and not node.input:
        return [
            float(size)
            for attribute in node.attribute
            if attribute.name == "shape"
            for size in attribute.ints
        ]
    if node.op_type == "Range" and len(node.input) == 3:
        ends = [constants.numbers(at, name, at_most=1) for name in node.input]
        if all(end is not None and len(end) == 1 for end in ends):
            start, limit, delta = (float(end[0]) for end in ends if end is not None)
            with np.errstate(all="ignore"):
                count = np.ceil(np.float64(limit - start) / np.float64(delta))
            return [max(0.0, float(count))] if np.isfinite(count) else [-1.0]
    return None


def _shown(sizes: Sequence[float]) -> str:
    return printable(" x ".join(f"{size:.0f}" for size in sizes)) or "a scalar"
