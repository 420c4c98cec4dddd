"""Contractions axis by axis: which axes of an activation and a weight are batch, free, summed or new."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from string import ascii_letters

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes
from emergraph.exporters.operations import CONTRACTING, CONVOLUTIONS, Kind, spec_of
from emergraph.exporters.tracing.labels import Labels
from emergraph.exporters.tracing.weights import KernelMatrix, kernel_matrix

_BATCH = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Letters:
    """A contraction of two operands, axis by axis: the letters of an einsum."""

    left: str
    right: str
    out: str


def matmul_letters(left: int, right: int) -> Letters:
    """Letters of MatMul for operands of the given ranks (numpy's rules; size-1 batch axes broadcast).

    Example:
        >>> matmul_letters(3, 2)
        Letters(left='Amk', right='kn', out='Amn')
    """
    if left == 1 and right == 1:
        return Letters("k", "k", "")
    if left == 1:
        batch = _BATCH[: right - 2]
        return Letters("k", f"{batch}kn", f"{batch}n")
    if right == 1:
        batch = _BATCH[: left - 2]
        return Letters(f"{batch}mk", "k", f"{batch}m")
    batch = _BATCH[: max(left, right) - 2]
    return Letters(
        f"{batch[len(batch) - (left - 2) :]}mk", f"{batch[len(batch) - (right - 2) :]}kn", f"{batch}mn"
    )


def einsum_letters(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Operands and result of an einsum equation, with letters for its ellipsis and an explicit result.

    Args:
        equation: As in ONNX.
        ranks: Axes of each operand.

    Example:
        >>> einsum_letters("...ij,jk", [3, 2])
        (['Aij', 'jk'], 'Aik')
    """
    terms, arrow, out = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    widths = [
        r - len(t.replace("...", "")) if "..." in t else 0 for t, r in zip(operands, ranks, strict=True)
    ]
    unused = [c for c in _BATCH + ascii_letters if c not in equation][: max(widths, default=0)]
    if not arrow:
        letters = terms.replace(",", "").replace(".", "")
        out = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    spelled = [
        t.replace("...", "".join(unused[len(unused) - width :]))
        for t, width in zip(operands, widths, strict=True)
    ]
    return spelled, out.replace("...", "".join(unused))


@dataclass(frozen=True)
class Plan:
    """How the axes of an activation x and a weight w play together in a contraction."""

    batch: str
    """In x, w and the output."""
    free: str
    """In x and the output."""
    summed: str
    """In x, and in w or nowhere else."""
    new: str
    """In w and the output."""
    taps: str
    """In w alone."""

    @property
    def order(self) -> str:
        """Axes of the output, as the tracer makes them."""
        return self.batch + self.free + self.new


def plan_of(x: str, w: str, out: str) -> Plan:
    """Sort the axes of a contraction."""
    return Plan(
        batch="".join(c for c in x if c in w and c in out),
        free="".join(c for c in x if c not in w and c in out),
        summed="".join(c for c in x if c not in out),
        new="".join(c for c in w if c not in x and c in out),
        taps="".join(c for c in w if c not in x and c not in out),
    )


@dataclass(frozen=True)
class Contraction:
    """A contraction with a weight as matrices: per batch index, rows of labels and (summed, new) weights."""

    plan: Plan
    sizes: dict[str, int]
    labels: list[Labels]
    """(free..., summed) labels per batch index, free axes that change nothing taken once."""
    matrices: list[KernelMatrix]
    """(summed, new) weights per batch index."""
    orientation: bool | None
    """Whether the one matrix is the weight transposed; None when it is neither the weight nor that."""

    @property
    def n_new(self) -> int:
        """Columns of every matrix."""
        return prod(self.sizes[c] for c in self.plan.new)


def contraction(labels: Labels, values: NDArray[np.generic], x: str, w: str, out: str) -> Contraction:
    """Lay a contraction of labels (letters x) and weights (letters w) out as matrices.

    Axes of size 1 broadcast against larger ones of the other operand.
    """
    x_kept, x_index = _squeezed(labels.shape, x, dict(zip(w, values.shape, strict=True)))
    w_kept, w_index = _squeezed(values.shape, w, dict(zip(x, labels.shape, strict=True)))
    moved_labels, moved_values = labels[x_index], values[w_index]
    plan = plan_of(x_kept, w_kept, out)
    sizes = dict(zip(x_kept + w_kept, [*moved_labels.shape, *moved_values.shape], strict=True))
    blocks = _labels_per_batch(moved_labels, x_kept, plan)
    matrices = _matrices(moved_values, w_kept, plan, sizes)
    plain = (
        not plan.batch and not plan.taps and values.ndim == 2 and len(plan.new) == 1 and len(plan.summed) == 1
    )
    orientation = w_kept[0] in plan.new if plain and plan.summed in w_kept else None
    return Contraction(plan, sizes, blocks, matrices, orientation)


def _squeezed(
    shape: tuple[int, ...], letters: str, other: dict[str, int]
) -> tuple[str, tuple[slice | int, ...]]:
    """The letters that stay, and the index that takes the others away."""
    kept = [k for k, c in enumerate(letters) if not (shape[k] == 1 and other.get(c, 1) > 1)]
    return "".join(letters[k] for k in kept), tuple(
        slice(None) if k in kept else 0 for k in range(len(shape))
    )


def _labels_per_batch(labels: Labels, x: str, plan: Plan) -> list[Labels]:
    moved = labels.transpose([x.index(c) for c in plan.batch + plan.free + plan.summed])
    n_batch, n_free = len(plan.batch), len(plan.free)
    index = tuple(
        slice(0, 1) if n_batch <= k < n_batch + n_free and stride == 0 else slice(None)
        for k, stride in enumerate(moved.strides)
    )
    inner = moved[index]
    free = inner.shape[n_batch : n_batch + n_free]
    n_summed = prod(inner.shape[n_batch + n_free :])
    return list(inner.reshape((prod(inner.shape[:n_batch]), *free, n_summed)))


def _matrices(values: NDArray[np.generic], w: str, plan: Plan, sizes: dict[str, int]) -> list[KernelMatrix]:
    order = plan.batch + plan.summed + plan.new + plan.taps
    arranged = values.transpose([w.index(c) for c in order if c in w])
    # An axis of x that is summed without a weight: every position has the same weight.
    arranged = arranged[tuple(slice(None) if c in w else None for c in order)]
    arranged = np.broadcast_to(arranged, [sizes[c] for c in order])
    n_batch, n_summed, n_new = (prod(sizes[c] for c in part) for part in (plan.batch, plan.summed, plan.new))
    shaped = arranged.reshape(n_batch, n_summed, n_new, -1)
    return [kernel_matrix(matrix, taps=1) for matrix in shaped]


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
