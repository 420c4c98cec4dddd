"""What an operation does to path counts when they are carried from its output back to its inputs.

Every linear operation has a 0/1 map from input positions to output positions: 1 where an output reads an
input through a weight that is not zero. Carried back are sums over that map, so its transpose is what is
here: for a convolution the transposed convolution with its kernel's pattern of ones, tap by tap, with the
layer's own stride, padding, dilation and groups.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from emergraph.errors import UsageError
from emergraph.exporters.nodes import attributes
from emergraph.exporters.operations import DENSE, MOVING, NORMS, POINTWISE, UNARY, Kind, kind_of

Floats = NDArray[np.float64]
Array = NDArray[np.generic]

WEIGHTED = DENSE | {Kind.CONVOLUTION}
"""Operations whose outputs are neurons, where they hold weights."""
PASSING = UNARY | NORMS
"""Element-wise operations, and normalisations by numbers that are not followed."""


@dataclass(frozen=True, eq=False)
class Tensors:
    """What is known about the tensors of a model: shapes, and values of constants."""

    shape: Callable[[str], tuple[int, ...]]
    constant: Callable[[str], Array | None]
    """None for what depends on the inputs."""
    opset: int


def carried_back(node: onnx.NodeProto, p: Floats, tensors: Tensors, output: int = 0) -> dict[str, Floats]:
    """Sums of p over the outputs that each input position leads to, by input name.

    Args:
        node: An operation of one of the kinds of `RULES`.
        p: Values of the positions of one of its outputs.
        tensors: Shapes and constants.
        output: Which output.

    Raises:
        UsageError: Positions cannot be followed through this operation.
    """
    kind = kind_of(node)
    if kind not in RULES:
        raise UsageError(
            f"positions cannot be followed through {node.op_type} ('{node.name}'): they are for "
            "convolutional networks; count units without --positions"
        )
    return RULES[kind](node, p, tensors, output)


def _activation_input(node: onnx.NodeProto, tensors: Tensors) -> int:
    """Which of the two factors is the activation; the other holds the weights."""
    constant = [tensors.constant(name) is not None for name in node.input[:2]]
    if constant == [False, True]:
        return 0
    if constant == [True, False] and kind_of(node) is not Kind.CONVOLUTION:
        return 1
    raise UsageError(
        f"positions cannot be followed through '{node.name}' ({node.op_type}): expected weights and one "
        "activation"
    )


def pattern(values: Array) -> Floats:
    """1 where a weight is not zero."""
    return np.asarray(values.astype(np.float64) != 0, dtype=np.float64)


def _passed_back(node: onnx.NodeProto, p: Floats, tensors: Tensors, output: int) -> dict[str, Floats]:
    del tensors, output
    return {node.input[0]: p}


def _contracted_back(node: onnx.NodeProto, p: Floats, tensors: Tensors, output: int) -> dict[str, Floats]:
    del output
    at = _activation_input(node, tensors)
    return {node.input[at]: _through_weights(node, p, tensors, at)}


def _pooled_back(node: onnx.NodeProto, p: Floats, tensors: Tensors, output: int) -> dict[str, Floats]:
    del output
    shape = tensors.shape(node.input[0])
    if kind_of(node) is Kind.GLOBAL_POOL:
        return {node.input[0]: np.broadcast_to(p, shape)}
    geometry = Geometry.of(node, shape[2:], p.shape[2:])
    return {node.input[0]: geometry.back(p, shape, lambda _tap, value: value)}


def _reduced_back(node: onnx.NodeProto, p: Floats, tensors: Tensors, output: int) -> dict[str, Floats]:
    del output
    kept = p.reshape(_kept_axes(node, tensors))
    return {node.input[0]: np.broadcast_to(kept, tensors.shape(node.input[0]))}


def _through_weights(node: onnx.NodeProto, p: Floats, tensors: Tensors, at: int) -> Floats:
    name = node.input[at]
    weights = tensors.constant(node.input[1 - at])
    if weights is None:
        raise UsageError(f"'{node.name}' holds no weights")
    ones, shape = pattern(weights), tensors.shape(name)
    known = attributes(node)
    if kind_of(node) is Kind.CONVOLUTION:
        geometry = Geometry.of(node, shape[2:], p.shape[2:], kernel=ones.shape[2:])
        groups = int(str(known.get("group", 1)))
        split = p.reshape(p.shape[0], groups, ones.shape[0] // groups, *p.shape[2:])
        by_group = ones.reshape(groups, ones.shape[0] // groups, *ones.shape[1:])

        def through(tap: tuple[int, ...], _value: Floats) -> Floats:
            # (groups, out, in) at this tap, against (batch, groups, out, positions...)
            at_tap: tuple[slice | int, ...] = (slice(None), slice(None), slice(None), *tap)
            kernel = by_group[at_tap]
            flat = split.reshape(*split.shape[:3], -1)
            back = np.matmul(kernel.transpose(0, 2, 1), flat)
            return np.asarray(back.reshape(p.shape[0], -1, *p.shape[2:]))

        return geometry.back(p, shape, through)
    if kind_of(node) is Kind.GEMM:
        if bool(known.get("transB" if at == 0 else "transA", 0)):
            ones = ones.T
        turned = bool(known.get("transA" if at == 0 else "transB", 0))
        back = p @ ones.T if at == 0 else ones.T @ p
        return back.T if turned else back
    if ones.ndim != 2 or len(shape) < 2:
        raise UsageError(f"'{node.name}': expected a matrix of weights, found shape {list(ones.shape)}")
    return np.asarray(p @ ones.T if at == 0 else np.matmul(ones.T, p))


@dataclass(frozen=True)
class Geometry:
    """Which input positions each output position of a window sees, axis by axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    """Padding in front."""

    @classmethod
    def of(
        cls,
        node: onnx.NodeProto,
        sizes: Sequence[int],
        outputs: Sequence[int],
        *,
        kernel: Sequence[int] | None = None,
    ) -> "Geometry":
        """From a node's attributes and the sizes of its input and output axes."""
        known = attributes(node)

        def numbers(name: str, default: Sequence[int]) -> tuple[int, ...]:
            given = known.get(name)
            return tuple(int(v) for v in (given if isinstance(given, Sequence) else default))

        shape = numbers("kernel_shape", kernel or ())
        strides, dilations = numbers("strides", [1] * len(shape)), numbers("dilations", [1] * len(shape))
        begins = numbers("pads", [0] * (2 * len(shape)))[: len(shape)]
        auto = known.get("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            totals = [
                max((n - 1) * s + (k - 1) * d + 1 - size, 0)
                for n, s, k, d, size in zip(outputs, strides, shape, dilations, sizes, strict=True)
            ]
            begins = tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in totals)
        elif auto == "VALID":
            begins = (0,) * len(shape)
        return cls(shape, strides, dilations, begins)

    def back(
        self, p: Floats, shape: Sequence[int], value: Callable[[tuple[int, ...], Floats], Floats]
    ) -> Floats:
        """Add, for every tap of the window, what comes back through it to the positions that it sees.

        Args:
            p: (batch, channels, positions...) of the output.
            shape: Of the input.
            value: What comes back through a tap, laid out like the output's positions.
        """
        outputs = p.shape[2:]
        ends = [
            max(b + size, (n - 1) * s + (k - 1) * d + 1)
            for b, size, n, s, k, d in zip(
                self.begins, shape[2:], outputs, self.strides, self.kernel, self.dilations, strict=True
            )
        ]
        total = np.zeros((*shape[:2], *ends))
        for tap in product(*(range(k) for k in self.kernel)):
            seen = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, self.dilations, outputs, self.strides, strict=True)
            )
            total[(slice(None), slice(None), *seen)] += value(tap, p)
        inner = tuple(slice(b, b + size) for b, size in zip(self.begins, shape[2:], strict=True))
        return np.asarray(total[(slice(None), slice(None), *inner)])


def _combined_back(node: onnx.NodeProto, p: Floats, tensors: Tensors, output: int) -> dict[str, Floats]:
    del output
    found: dict[str, Floats] = {}
    axis = int(str(attributes(node).get("axis", 0)))
    start = 0
    for name in node.input:
        shape = tensors.shape(name)
        if kind_of(node) is Kind.CONCAT:
            part = p.take(range(start, start + shape[axis]), axis=axis)
            start += shape[axis]
        else:
            part = _unbroadcast(p, shape)
        if tensors.constant(name) is None:
            found[name] = found[name] + part if name in found else part
    return found


def _unbroadcast(p: Floats, shape: tuple[int, ...]) -> Floats:
    summed = p.sum(axis=tuple(range(p.ndim - len(shape))))
    axes = tuple(k for k, size in enumerate(shape) if size == 1 and summed.shape[k] != 1)
    return np.asarray(summed.sum(axis=axes, keepdims=True) if axes else summed)


def _moved_back(node: onnx.NodeProto, p: Floats, tensors: Tensors, output: int) -> dict[str, Floats]:
    """Run the operation itself on numbered positions, and add up what each number became."""
    shape = tensors.shape(node.input[0])
    n = prod(shape)
    constants = {name: tensors.constant(name) for name in node.input[1:] if name}
    missing = [name for name, value in constants.items() if value is None]
    if missing:
        raise UsageError(
            f"positions cannot be followed through '{node.name}': '{missing[0]}' is not a constant"
        )
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    inputs = [helper.make_tensor_value_info(node.input[0], onnx.TensorProto.INT64, list(shape))]
    inputs += [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), list(v.shape))
        for k, v in constants.items()
        if v is not None
    ]
    if kind_of(node) is Kind.PAD and len(node.input) > 2:
        constants[node.input[2]] = np.zeros((), np.int64)
        inputs[2 if len(inputs) > 2 else 1] = helper.make_tensor_value_info(
            node.input[2], onnx.TensorProto.INT64, []
        )
    graph = helper.make_graph([plain], "moved", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", tensors.opset)])
    numbered = np.arange(1, n + 1, dtype=np.int64).reshape(shape)
    results: Any = ReferenceEvaluator(model).run(None, {node.input[0]: numbered, **constants})
    sums = np.bincount(np.asarray(results[output]).ravel(), weights=p.ravel(), minlength=n + 1)
    return {node.input[0]: np.asarray(sums[1:], dtype=np.float64).reshape(shape)}


def _kept_axes(node: onnx.NodeProto, tensors: Tensors) -> tuple[int, ...]:
    """The input's shape with the reduced axes as 1."""
    shape = tensors.shape(node.input[0])
    known = attributes(node)
    given: object = known.get("axes")
    if given is None and len(node.input) > 1 and node.input[1]:
        constant = tensors.constant(node.input[1])
        given = None if constant is None else constant.tolist()
    axes = [int(a) % len(shape) for a in given] if isinstance(given, Sequence) else range(len(shape))
    return tuple(1 if k in set(axes) else size for k, size in enumerate(shape))


RULES: Mapping[Kind, Callable[[onnx.NodeProto, Floats, Tensors, int], dict[str, Floats]]] = {
    **dict.fromkeys(PASSING, _passed_back),
    **dict.fromkeys(POINTWISE - UNARY | {Kind.CONCAT}, _combined_back),
    **dict.fromkeys(MOVING - {Kind.CONCAT}, _moved_back),
    **dict.fromkeys(WEIGHTED, _contracted_back),
    **dict.fromkeys((Kind.POOL, Kind.GLOBAL_POOL), _pooled_back),
    Kind.REDUCTION: _reduced_back,
}
