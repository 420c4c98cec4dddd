"""Contractions: dense layers as one einsum of letters, with constant weights or with two activations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.affine import shifted
from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import DistinctRows, Labels, distinct_rows
from emergraph.exporters.tracing.rules.attention import contract_activations
from emergraph.exporters.tracing.rules.elementwise import pass_one
from emergraph.exporters.tracing.values import Value
from emergraph.exporters.tracing.weights import (
    KernelMatrix,
    main_root,
    remember_block,
    restorable,
    write_block,
)
from emergraph.graphstore.records import LayerKind, TracedAs


@dataclass(frozen=True)
class Letters:
    """A contraction of two operands, axis by axis: the letters of an einsum."""

    left: str
    right: str
    out: str


def matmul_letters(left: int, right: int) -> Letters:
    """Letters of MatMul for operands of the given ranks (numpy's rules; size-1 batch axes broadcast)."""
    if left == 1 and right == 1:
        return Letters("k", "k", "")
    if left == 1:
        batch = _batch(right - 2)
        return Letters("k", f"{batch}kn", f"{batch}n")
    if right == 1:
        batch = _batch(left - 2)
        return Letters(f"{batch}mk", "k", f"{batch}m")
    batch = _batch(max(left, right) - 2)
    return Letters(
        f"{batch[len(batch) - (left - 2) :]}mk", f"{batch[len(batch) - (right - 2) :]}kn", f"{batch}mn"
    )


def _batch(count: int) -> str:
    return "ABCDEFGHIJ"[:count]


@rule("MatMul")
def matmul(ctx: TraceContext) -> None:
    """Y = A B, either operand constant, or both activations."""
    left, right = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    contract(ctx, left, right, matmul_letters(len(left.shape), len(right.shape)))


@rule("Gemm")
def gemm(ctx: TraceContext) -> None:
    """Y = alpha A' B' + beta C."""
    left, right = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    letters = Letters(
        "km" if ctx.attr_int("transA", 0) else "mk", "nk" if ctx.attr_int("transB", 0) else "kn", "mn"
    )
    bias = ctx.input(2)
    if bias is not None and bias.labels is not None:
        ctx.make_opaque("Gemm whose C depends on activations")
        return
    alpha, beta = ctx.attr_float("alpha", 1.0), ctx.attr_float("beta", 1.0)
    contract(ctx, left, right, letters, alpha=alpha)
    if bias is not None and bias.constant is not None:
        ctx.use(bias.constant, "bias")
        _add_bias(ctx, bias.constant, beta)


def _add_bias(ctx: TraceContext, constant: Constant, beta: float) -> None:
    out = ctx.node.output[0]
    value = ctx.values[out]
    if value.labels is None:
        return
    tracks = shifted(value.tracks, value.labels, constant.floats() * beta, ctx.builder)
    for layer_id, track in tracks.items():
        layer = ctx.builder.layers[layer_id]
        ctx.count_params(layer, constant)
        layer.raw = track
    ctx.values[out] = replace(value, tracks=tracks)


@rule("Einsum")
def einsum(ctx: TraceContext) -> None:
    """Any contraction of one or two operands that an equation can say."""
    equation = ctx.attr_str("equation", "").replace(" ", "")
    values = ctx.inputs()
    if "..." in equation or len(values) != 2:
        equation = _without_ellipsis(equation, [len(v.shape) for v in values])
    terms, _, out = equation.partition("->")
    operands = terms.split(",")
    if "->" not in equation:
        letters = terms.replace(",", "")
        out = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if len(operands) != 2 or any(len(set(t)) < len(t) for t in operands):
        ctx.make_opaque(f"Einsum of {len(operands)} operands or with a diagonal: {equation}")
        return
    contract(ctx, values[0], values[1], Letters(operands[0], operands[1], out))


def _without_ellipsis(equation: str, ranks: Sequence[int]) -> str:
    terms, arrow, out = equation.partition("->")
    pieces = []
    widest = 0
    for term, rank in zip(terms.split(","), ranks, strict=True):
        width = rank - len(term.replace("...", "")) if "..." in term else 0
        widest = max(widest, width)
        pieces.append(term.replace("...", "ABCDEFGHIJ"[:10][10 - width :] if width else ""))
    return ",".join(pieces) + arrow + out.replace("...", "ABCDEFGHIJ"[10 - widest :] if widest else "")


def contract(ctx: TraceContext, left: Value, right: Value, letters: Letters, *, alpha: float = 1.0) -> None:
    """Trace a contraction of two operands.

    With a constant operand: new neurons, one per column of the weight for each distinct row of labels. With
    two activations: attention. With none that carries units: control.
    """
    if left.labels is not None and right.labels is not None:
        contract_activations(ctx, left, right, letters.left, letters.right, letters.out)
    elif left.labels is not None and right.constant is not None:
        contract_constant(ctx, left, right.constant, letters.left, letters.right, letters.out, alpha=alpha)
    elif right.labels is not None and left.constant is not None:
        contract_constant(ctx, right, left.constant, letters.right, letters.left, letters.out, alpha=alpha)
    elif left.labels is None and right.labels is None:
        for value in (left, right):
            if value.constant is not None and value.constant.roots:
                ctx.make_opaque("parameters are contracted with data that carries no unit")
                return
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
    else:
        ctx.make_opaque("one operand depends on the data without carrying units")


@dataclass(frozen=True)
class _Plan:
    """How the axes of an activation x and a weight w play together in a contraction."""

    batch: str
    """In x, w and the output."""
    free: str
    """In x and the output."""
    summed: str
    """In x, and in w or nowhere else."""
    new: str
    """In w and the output."""


def _plan(x: str, w: str, out: str) -> _Plan:
    return _Plan(
        batch="".join(c for c in x if c in w and c in out),
        free="".join(c for c in x if c not in w and c in out),
        summed="".join(c for c in x if c not in out),
        new="".join(c for c in w if c not in x),
    )


def _squeezed(
    letters: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]
) -> tuple[str, list[int]]:
    """Letters without size-1 axes that broadcast against a larger axis of the other operand."""
    sizes = dict(zip(other, other_shape, strict=True))
    keep = [k for k, c in enumerate(letters) if not (shape[k] == 1 and sizes.get(c, 1) > 1)]
    return "".join(letters[k] for k in keep), keep


def contract_constant(
    ctx: TraceContext,
    x: Value,
    weight: Constant,
    x_letters: str,
    w_letters: str,
    out: str,
    *,
    alpha: float = 1.0,
) -> None:
    """New units: one per distinct row of labels and column of the weight."""
    ctx.read(x)
    ctx.use(weight, "weight")
    values = weight.floats()
    if alpha != 1.0:
        values = values * np.asarray(alpha, values.dtype)
    x_kept, x_axes = _squeezed(x_letters, x.shape, w_letters, weight.shape)
    w_kept, w_axes = _squeezed(w_letters, weight.shape, x_letters, x.shape)
    labels = x.carried.transpose([*x_axes, *(k for k in range(len(x_letters)) if k not in x_axes)])
    labels = labels.reshape([x.shape[k] for k in x_axes])
    values = values.transpose([*w_axes, *(k for k in range(len(w_letters)) if k not in w_axes)])
    values = values.reshape([weight.shape[k] for k in w_axes])
    plan = _plan(x_kept, w_kept, out)
    sizes = dict(zip(x_kept + w_kept, [*labels.shape, *values.shape], strict=True))
    rows, matrices = _matrices(labels, values, x_kept, w_kept, plan, sizes)
    distinct = [distinct_rows(r) for r in rows]
    n_new = prod(sizes[c] for c in plan.new)
    total = sum(len(d.rows) for d in distinct) * n_new
    layer = ctx.builder.add_layer(ctx.layer_name(main_root(weight, ctx)), ctx.op, LayerKind.DENSE, total)
    ctx.count_params(layer, weight)
    out_labels = _write_uses(ctx, layer, weight, distinct, matrices, w_kept, plan, n_new, alpha=alpha)
    shape = [sizes[c] for c in plan.batch + plan.free + plan.new]
    full = out_labels.reshape(shape)
    order = plan.batch + plan.free + plan.new
    final = full.transpose([order.index(c) for c in out if c in order])
    ctx.new_layer_output(0, layer, final.reshape(ctx.out_shape()))
    ctx.did(TracedAs.CONTRACTED)


def _matrices(
    labels: Labels, values: NDArray[np.floating], x: str, w: str, plan: _Plan, sizes: dict[str, int]
) -> tuple[list[Labels], list[NDArray[np.floating]]]:
    """Per batch index: the labels as (free, summed) and the weights as (summed, new)."""
    n_batch = prod(sizes[c] for c in plan.batch)
    n_free = prod(sizes[c] for c in plan.free)
    n_summed = prod(sizes[c] for c in plan.summed)
    n_new = prod(sizes[c] for c in plan.new)
    moved = labels.transpose([x.index(c) for c in plan.batch + plan.free + plan.summed])
    # Free axes along which nothing changes stay one slice: reshape would copy them.
    rows = [
        m.reshape(n_free, n_summed) if n_free == 1 or 0 in m.shape else _rows(m, len(plan.free))
        for m in (moved.reshape((n_batch, *moved.shape[len(plan.batch) :])) if plan.batch else moved[None])
    ]
    shared = [c for c in plan.summed if c in w]
    order = [w.index(c) for c in plan.batch + "".join(shared) + plan.new]
    arranged = values.transpose(order)
    if len(shared) < len(plan.summed):
        # An axis of x that is summed without a weight: every position has the same weight.
        shape = [
            sizes[c] if c in plan.batch + plan.summed + plan.new else 1
            for c in plan.batch + plan.summed + plan.new
        ]
        index = [slice(None) if c in w else None for c in plan.batch + plan.summed + plan.new]
        arranged = np.broadcast_to(arranged[tuple(index)], shape)
    return rows, list(arranged.reshape(n_batch, n_summed, n_new))


def _rows(block: Labels, n_free_axes: int) -> Labels:
    """(free..., summed...) labels as a matrix; a single broadcast row where no free axis changes anything."""
    n_free = prod(block.shape[:n_free_axes])
    if all(block.strides[k] == 0 or block.shape[k] == 1 for k in range(n_free_axes)):
        row = block[(0,) * n_free_axes].reshape(1, -1)
        return np.broadcast_to(row, (n_free, row.shape[1]))
    return block.reshape(n_free, -1)


def _write_uses(
    ctx: TraceContext,
    layer: LayerDraft,
    weight: Constant,
    distinct: list[DistinctRows],
    matrices: list[NDArray[np.floating]],
    w_letters: str,
    plan: _Plan,
    n_new: int,
    *,
    alpha: float,
) -> NDArray[np.int64]:
    tensor = main_root(weight, ctx)
    several = len(matrices) > 1 or any(len(d.rows) > 1 for d in distinct)
    first = layer.first
    parts: list[NDArray[np.int64]] = []
    for number, (found, matrix) in enumerate(zip(distinct, matrices, strict=True)):
        starts = first + np.arange(len(found.rows)) * n_new
        for row, start in zip(found.rows, starts, strict=True):
            columns = np.arange(start, start + n_new)
            note = (
                f"use {start // max(n_new, 1) - layer.first // max(n_new, 1)}, batch {number}"
                if several
                else None
            )
            block = write_block(ctx, layer, row, columns, KernelMatrix(matrix), tensor=tensor, note=note)
            whole = not plan.batch and len(weight.shape) == 2 and len(w_letters) == 2 and alpha == 1.0
            if whole and restorable(ctx, weight, row, matrix):
                # The matrix is (summed, new); its root may have its axes the other way round.
                flipped = w_letters[0] in plan.new
                permuted = weight.permutation == (1, 0)
                remember_block(ctx, weight, block, transposed=flipped != permuted)
        parts.append(starts[found.which][:, None] + np.arange(n_new))
        first += len(found.rows) * n_new
    return np.concatenate(parts) if parts else np.empty((0, n_new), np.int64)


__all__ = ["contract", "contract_constant", "matmul_letters", "pass_one"]
