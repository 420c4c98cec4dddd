"""Contractions: dense layers as one einsum of letters, with constant weights or with two activations."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.operations import Kind, kind_of
from emergraph.exporters.tracing.affine import advanced, shifted
from emergraph.exporters.tracing.banks import as_weight
from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.contraction_axes import (
    Contraction,
    Letters,
    contraction,
    matmul_letters,
)
from emergraph.exporters.tracing.join import join
from emergraph.exporters.tracing.labels import Labels, units_in
from emergraph.exporters.tracing.mixing import mixed_labels
from emergraph.exporters.tracing.positionaxes import Uses, contends, uses_of
from emergraph.exporters.tracing.rules.attention import contract_activations
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.values import Value
from emergraph.exporters.tracing.weights import (
    left_in_file,
    main_root,
    remember_block,
    restorable,
    write_block,
)
from emergraph.graphstore.records import EdgeKind, LayerKind, SplitBy, TracedAs


@rule(Kind.MATMUL)
def matmul(ctx: TraceContext) -> None:
    """Y = A B, either operand constant, or both activations."""
    left, right = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    contract(ctx, left, right, matmul_letters(len(left.shape), len(right.shape)))


@rule(Kind.GEMM)
def gemm(ctx: TraceContext) -> None:
    """Y = alpha A' B' + beta C."""
    left, right = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    letters = Letters(
        "km" if ctx.attr_int("transA", 0) else "mk", "nk" if ctx.attr_int("transB", 0) else "kn", "mn"
    )
    bias = ctx.input(2)
    alpha, beta = ctx.attr_float("alpha", 1.0), ctx.attr_float("beta", 1.0)
    contract(ctx, left, right, letters, alpha=alpha)
    if bias is not None and bias.constant is not None:
        ctx.use(bias.constant, "bias")
        add_bias(ctx, bias.constant, beta)
    elif bias is not None and bias.labels is not None:
        _add_activation(ctx, bias, beta)


def _add_activation(ctx: TraceContext, bias: Value, beta: float) -> None:
    """C carries units: what Gemm gives is a junction, and the product before it is in no tensor."""
    product = ctx.values[ctx.node.output[0]]
    if product.labels is None:
        ctx.make_opaque("Gemm of data that carries no unit")
        return
    for layer_id in product.tracks:
        ctx.builder.layers[layer_id].raw = Track(None, None)
    hidden = replace(product, tracks={k: Track(None, None) for k in product.tracks})
    how = ctx.traced_as
    join(ctx, [hidden, bias], kind=EdgeKind.IDENTITY, weights=[1.0, beta])
    ctx.did(how)


def add_bias(ctx: TraceContext, constant: Constant, beta: float = 1.0) -> None:
    """Add a constant, `beta` times, to the units that output 0 carries: their bias."""
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


def contract(ctx: TraceContext, left: Value, right: Value, letters: Letters, *, alpha: float = 1.0) -> None:
    """Trace a contraction of two operands.

    With a constant operand: new neurons, one per column of the weight for each distinct row of labels; with
    a matrix that the data chooses as well. With two activations: attention. With data that carries no unit
    (codes of routes, of tokens): a choice, of labels or of rows of the constant. Without parameters or
    units: control.
    """
    pairs = ((left, right, letters), (right, left, Letters(letters.right, letters.left, letters.out)))
    if left.labels is not None and right.labels is not None:
        contract_activations(ctx, left, right, letters.left, letters.right, letters.out)
        return
    for x, other, where in pairs:
        if x.labels is not None and other.constant is not None:
            contract_constant(ctx, x, other.constant, where.left, where.right, where.out, alpha=alpha)
            return
        if x.labels is not None and other.bank is not None:
            weight, spread, named = as_weight(other.bank, x, where)
            contract_constant(ctx, spread, weight, named.left, named.right, named.out, alpha=alpha)
            return
        if x.labels is not None:
            _choose(ctx, x, where)
            return
    for codes, other, where in pairs:
        if codes.constant is None and other.constant is not None and other.constant.roots:
            name = ctx.layer_name(main_root(other.constant, ctx))
            table = ctx.builder.add_layer(f"{name}:table", ctx.op, LayerKind.EMBEDDING, 1)
            chosen = replace(codes, labels=np.broadcast_to(table.first, codes.shape))
            contract_constant(ctx, chosen, other.constant, where.left, where.right, where.out, alpha=alpha)
            ctx.did(TracedAs.EMBEDDED)
            return
    ctx.set_control(0)
    ctx.did(TracedAs.CONTROL)


def _choose(ctx: TraceContext, x: Value, letters: Letters) -> None:
    """Data that carries no unit says what is summed: the union of what stands along the summed axes."""
    before = ctx.builder.n_units
    gone = [k for k, c in enumerate(letters.left) if c not in letters.out]
    mixed = mixed_labels(ctx, x, gone, "none")
    kept = [c for c in letters.left if c in letters.out]
    rest = mixed.reshape([n for k, n in enumerate(mixed.shape) if k not in gone])
    moved = rest.transpose([kept.index(c) for c in letters.out if c in kept])
    spread = moved[tuple(slice(None) if c in kept else None for c in letters.out)]
    labels = np.broadcast_to(spread, ctx.out_shape())
    is_fresh = ctx.builder.n_units > before
    ctx.set_labels(0, labels, {} if is_fresh else advanced(x.tracks, labels, ctx.node.output[0], ctx.builder))
    ctx.did(TracedAs.REDUCED)


def contract_constant(
    ctx: TraceContext,
    x: Value,
    weight: Constant,
    x_letters: str,
    w_letters: str,
    out: str,
    *,
    alpha: float = 1.0,
    kind: LayerKind = LayerKind.DENSE,
) -> None:
    """New units: one per column of the weight, for each set of positions that are units of their own."""
    ctx.read(x)
    ctx.use(weight, "weight")
    laid_out = _laid_out(ctx, x, weight, Letters(x_letters, w_letters, out), alpha)
    found = [uses_of(labels, ctx.builder.families) for labels in laid_out.labels]
    total = sum(len(uses.rows) for uses in found) * laid_out.n_new
    layer = ctx.builder.add_layer(ctx.layer_name(main_root(weight, ctx)), ctx.op, kind, total)
    ctx.count_params(layer, weight)
    layer.n_outputs = len(found) * laid_out.n_new
    if total > layer.n_outputs:
        layer.split_by = _why_split(ctx, laid_out.labels, found)
    labels = _write_uses(ctx, layer, weight, laid_out, found, whole=alpha == 1.0)
    plan = laid_out.plan
    spread = labels.reshape(
        [laid_out.sizes[c] for c in plan.batch]
        + list(labels.shape[1 : 1 + len(plan.free)])
        + [laid_out.sizes[c] for c in plan.new]
    )
    shaped = np.broadcast_to(spread, [laid_out.sizes[c] for c in plan.order])
    final = shaped.transpose([plan.order.index(c) for c in out if c in plan.order])
    ctx.new_layer_output(0, layer, final.reshape(ctx.out_shape()))
    factors = (x, Value(weight.shape, constant=weight))
    ctx.summed(layer, factors, letters=Letters(x_letters, w_letters, out), scale=alpha)
    ctx.did(TracedAs.CONTRACTED)


def _laid_out(ctx: TraceContext, x: Value, weight: Constant, letters: Letters, alpha: float) -> Contraction:
    """The contraction as matrices; codes that can stay in the file are not computed."""

    def lay(values: NDArray[np.generic]) -> Contraction:
        return contraction(x.carried, values, letters.left, letters.right, letters.out)

    if alpha != 1.0:
        scaled = weight.floats()
        return lay(scaled * np.asarray(alpha, scaled.dtype))
    codes = ctx.codes_of(weight)
    if codes is not None:
        laid_out = lay(codes.stand_in)
        matrices = left_in_file(codes, laid_out.matrices)
        if matrices is not None:
            return replace(laid_out, matrices=matrices)
    return lay(ctx.weights_of(weight))


def _why_split(ctx: TraceContext, blocks: Sequence[Labels], found: Sequence[Uses]) -> SplitBy:
    """Why positions of a contracted tensor are units of their own."""
    labels, uses = next((b, u) for b, u in zip(blocks, found, strict=True) if len(u.rows) > 1)
    if not contends(labels, range(labels.ndim - 1), ctx.builder.layer_ids):
        return SplitBy.STEPS
    above = ctx.builder.layers_of(units_in(labels))
    inherited = next((layer.split_by for layer in above if layer.split_by), None)
    row = uses.rows[0][0]
    if inherited is not None:
        return inherited
    if np.unique(row[row >= 0]).size < np.count_nonzero(row >= 0):
        return SplitBy.WEIGHTS
    return SplitBy.IMAGE if all(la.kind is LayerKind.INPUT for la in above) else SplitBy.POINTWISE


def _write_uses(
    ctx: TraceContext,
    layer: LayerDraft,
    weight: Constant,
    laid_out: Contraction,
    found: list[Uses],
    *,
    whole: bool,
) -> NDArray[np.int64]:
    """A block for each batch index, set of units, and row of labels that feeds the set.

    Returns:
        (batch, free..., new) labels of the output; free axes along which nothing changes have length 1.
    """
    tensor, n_new = main_root(weight, ctx), laid_out.n_new
    # A constant on the left of a MatMul sums over positions, so that its units are positions of a feature.
    mixes_tokens = kind_of(ctx.node) is Kind.MATMUL and ctx.value(ctx.node.input[0]).labels is None
    several = len(found) > 1 or any(uses.n_rows > 1 for uses in found)
    first, use = layer.first, 0
    parts: list[NDArray[np.int64]] = []
    for number, (uses, matrix) in enumerate(zip(found, laid_out.matrices, strict=True)):
        starts = first + np.arange(len(uses.rows)) * n_new
        for row, start in (
            (row, start) for rows, start in zip(uses.rows, starts, strict=True) for row in rows
        ):
            note = f"use {use}, batch {number}" if several else None
            if mixes_tokens:
                note = "axis=token" if note is None else f"axis=token, {note}"
            columns = np.arange(start, start + n_new)
            block = write_block(ctx, layer, row, columns, matrix, tensor=tensor, note=note)
            use += 1
            if whole and laid_out.orientation is not None and restorable(ctx, weight, row, matrix):
                # The matrix is (summed, new); its root may have its axes the other way round.
                permuted = weight.permutation == (1, 0)
                remember_block(ctx, weight, block, transposed=laid_out.orientation != permuted)
        parts.append(starts[uses.which][..., None] + np.arange(n_new))
        first += len(uses.rows) * n_new
    # The batch indices may differ in which of their free axes change anything.
    shape = np.broadcast_shapes(*(part.shape for part in parts))
    return np.stack([np.broadcast_to(part, shape) for part in parts] or [np.empty((n_new,), np.int64)])


__all__ = ["Letters", "add_bias", "contract", "contract_constant", "matmul_letters"]
