"""Which constants of an ONNX model are parameters, and along which axes their filters lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

import onnx

from emergraph.exporters.onnxfile.dtypes import BY_NAME
from emergraph.exporters.operations import COPYING, DENSE, KEEPING, Kind, kind_of, spec_of

FLOATING = {BY_NAME[name].code: name for name in ("float32", "float16", "bfloat16", "float64")}
"""Element types that are perturbed, in float32; only float64 values are rounded to it."""


@dataclass(frozen=True)
class Parameter:
    """A constant that an operation uses as weights."""

    name: str
    """Of the initializer."""
    layer: str
    """Name of the operation."""
    shape: tuple[int, ...]
    element_type: int
    unit_axes: tuple[int, ...]
    is_vector: bool
    is_embedding: bool = False
    """A table of which an input picks rows."""


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _filter_axes(node: onnx.NodeProto, position: int, rank: int) -> tuple[int, ...] | None:
    """Axes that count filters of a constant at input `position`; None if it is not a weight there."""
    spec = spec_of(node)
    if rank < 2 or (position not in spec.weights and spec.kind is not Kind.EINSUM):
        return None
    if spec.kind is Kind.EINSUM:
        return _einsum_axes(node, position)
    listed = spec.weights[position]
    if listed is not None or spec.plain_kind not in DENSE:
        return listed
    # Filters are the axis that is not contracted: columns of the right factor, rows of the left one.
    is_right = position == max(spec.weights)
    turned = bool(_attribute(node, "transB" if is_right else "transA", 0))
    return (*range(rank - 2), rank - 1 if is_right != turned else rank - 2)


def _einsum_axes(node: onnx.NodeProto, position: int) -> tuple[int, ...] | None:
    """Axes of an Einsum operand that appear in the result."""
    equation = next((a.s.decode() for a in node.attribute if a.name == "equation"), "").replace(" ", "")
    if "->" not in equation or "." in equation:
        return (0,)
    terms, result = equation.split("->")
    return tuple(i for i, letter in enumerate(terms.split(",")[position]) if letter in result)


def _moved(node: onnx.NodeProto, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes before a mover of a constant, given the axes after it."""
    kind = kind_of(node)
    if kind is Kind.TRANSPOSE:
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
        return tuple(sorted(order[axis] for axis in axes if axis < len(order)))
    return axes if kind in COPYING else (0,)


_MOVERS = KEEPING | {Kind.SLICE}
_SCALING = frozenset({Kind.PRODUCT, Kind.QUOTIENT})


def find_parameters(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto], *, vectors: bool
) -> list[Parameter]:
    """Find the constants that top-level operations use as weights, directly or moved or scaled by a constant.

    A tied weight is one parameter, named after the first contraction that uses it.

    Args:
        nodes: In data order, quantized ones rewritten.
        constants: Initializers by name.
        vectors: Also find biases, scales and shifts.

    Returns:
        The parameters in the order of their first use.
    """
    ordered = list(nodes)
    through: dict[str, tuple[str, list[onnx.NodeProto]]] = {name: (name, []) for name in constants}
    found: dict[str, Parameter] = {}
    for node in ordered:
        for position, name in enumerate(node.input):
            if name not in through:
                continue
            origin, movers = through[name]
            tensor = constants[origin]
            use = _use(node, position, tensor, movers, vectors=vectors)
            if use is not None and (origin not in found or _rank(use) < _rank(found[origin])):
                found[origin] = replace(use, name=origin)
        _follow(node, through, constants)
    return list(found.values())


def _rank(parameter: Parameter) -> int:
    """Which use of a tied tensor counts: a contraction before an embedding before a vector."""
    return 2 if parameter.is_vector else int(parameter.is_embedding)


def _use(
    node: onnx.NodeProto,
    position: int,
    tensor: onnx.TensorProto,
    movers: list[onnx.NodeProto],
    *,
    vectors: bool,
) -> Parameter | None:
    """What a constant is at one input of one operation; None if it is not a parameter there."""
    spec, shape = spec_of(node), tuple(int(d) for d in tensor.dims)
    if tensor.data_type not in FLOATING or _size(tensor) < 2:
        return None
    axes = _filter_axes(node, position, len(shape))
    if axes is not None:
        for mover in reversed(movers):
            axes = _moved(mover, axes, len(shape))
        return Parameter(
            tensor.name,
            node.name,
            shape,
            int(tensor.data_type),
            axes,
            is_vector=False,
            is_embedding=spec.kind is Kind.GATHER,
        )
    # A constant that is added or multiplied counts as a vector only where at most one axis is longer than 1.
    slender = sum(dimension > 1 for dimension in shape) <= 1 or spec.kind is Kind.RECURRENT
    if vectors and slender and position in spec.vectors:
        return Parameter(tensor.name, node.name, shape, int(tensor.data_type), (), is_vector=True)
    return None


def is_followed(node: onnx.NodeProto) -> bool:
    """Whether the output of an operation on one weight and small constants still is that weight."""
    return kind_of(node) in _MOVERS | _SCALING


def _follow(
    node: onnx.NodeProto,
    through: dict[str, tuple[str, list[onnx.NodeProto]]],
    constants: Mapping[str, onnx.TensorProto],
) -> None:
    """Remember that the output of an operation on one weight and small constants still is that weight."""
    if len(node.output) != 1:
        return
    scaled = kind_of(node) in _SCALING and all(name in through for name in node.input)
    if kind_of(node) not in _MOVERS and not scaled:
        return
    known = [name for name in node.input if name in through]
    if scaled:
        known.sort(key=lambda name: -_size(constants[through[name][0]]))
    if known and (scaled or known[0] == node.input[0]):
        origin, movers = through[known[0]]
        kept = movers if scaled else [*movers, node]
        through[node.output[0]] = (origin, kept)


def _size(tensor: onnx.TensorProto) -> int:
    return prod(int(dimension) for dimension in tensor.dims)
