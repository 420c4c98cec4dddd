"""How a tensor of a module is made of those that a file stores: under another name, turned, stacked.

A recipe is a name, or an operation on recipes. It can be sent to another process, says what shape it gives
without a value being read, and is computed when the values are asked for.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.encodings.parameter import FloatArray, Parameter

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """An operation on tensors of a file."""

    op: str
    """A key of `_OPERATIONS`."""
    parts: "tuple[Made, ...]"
    args: tuple[int, ...] = ()


Made = Recipe | str
"""How a tensor is made; a name stands for a parameter of the file as it is."""


def stored_names(made: Made) -> Iterator[str]:
    """Names of the parameters of the file that a tensor is made of."""
    if isinstance(made, str):
        yield made
        return
    for part in made.parts:
        yield from stored_names(part)


def shape_of(made: Made, found: Mapping[str, Parameter]) -> Shape:
    """The shape of what a recipe gives.

    Raises:
        ValueError: The parts do not fit each other or the operation.
    """
    if isinstance(made, str):
        return found[made].shape
    return _OPERATIONS[made.op].shape([shape_of(part, found) for part in made.parts], *made.args)


def values_of(made: Made, found: Mapping[str, Parameter]) -> FloatArray:
    """The values that a recipe gives."""
    if isinstance(made, str):
        return found[made].floats()
    values: FloatArray = _OPERATIONS[made.op].values(
        [values_of(part, found) for part in made.parts], *made.args
    )
    return np.ascontiguousarray(values)


def moved_rows(op: str, shapes: Sequence[Shape], args: Sequence[int]) -> tuple[Shape, NDArray[np.int64]]:
    """What an operation that moves whole rows gives: its shape, and which row of its parts each row is.

    Args:
        op: The operation.
        shapes: Of its parts; the last axis, which is one row, stays.
        args: Its settings.

    Returns:
        The shape, and numbers of rows, counted over all parts, for each row.

    Raises:
        ValueError: It is no such operation, or does not fit the parts.
    """
    operation = _OPERATIONS.get(op) if op in _MOVING else None
    if operation is None:
        raise ValueError(f"operation {op!r}, which moves no rows")
    shape = operation.shape(list(shapes), *args)
    sizes = [math.prod(one[:-1]) for one in shapes]
    numbers = [
        np.arange(sum(sizes[:k]), sum(sizes[: k + 1])).reshape(one[:-1]) for k, one in enumerate(shapes)
    ]
    order: NDArray[np.int64] = operation.values(numbers, *args).reshape(-1)
    return shape, order


@dataclass(frozen=True)
class _Operation:
    shape: Callable[..., Shape]
    values: Callable[..., Any]


def _same(shapes: list[Shape], *_: int) -> Shape:
    return shapes[0]


def _rotary_shape(shapes: list[Shape], heads: int) -> Shape:
    if not shapes[0] or heads < 1 or shapes[0][0] % (2 * heads):
        raise ValueError(f"{shapes[0]} does not divide into pairs of {heads} heads")
    return shapes[0]


def _rotary(parts: list[NDArray[np.generic]], heads: int) -> NDArray[np.generic]:
    """Rows of each head from pairs (llama.cpp rotates neighbours) to halves (transformers rotates those)."""
    (rows,) = parts
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _head_blocks_shape(shapes: list[Shape], heads: int) -> Shape:
    if not shapes[0] or heads < 1 or shapes[0][0] % (3 * heads):
        raise ValueError(f"{shapes[0]} does not divide into query, key and value of {heads} heads")
    return shapes[0]


def _head_blocks(parts: list[NDArray[np.generic]], heads: int) -> NDArray[np.generic]:
    """Rows from all queries, all keys, all values to query, key, value of each head."""
    (rows,) = parts
    return rows.reshape(3, heads, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def _turned(shapes: list[Shape]) -> Shape:
    return tuple(reversed(shapes[0]))


def _expanded(shapes: list[Shape], axis: int) -> Shape:
    return (*shapes[0][:axis], 1, *shapes[0][axis:])


def _stacked(shapes: list[Shape], axis: int) -> Shape:
    if len(set(shapes)) != 1:
        raise ValueError(f"tensors of shapes {shapes[0]} and {shapes[-1]} cannot be stacked")
    return (*shapes[0][:axis], len(shapes), *shapes[0][axis:])


def _joined(shapes: list[Shape], axis: int) -> Shape:
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) != 1 or len(shapes[0]) <= axis:
        raise ValueError(f"tensors of shapes {shapes[0]} and {shapes[-1]} cannot be joined along axis {axis}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


_MOVING = frozenset({"rotary", "head_blocks", "expand", "stack", "join"})
_OPERATIONS: Mapping[str, _Operation] = {
    "rotary": _Operation(_rotary_shape, _rotary),
    "head_blocks": _Operation(_head_blocks_shape, _head_blocks),
    "minus_one": _Operation(_same, lambda parts: parts[0] - 1),
    "negative_log": _Operation(_same, lambda parts: np.log(-parts[0])),
    "transpose": _Operation(_turned, lambda parts: parts[0].T),
    "expand": _Operation(_expanded, lambda parts, axis: np.expand_dims(parts[0], axis)),
    "stack": _Operation(_stacked, np.stack),
    "join": _Operation(_joined, np.concatenate),
}
