"""Which axes of an operand an operation contracts as features or channels."""

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes
from emergraph.exporters.operations import CONTRACTING, CONVOLUTIONS, Kind, spec_of

CONTRACTIONS = CONTRACTING | {Kind.ATTENTION, Kind.TRANSFORM}
"""Kinds of the plain operations whose operands are contracted."""


def contracted_axes(
    node: onnx.NodeProto,
    position: int,
    rank: int,
    *,
    axis: NDArray[np.generic] | None = None,
    opset: int = 20,
) -> tuple[int, ...] | None:
    """The axes of an input over which an operation sums different features or channels.

    Args:
        node: An operation that is or stands for one of `CONTRACTIONS`.
        position: Which of its inputs.
        rank: Axes of that input.
        axis: Value of the input that names an axis (`DFT`).
        opset: Of the model.

    Returns:
        The axes, or None when the input is not contracted (a kernel, a length, a mask).

    Example:
        >>> contracted_axes(onnx.helper.make_node("Gemm", ["a", "b"], ["y"], transA=1), 0, 2)
        (0,)
    """
    kind, attrs = spec_of(node).plain_kind, attributes(node)
    if kind in CONVOLUTIONS:
        return (1,) if position == 0 and rank > 1 else None
    if kind is Kind.RECURRENT:
        return _of_recurrent(attrs, position, rank)
    if kind is Kind.ATTENTION:
        return _of_heads(node, position, rank)
    if kind is Kind.EINSUM:
        return _of_einsum(str(attrs.get("equation", "")), position, rank)
    if kind is Kind.TRANSFORM and position == 0:
        # The window of a short-time transform slides, like a kernel.
        return (
            (rank - 1,) if node.op_type == "STFT" else (transformed_axis(node, rank, axis, opset), rank - 1)
        )
    return None if kind is Kind.TRANSFORM else _of_dense(node, position, rank)


def transformed_axis(node: onnx.NodeProto, rank: int, given: NDArray[np.generic] | None, opset: int) -> int:
    """The axis of a `DFT`: an attribute before opset 20, input 2 from it on."""
    usual = 1 if opset < 20 else -2
    named = attributes(node).get("axis", usual) if given is None else np.ravel(given)[0]
    return int(str(named)) % rank


def _of_dense(node: onnx.NodeProto, position: int, rank: int) -> tuple[int, ...] | None:
    flipped = {a.name for a in node.attribute if a.i}
    if position == 0:
        return (max(rank - 2, 0),) if "transA" in flipped else (rank - 1,)
    if position == max(spec_of(node).weights):
        return (rank - 1,) if "transB" in flipped else (max(rank - 2, 0),)
    return (rank - 1,) if rank else None


def _of_recurrent(attrs: dict[str, object], position: int, rank: int) -> tuple[int, ...] | None:
    if position == 0:
        return (rank - 1,)
    if position in (5, 6):
        return (1 if attrs.get("layout") else 0, rank - 1)
    return None


def _of_heads(node: onnx.NodeProto, position: int, rank: int) -> tuple[int, ...] | None:
    is_state = (4, 5) if node.op_type == "Attention" and not node.domain else (3, 4, 6, 7)
    if position > 2 and position not in is_state:
        return None
    return {3: (2,), 4: (1, 3), 5: (2, 3, 4)}.get(rank)


def _of_einsum(equation: str, position: int, rank: int) -> tuple[int, ...]:
    terms, arrow, out = equation.replace(" ", "").partition("->")
    own = terms.split(",")[position]
    if not arrow:
        letters = terms.replace(",", "").replace(".", "")
        out = "".join(c for c in letters if letters.count(c) == 1)
    before = own.split("...")[0]
    named = own.replace("...", "")
    axes = [k if k < len(before) else rank - len(named) + k for k in range(len(named))]
    summed = tuple(axis for axis, letter in zip(axes, named, strict=True) if letter not in out)
    return summed or (() if not rank else (rank - 1,))
