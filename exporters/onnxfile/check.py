"""`check_onnx`: everything that a user of a file should know, without building a graph."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.functions import call_key, function_key
from emergraph.exporters.onnxfile.limits import DEFAULT_LIMITS, ReadLimits
from emergraph.exporters.onnxfile.names import has_hidden_characters, printable
from emergraph.exporters.onnxfile.reader import load
from emergraph.exporters.onnxfile.report import FindingLog
from emergraph.exporters.onnxfile.tensors import OnnxTensor
from emergraph.exporters.onnxfile.traverse import Body, bodies, body_tensors
from emergraph.exporters.operations import Kind, kind_of, normal_domain, spec_of
from emergraph.exporters.trainingmode import TRAINING, trains
from emergraph.safetext import reveal_lookalikes

# The values of a model that are known without running it: initializers and Constant operations, by name.


@dataclass(frozen=True)
class Constants:
    """Constants of one body and of those around it."""

    bodies: Sequence[Body]
    by_body: Sequence[dict[str, TensorProto]]
    tensor_of: Callable[[TensorProto], OnnxTensor]

    def find(self, at: int, name: str) -> OnnxTensor | None:
        """Return the constant that body `at` sees under a name; None if there is none, or it is broken."""
        index: int | None = at
        while index is not None:
            proto = self.by_body[index].get(name)
            if proto is not None:
                try:
                    return self.tensor_of(proto)
                except EmergraphError:  # reported where tensors are checked
                    return None
            index = self.bodies[index].parent
        return None

    def numbers(self, at: int, name: str, *, at_most: int = 1 << 20) -> NDArray[np.float64] | None:
        """Return the values of a constant as float64, raveled; None if unknown, huge or not real."""
        tensor = self.find(at, name)
        if tensor is None or tensor.n_elements > at_most or tensor.dtype.startswith(("string", "complex")):
            return None
        try:
            return tensor.array().reshape(-1).astype(np.float64)
        except EmergraphError:
            return None


def constants(bodies: Sequence[Body], tensor_of: Callable[[TensorProto], OnnxTensor]) -> Constants:
    """Collect the constants of all bodies."""
    return Constants(bodies, [_constants_of(body) for body in bodies], tensor_of)


def _constants_of(body: Body) -> dict[str, TensorProto]:
    found: dict[str, TensorProto] = {}
    if isinstance(body.proto, GraphProto):
        found.update((proto.name, proto) for proto in body.proto.initializer)
    for node in body.proto.node:
        if node.op_type == "Constant" and not normal_domain(node.domain) and len(node.output) == 1:
            found.update((node.output[0], proto) for proto in constant_values(node))
    return found


def constant_values(node: NodeProto) -> list[TensorProto]:
    """Return the tensor that a Constant operation makes, none for text and sparse ones."""
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return [attribute.t]
        if attribute.name in {"value_int", "value_ints"}:
            ints = list(attribute.ints) if attribute.name == "value_ints" else [attribute.i]
            dims = [len(ints)] if attribute.name == "value_ints" else []
            return [TensorProto(data_type=TensorProto.INT64, dims=dims, int64_data=ints)]
        if attribute.name in {"value_float", "value_floats"}:
            floats = list(attribute.floats) if attribute.name == "value_floats" else [attribute.f]
            dims = [len(floats)] if attribute.name == "value_floats" else []
            return [TensorProto(data_type=TensorProto.FLOAT, dims=dims, float_data=floats)]
    return []


# Findings about operations: unknown ones, huge constants, control flow.

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


# Findings about quantization: scales that are zero, negative or not finite, shapes that do not fit.

_SCALE_LIMIT = 1 << 24


def quantization_findings(constants: Constants) -> Iterator[Finding]:
    """Yield unusable scales, and scales or zero points that do not fit the constant that they belong to."""
    for at, body in enumerate(constants.bodies):
        for node in body.proto.node:
            spec = spec_of(node)
            for place in spec.scales:
                if place < len(node.input):
                    yield from _scale_findings(node, at, node.input[place], constants)
            if spec.kind is Kind.DEQUANTIZE and len(node.input) > 1:
                yield from _fit_findings(node, at, constants)


def _scale_findings(node: NodeProto, at: int, name: str, constants: Constants) -> Iterator[Finding]:
    scale = constants.numbers(at, name, at_most=_SCALE_LIMIT)
    if scale is None:
        return
    bad = int(np.count_nonzero(~(np.isfinite(scale) & (scale > 0))))
    if bad:
        message = (
            f"{bad} of {len(scale)} values of scale {printable(name)!r} are zero, negative or not finite"
        )
        yield Finding("ONNX-QUANT-SCALE", message, _label(node))


def _fit_findings(node: NodeProto, at: int, constants: Constants) -> Iterator[Finding]:
    values, scale = (constants.find(at, name) for name in node.input[:2])
    zero = constants.find(at, node.input[2]) if len(node.input) > 2 else None
    if values is None:
        return
    if zero is not None and zero.data_type != values.data_type:
        message = f"zero point of {zero.dtype} for values of {values.dtype}"
        yield Finding("ONNX-QUANT-SHAPE", message, _label(node))
    if scale is not None and not _fits(node, values, scale):
        message = f"scale of shape {scale.shape} for values of shape {values.shape}"
        yield Finding("ONNX-QUANT-SHAPE", message, _label(node))


def _fits(node: NodeProto, values: OnnxTensor, scale: OnnxTensor) -> bool:
    """Tell whether a scale is per tensor, per axis or per block of the values."""
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    axis, block, rank = numbers.get("axis", 1), numbers.get("block_size", 0), len(values.shape)
    if not scale.shape or (scale.shape == (1,) and not block):
        return True
    if not -rank <= axis < rank:
        return False
    axis %= rank
    if not block:
        return scale.shape == (values.shape[axis],)
    expected = list(values.shape)
    expected[axis] = -(-expected[axis] // block) if block > 0 else -1
    return scale.shape == tuple(expected)


def _label(node: NodeProto) -> str:
    return f"{printable(node.op_type)} {printable(node.name)!r}" if node.name else printable(node.op_type)


# Findings about the values of tensors: not finite, subnormal, all zero.

_CHUNK = 1 << 20
_SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022, "bfloat16": 2.0**-126}
"""Types in which subnormal values are accidents; the smaller types are made to use them."""


@dataclass(frozen=True)
class ValueCounts:
    """How many values of a tensor are special."""

    n_values: int
    nan: int
    infinite: int
    subnormal: int
    zero: int


def count_values(tensor: OnnxTensor) -> ValueCounts:
    """Count special values; works in chunks, so memory is one copy of the tensor at most.

    Raises:
        InvalidInputError: The tensor holds text, or values out of the range of their type.
    """
    flat = tensor.array().reshape(-1)
    is_float = "float" in tensor.dtype or "complex" in tensor.dtype
    smallest = _SMALLEST_NORMAL.get(tensor.dtype)
    nan = infinite = subnormal = zero = 0
    for at in range(0, len(flat), _CHUNK):
        part = flat[at : at + _CHUNK]
        if is_float and part.dtype.kind not in "fc":
            part = part.astype(np.float32)
        zero += len(part) - int(np.count_nonzero(part))
        if is_float:
            nan += int(np.count_nonzero(np.isnan(part)))
            infinite += int(np.count_nonzero(np.isinf(part)))
        if smallest is not None:
            subnormal += int(np.count_nonzero((np.abs(part) < smallest) & (part != 0)))
    return ValueCounts(len(flat), nan, infinite, subnormal, zero)


def value_findings(tensor: OnnxTensor) -> Iterator[Finding]:
    """Yield what a user should know about a tensor's values. Single numbers are left alone.

    Raises:
        InvalidInputError: Values out of the range of their type.
    """
    where = f"tensor {printable(tensor.name)!r}"
    if tensor.dtype.startswith(("string", "complex")):
        yield Finding("ONNX-TENSOR-SKIPPED", f"holds {tensor.dtype}", where)
        return
    if not tensor.n_elements:
        return
    counts = count_values(tensor)
    if counts.n_values < 2:
        return
    if counts.nan or counts.infinite:
        message = f"{counts.nan} NaN and {counts.infinite} infinite of {counts.n_values} values"
        yield Finding("ONNX-VALUE-NONFINITE", message, where)
    if counts.subnormal:
        yield Finding("ONNX-VALUE-SUBNORMAL", f"{counts.subnormal} of {counts.n_values} values", where)
    if len(tensor.shape) > 1 and counts.zero == counts.n_values:
        yield Finding("ONNX-VALUE-ZERO", f"all {counts.n_values} values are zero", where)


# Findings about names: what could hurt a terminal, a page, a query or a table that shows them unescaped.

_MAX_USUAL = 1000
_MARKUP = frozenset("<>\"'`;|\\")
_FORMULA = ("=", "+", "-", "@")


def name_findings(model: ModelProto, bodies: Sequence[Body]) -> Iterator[Finding]:
    """Yield hostile or confusing names, each name once."""
    names = dict.fromkeys(all_names(model, bodies))
    for name in names:
        where = f"name {printable(name)!r}"
        if has_hidden_characters(name):
            yield Finding("ONNX-NAME-CONTROL", "control or format characters", where)
        if len(name) > _MAX_USUAL:
            yield Finding("ONNX-NAME-LONG", f"{len(name)} characters", where)
        if name.startswith(_FORMULA) or ".." in name.split("/") or not _MARKUP.isdisjoint(name):
            yield Finding("ONNX-NAME-MARKUP", "characters that mean something elsewhere", where)
    if not all(map(str.isascii, names)):
        for name, shown in reveal_lookalikes(names).items():
            yield Finding(
                "ONNX-NAME-ALIKE",
                f"looks like another name; it is {printable(shown)}",
                f"name {printable(name)!r}",
            )


def all_names(model: ModelProto, bodies: Sequence[Body]) -> Iterator[str]:
    """Yield every name in a model, with repetitions."""
    yield model.producer_name
    yield model.domain
    for entry in model.metadata_props:
        yield entry.key
    for body in bodies:
        yield body.proto.name
        if isinstance(body.proto, GraphProto):
            for value in (*body.proto.input, *body.proto.output):
                yield value.name
            yield from (tensor.name for tensor in body.proto.initializer)
            yield from (sparse.values.name for sparse in body.proto.sparse_initializer)
        else:
            yield from (body.proto.domain, *body.proto.input, *body.proto.output)
        for node in body.proto.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def check_onnx(
    path: str | Path, *, limits: ReadLimits = DEFAULT_LIMITS, root: str | Path | None = None
) -> list[Finding]:
    """Return what a user of an ONNX file should know, the worst first.

    Everything that `read_onnx` refuses is an error here, and the rest of the file is looked at all the same
    unless its encoding is damaged. Nothing in the file is run. At most 20 findings of one id are listed, the
    others are counted.

    Args:
        path: The model file.
        limits: How much is believed.
        root: As in `read_onnx`.

    Raises:
        InvalidInputError: The path names no file that can be read.
    """
    report = FindingLog(collect_all=True)
    try:
        file = load(Path(path), limits=limits, root=root, report=report)
    except EmergraphError as error:
        report.add_error(error)
        return report.findings()
    parts = bodies(file.model)
    known = constants(parts, file.tensor_of)
    for finding in chain(
        _external_findings(file),
        operation_findings(file.model, parts),
        training_findings(file.model, known),
        size_findings(known, limits),
        quantization_findings(known),
        name_findings(file.model, parts),
    ):
        report.add(finding)
    for body in parts:
        _check_values(body, file, report)
    return report.findings()


def _external_findings(file: OnnxFile) -> Iterator[Finding]:
    if file.external_files:
        size = sum(external.size for external in file.external_files.values())
        yield Finding("ONNX-EXT-USED", f"{len(file.external_files)} files of {size} bytes in total")


def _check_values(body: Body, file: OnnxFile, report: FindingLog) -> None:
    for proto in body_tensors(body):
        try:
            is_sparse = isinstance(proto, SparseTensorProto)
            tensor = file.sparse_tensor_of(proto).values if is_sparse else file.tensor_of(proto)
        except EmergraphError:  # reported when the file was read
            continue
        try:
            for finding in value_findings(tensor):
                report.add(finding)
        except EmergraphError as error:
            report.add_error(error)
