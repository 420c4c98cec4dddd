"""Values for a model's inputs that are likely to be legal."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.dtypes import numpy_dtype, type_name
from emergraph.exporters.operations import VIEWING, Kind, kind_of
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel, is_if, walk_nodes
from emergraph.exporters.runtime.quoting import plain, quoted

Array = NDArray[np.generic]
Shape = tuple[int, ...]

STYLES = ("counting", "zeros", "ones")
"""Ways to fill integer inputs, in the order to try: 1 2 3 1 2 3 ..., zeros, ones."""

MAX_SCALAR_CHOICES = 8
MAX_MADE = 1 << 27
"""Elements of an input with synthetic values: 1 GiB while they are drawn."""

_MASK = re.compile(r"mask", re.IGNORECASE)
_SEGMENT = re.compile(r"token_?type|segment", re.IGNORECASE)
_LENGTH = re.compile(r"len(gth)?s?$|^len|_len(gth)?s?_", re.IGNORECASE)
_POSITION = re.compile(r"position", re.IGNORECASE)


@dataclass(frozen=True)
class InputHints:
    """What the model's operations say about the values of its inputs."""

    choices: Mapping[str, tuple[float | int | bool, ...]]
    """Scalars that decide something: the constants they are compared with, or both truths."""
    rows: Mapping[str, int]
    """Inputs that pick rows of a constant table: how many rows the smallest one has."""


def input_hints(
    flat: FlatModel, source: ModelSource, computed: Mapping[str, Shape] | None = None
) -> InputHints:
    """Find what scalar inputs are compared with, and how many rows indexed tables have.

    Args:
        flat: The model.
        source: Its tensors.
        computed: Shapes of computed tensors, for tables that are made of others (dequantized ones).
    """
    origin = {value.name: value.name for value in flat.inputs}
    nodes = _in_order(flat.nodes)
    for node in nodes:
        if kind_of(node) in VIEWING and node.input and node.input[0] in origin:
            origin.update(dict.fromkeys(node.output, origin[node.input[0]]))
    choices: dict[str, dict[float | int | bool, None]] = {}
    rows: dict[str, int] = {}
    for node in nodes:
        if is_if(node) and node.input[0] in origin:
            choices.setdefault(origin[node.input[0]], {}).update({False: None, True: None})
        elif kind_of(node) is Kind.COMPARISON and len(node.input) == 2:
            for one, two in (node.input, reversed(node.input)):
                value = _scalar(flat.initializers.get(two), source)
                if one in origin and value is not None:
                    choices.setdefault(origin[one], {})[value] = None
        elif kind_of(node) is Kind.GATHER and len(node.input) == 2:
            name = origin.get(node.input[1])
            count = _rows(node, flat.initializers.get(node.input[0]), computed or {})
            if name is not None and count is not None:
                rows[name] = min(rows.get(name, count), count)
    return InputHints({name: tuple(found) for name, found in choices.items()}, rows)


def _scalar(tensor: onnx.TensorProto | None, source: ModelSource) -> float | int | bool | None:
    """The value of a numeric constant of one element."""
    if tensor is None or numpy_dtype(tensor.data_type) is None or int(np.prod(tensor.dims)) != 1:
        return None
    found: float | int | bool = np.reshape(source.array(tensor), ())[()].item()
    return found


def _rows(
    gather: onnx.NodeProto, constant: onnx.TensorProto | None, computed: Mapping[str, Shape]
) -> int | None:
    """How many entries a Gather chooses among."""
    table = tuple(constant.dims) if constant is not None else computed.get(gather.input[0])
    axis = next((a.i for a in gather.attribute if a.name == "axis"), 0)
    if table is None or not -len(table) <= axis < len(table):
        return None
    return int(table[axis])


def is_steering(name: str) -> bool:
    """Whether an input's name says that it tells which or where: masks, segments, lengths, positions."""
    return any(pattern.search(name) for pattern in (_MASK, _SEGMENT, _LENGTH, _POSITION))


def _in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Top-level nodes in data order, each followed by the nodes of its subgraphs."""
    ordered: list[onnx.NodeProto] = []
    for node in nodes:
        ordered.append(node)
        ordered.extend(reversed([inner for inner in walk_nodes((node,)) if inner is not node]))
    return ordered


def scalar_choices(
    inputs: Sequence[FlatInput], hints: InputHints, given: Mapping[str, Array]
) -> Iterator[dict[str, float | int | bool]]:
    """Combinations of values for the scalars that decide something; the first constants of the file first."""
    names = [
        value.name
        for value in inputs
        if value.name in hints.choices
        and value.name not in given
        and value.shape is not None
        and all(axis == 1 for axis in value.shape)
    ]
    options = [hints.choices[name][:MAX_SCALAR_CHOICES] for name in names]
    for values in itertools.islice(itertools.product(*options), MAX_SCALAR_CHOICES):
        yield dict(zip(names, values, strict=True))


def make_feeds(
    inputs: Sequence[FlatInput],
    shapes: Mapping[str, Shape],
    hints: InputHints,
    *,
    scalars: Mapping[str, float | int | bool],
    style: str,
    seed: int,
) -> dict[str, Array]:
    """One array per input.

    Floats are drawn from N(0, 1); integers are small and non-negative, masks are ones, token types zeros,
    positions count up, lengths are the size of the second axis of another input.

    Args:
        inputs: The inputs to fill.
        shapes: Their shapes.
        hints: What the model says about them.
        scalars: Values decided for deciding scalars.
        style: One of `STYLES`, for the other integers.
        seed: Of the random numbers.

    Raises:
        InvalidInputError: An input's type cannot be made up.
        LimitError: An input has more than `MAX_MADE` elements.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in inputs:
        shape = shapes[value.name]
        if prod(shape) > MAX_MADE:
            raise LimitError(
                f"input {quoted(value.name)} has shape {list(shape)}; values are generated for at most "
                f"{MAX_MADE} elements; give smaller sizes with --input-shape {plain(value.name)}=..."
            )
        dtype = numpy_dtype(value.element_type)
        if dtype is None:
            raise InvalidInputError(
                f"input {quoted(value.name)} takes {type_name(value.element_type)}, for which no value can "
                f"be generated; give one with --input {plain(value.name)}=VALUE"
            )
        if value.name in scalars:
            feeds[value.name] = np.full(shape, scalars[value.name]).astype(dtype)
        elif dtype.kind in "iu":
            feeds[value.name] = _integers(value.name, shape, shapes, hints, style).astype(dtype)
        elif dtype.kind == "b":
            feeds[value.name] = np.ones(shape, np.bool_)
        elif _MASK.search(value.name):
            feeds[value.name] = np.ones(shape, np.float32).astype(dtype)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def _integers(
    name: str, shape: Shape, shapes: Mapping[str, Shape], hints: InputHints, style: str
) -> NDArray[np.int64]:
    if _MASK.search(name):
        return np.ones(shape, np.int64)
    if _SEGMENT.search(name):
        return np.zeros(shape, np.int64)
    if _LENGTH.search(name) and len(shape) <= 1:
        return np.full(shape, sequence_size(name, shapes), np.int64)
    if _POSITION.search(name) and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape)
    if style != "counting" or not shape:
        return np.full(shape, 0 if style == "zeros" else 1, np.int64)
    count = int(np.prod(shape))
    values = 1 + np.arange(count) % 3
    if name in hints.rows:
        values = np.minimum(values, hints.rows[name] - 1)
    return np.asarray(values.reshape(shape), np.int64)


def sequence_size(name: str, shapes: Mapping[str, Shape]) -> int:
    """Size of the second axis of the first other input that has one; 1 if none has."""
    return next((shape[1] for other, shape in shapes.items() if other != name and len(shape) >= 2), 1)
