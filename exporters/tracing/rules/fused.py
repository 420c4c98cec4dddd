"""Fused operations of onnxruntime, traced as the plain operations they stand for."""

from collections.abc import Sequence
from dataclasses import replace

import onnx
from onnx import helper

from emergraph.exporters.operations import MICROSOFT, Kind, spec_of
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.dispatch import expand
from emergraph.exporters.tracing.rules.contraction import contract, matmul_letters

Shapes = dict[str, tuple[int, ...]]


def _between(ctx: TraceContext, suffix: str) -> str:
    return f"{ctx.node.output[0]}:{suffix}"


def dense_nodes(operands: Sequence[str], product: str, out: str) -> list[onnx.NodeProto]:
    """The product of two operands, and its sum with a third one where that is given.

    Args:
        operands: Names of the factors and, possibly empty, of the bias.
        product: Name of the product where a bias is added to it.
        out: Name of the result.
    """
    factors, bias = list(operands[:2]), operands[2:]
    if not any(bias):
        return [helper.make_node("MatMul", factors, [out])]
    return [helper.make_node("MatMul", factors, [product]), helper.make_node("Add", [product, *bias], [out])]


def _plain(ctx: TraceContext, names: list[str], made: str) -> onnx.NodeProto:
    """The plain operation, without what is fused to it."""
    node = helper.make_node(spec_of(ctx.node).plain, names, [made])
    node.attribute.extend(a for a in ctx.node.attribute if not a.name.startswith("activation"))
    return node


@rule("FusedConv", domain=MICROSOFT)
def fused_conv(ctx: TraceContext) -> None:
    """Activation(Conv(X, W, B) + Z)."""
    activation = ctx.attr_str("activation", "")
    names = [n for n in ctx.node.input[:3] if n]
    out = ctx.node.output[0]
    current = _between(ctx, "conv")
    steps = [_plain(ctx, names, current)]
    shapes: Shapes = {current: ctx.out_shape()}
    if ctx.input(3) is not None:
        added = _between(ctx, "sum")
        steps.append(helper.make_node("Add", [current, ctx.node.input[3]], [added]))
        shapes[added] = ctx.out_shape()
        current = added
    steps.append(helper.make_node(activation or "Identity", [current], [out]))
    expand(ctx, steps, shapes)


@rule("FusedGemm", domain=MICROSOFT)
def fused_gemm(ctx: TraceContext) -> None:
    """Activation(Gemm(A, B, C))."""
    product = _between(ctx, "gemm")
    gemm = _plain(ctx, [n for n in ctx.node.input if n], product)
    bend = helper.make_node(ctx.attr_str("activation", "Identity"), [product], [ctx.node.output[0]])
    expand(ctx, [gemm, bend], {product: ctx.out_shape()})


@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(ctx: TraceContext) -> None:
    """Alpha * A' B', with the last two axes of either operand swapped on request."""
    if ctx.attr_int("transBatchA", 0) or ctx.attr_int("transBatchB", 0):
        ctx.make_opaque(f"{ctx.op} that swaps batch axes")
        return
    left, right = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    letters = matmul_letters(len(left.shape), len(right.shape))
    if ctx.attr_int("transA", 0) and len(left.shape) > 1:
        letters = replace(letters, left=_swapped(letters.left))
    if ctx.attr_int("transB", 0) and len(right.shape) > 1:
        letters = replace(letters, right=_swapped(letters.right))
    contract(ctx, left, right, letters, alpha=ctx.attr_float("alpha", 1.0))


def _swapped(term: str) -> str:
    return term[:-2] + term[-1] + term[-2]


@rule("BiasGelu", "FastGelu", "BiasAdd", domain=MICROSOFT)
def bias_gelu(ctx: TraceContext) -> None:
    """Gelu(x + bias); BiasAdd also adds a skip connection."""
    nodes: list[onnx.NodeProto] = []
    shapes: Shapes = {}
    current = ctx.node.input[0]
    for position in range(1, len(ctx.node.input)):
        if ctx.node.input[position]:
            added = _between(ctx, f"sum{position}")
            nodes.append(helper.make_node("Add", [current, ctx.node.input[position]], [added]))
            shapes[added] = ctx.out_shape()
            current = added
    last = "Gelu" if spec_of(ctx.node).plain_kind is Kind.ACTIVATION else "Identity"
    nodes.append(helper.make_node(last, [current], [ctx.node.output[0]]))
    expand(ctx, nodes, shapes)


@rule("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(ctx: TraceContext) -> None:
    """First half of (x + bias) times Gelu of the second half, along the last axis."""
    added, first, second, bent = (_between(ctx, part) for part in ("sum", "first", "second", "gelu"))
    whole, half = ctx.value(ctx.node.input[0]).shape, ctx.out_shape()
    nodes: list[onnx.NodeProto] = [
        helper.make_node("Add", list(ctx.node.input[:2]), [added]),
        helper.make_node("Split", [added], [first, second], axis=-1),
        helper.make_node("Gelu", [second], [bent]),
        helper.make_node("Mul", [first, bent], [ctx.node.output[0]]),
    ]
    expand(ctx, nodes, {added: whole, first: half, second: half, bent: half})


@rule("QuickGelu", "Gelu", domain=MICROSOFT)
def quick_gelu(ctx: TraceContext) -> None:
    """X * sigmoid(1.702 x), and Gelu."""
    expand(ctx, [helper.make_node(spec_of(ctx.node).plain, [ctx.node.input[0]], [ctx.node.output[0]])], {})


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(ctx: TraceContext) -> None:
    """LayerNorm(input + skip + bias): (input, skip, gamma, beta, bias); output 3 is the sum.

    The simplified form (RMS) has no beta: (input, skip, gamma, bias).
    """
    simplified = ctx.node.op_type.startswith("SkipSimplified")
    x, skip, gamma = ctx.node.input[:3]
    rest = [*ctx.node.input[3:], "", ""]
    beta, bias = ("", rest[0]) if simplified else (rest[0], rest[1])
    total = ctx.node.output[3] if len(ctx.node.output) > 3 and ctx.node.output[3] else _between(ctx, "sum")
    nodes: list[onnx.NodeProto] = []
    shapes: Shapes = {total: ctx.out_shape()}
    if bias:
        shifted = _between(ctx, "shifted")
        shapes[shifted] = ctx.value(x).shape
        nodes.append(helper.make_node("Add", [x, bias], [shifted]))
        x = shifted
    nodes.append(helper.make_node("Add", [x, skip], [total]))
    names = [total, gamma, *([beta] if beta else [])]
    nodes.append(helper.make_node(spec_of(ctx.node).plain, names, [ctx.node.output[0]], axis=-1))
    expand(ctx, nodes, shapes)


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(ctx: TraceContext) -> None:
    """LayerNorm(word[ids] + position[0..T) + segment[segments]); output 2 is the sum.

    Inputs: (ids, segments, word, position, segment, gamma, beta, mask, position_ids).
    """
    given = [*ctx.node.input, *[""] * 9]
    ids, segments, word, position, segment, gamma, beta = given[:7]
    shape = ctx.out_shape()
    tables = [("word", word, ids), ("segment", segment, segments)]
    if given[8] and ctx.value(given[8]).constant is None:
        tables.append(("position", position, given[8]))
    else:
        ctx.use(ctx.value(position).constant, "shift")
    wanted = ctx.node.output[2] if len(ctx.node.output) > 2 else ""
    total = wanted or _between(ctx, "sum")
    shapes: Shapes = {total: shape}
    parts: list[str] = []
    nodes: list[onnx.NodeProto] = []
    for name, table, indices in tables:
        if table and indices:
            parts.append(_between(ctx, name))
            shapes[parts[-1]] = shape
            nodes.append(helper.make_node("Gather", [table, indices], [parts[-1]]))
    nodes.append(helper.make_node("Sum", parts, [total]))
    nodes.append(helper.make_node("LayerNormalization", [total, gamma, beta], [ctx.node.output[0]], axis=-1))
    expand(ctx, nodes, shapes)
    if len(ctx.node.output) > 1 and ctx.node.output[1] and ctx.known(ctx.node.output[1]) is not None:
        ctx.set_control(1)
