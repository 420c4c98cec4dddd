"""Operations and layers that a network could do without: what changes nothing, folds, or follows linearly."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.audit.subject import OnnxSubject
from emergraph.exporters.nodes import attributes, input_name
from emergraph.exporters.operations import CONVOLUTIONS, DENSE, Kind, kind_of

Array = NDArray[np.generic]

_REPEATABLE = frozenset({"Relu", "Abs", "Sign", "Ceil", "Floor", "Round"})
"""Operations that change nothing the second time."""


def chains(subject: OnnxSubject) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, int]]:
    """Yield contractions that follow each other linearly, and the weights that one of them would save."""
    for node in subject.run.flat.nodes:
        if not _is_layer(subject, node):
            continue
        after = next_layer(subject, node)
        if after is None:
            continue
        a, b = _weights(subject, node), _weights(subject, after)
        saved = 0 if a is None or b is None else _saved(node, a, after, b)
        if saved > 0:
            yield node, after, saved


def _is_layer(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    return kind_of(node) in DENSE | {Kind.CONVOLUTION} and _weights(subject, node) is not None


def _weights(subject: OnnxSubject, node: onnx.NodeProto) -> Array | None:
    """(out, in, taps...) weights of a layer whose data are its first input."""
    data, name = input_name(node, 0), input_name(node, 1)
    if _is_constant(subject, data) or not _is_constant(subject, name):
        return None
    values = subject.constant(name)
    if values is None or values.ndim < 2 or values.dtype.kind not in "fV":
        return None
    if kind_of(node) is Kind.CONVOLUTION:
        return values
    turned = kind_of(node) is Kind.GEMM and bool(attributes(node).get("transB"))
    if values.ndim != 2 or attributes(node).get("transA"):
        return None
    return values if turned else values.T


def _is_constant(subject: OnnxSubject, name: str) -> bool:
    return name in subject.run.flat.initializers or name in subject.makers


def next_layer(subject: OnnxSubject, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The layer that alone reads a layer's result, with nothing but scales and shifts on the way."""
    name = node.output[0]
    while True:
        readers = subject.consumers.get(name, [])
        if len(readers) != 1 or readers[0] < 0:
            return None
        reader = subject.run.flat.nodes[readers[0]]
        if _is_layer(subject, reader) and input_name(reader, 0) == name:
            return reader
        if not _is_affine(subject, reader, name):
            return None
        name = reader.output[0]


def _is_affine(subject: OnnxSubject, node: onnx.NodeProto, name: str) -> bool:
    kind = kind_of(node)
    others = [other for other in node.input if other and other != name]
    if kind in (Kind.SUM, Kind.DIFFERENCE, Kind.PRODUCT):
        return len(others) == 1 and _is_constant(subject, others[0])
    if kind is Kind.QUOTIENT:
        return input_name(node, 0) == name and len(others) == 1 and _is_constant(subject, others[0])
    if kind is Kind.BATCH_NORM:
        training = {one.name for one in subject.run.flat.training}
        return node.name not in training and all(_is_constant(subject, other) for other in others)
    return kind is Kind.IDENTITY


def _saved(first: onnx.NodeProto, a: Array, second: onnx.NodeProto, b: Array) -> int:
    """Weights of two layers less those of the one that does the same; 0 where none does."""
    if kind_of(first) in DENSE and kind_of(second) in DENSE:
        return int(a.size + b.size - b.shape[0] * a.shape[1])
    if kind_of(first) is not Kind.CONVOLUTION or kind_of(second) is not Kind.CONVOLUTION:
        return 0
    grouped = any(int(str(attributes(node).get("group", 1))) != 1 for node in (first, second))
    pointwise = int(np.prod(b.shape[2:])) == 1 and not any(_list(second, "pads"))
    return int(a.size + b.size - b.shape[0] * a[0].size) if pointwise and not grouped else 0


def _list(node: onnx.NodeProto, name: str) -> list[int]:
    found = attributes(node).get(name)
    return list(found) if isinstance(found, list) else []


def is_identity(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether an operation gives what its first input is, for every input."""
    if not node.output or node.output[0] in subject.makers or node.output[0] not in subject.needed:
        return False
    if any(node.output[1:]) or _is_constant(subject, input_name(node, 0)):
        return False
    rule = _UNCHANGED.get(kind_of(node), _is_repeated)
    return rule(subject, node)


def _always(_subject: OnnxSubject, _node: onnx.NodeProto) -> bool:
    return True


def _keeps_type(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether a cast is to the type that its input has; bfloat16 runs as float32, so that it hides types."""
    before, after = (subject.run.values.get(name) for name in (node.input[0], node.output[0]))
    if before is None or after is None or before.dtype is None or subject.has_bfloat16:
        return False
    return before.dtype == after.dtype


def _keeps_order(_subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    order = attributes(node).get("perm")
    return isinstance(order, list) and order == sorted(order)


def _is_alone(_subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    return len(node.input) == 1


def _is_repeated(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    before = subject.maker_of.get(input_name(node, 0))
    return node.op_type in _REPEATABLE and before is not None and before.op_type == node.op_type


def _adds_nothing(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether the second operand is nothing but zeros (of a sum) or ones (of a product), and no wider."""
    if len(node.input) != 2 or not _is_constant(subject, node.input[1]):
        return False
    values, data = subject.constant(node.input[1]), subject.run.values.get(node.input[0])
    made = subject.run.values.get(node.output[0])
    if values is None or data is None or made is None or data.shape is None or values.dtype.kind not in "fiu":
        return False
    neutral = 0 if kind_of(node) in (Kind.SUM, Kind.DIFFERENCE) else 1
    fits = values.ndim <= len(data.shape) and all(
        size == 1 or (size == other and size > 1)
        for size, other in zip(values.shape[::-1], data.shape[::-1], strict=False)
    )
    return bool(fits and made.shape == data.shape and (values == neutral).all())


_UNCHANGED: dict[Kind, Callable[[OnnxSubject, onnx.NodeProto], bool]] = {
    **dict.fromkeys((Kind.IDENTITY, Kind.DROPOUT), _always),
    **dict.fromkeys((Kind.CAST, Kind.CAST_LIKE), _keeps_type),
    **dict.fromkeys((Kind.SUM, Kind.DIFFERENCE, Kind.PRODUCT, Kind.QUOTIENT), _adds_nothing),
    Kind.TRANSPOSE: _keeps_order,
    Kind.CONCAT: _is_alone,
}
"""When an operation of a kind changes nothing."""


def is_foldable_norm(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether a batch normalisation in inference mode is the only reader of a layer with constant weights."""
    if kind_of(node) is not Kind.BATCH_NORM or any(node.output[1:]):
        return False
    if node.name in {one.name for one in subject.run.flat.training}:
        return False
    before = subject.maker_of.get(input_name(node, 0))
    if before is None or kind_of(before) not in CONVOLUTIONS | {Kind.GEMM}:
        return False
    constants = [*before.input[1:], *node.input[1:]]
    alone = len(subject.consumers.get(node.input[0], [])) == 1
    return alone and all(_is_constant(subject, name) for name in constants if name)
