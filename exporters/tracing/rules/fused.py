"""Fused operations of onnxruntime, traced as the plain operations they stand for."""

import onnx
from onnx import helper

from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.dispatch import expand

MICROSOFT = "com.microsoft"
Shapes = dict[str, tuple[int, ...]]


def _between(ctx: TraceContext, suffix: str) -> str:
    return f"{ctx.node.output[0]}:{suffix}"


def _keep(ctx: TraceContext, node: onnx.NodeProto, *, without: tuple[str, ...] = ()) -> onnx.NodeProto:
    node.attribute.extend(a for a in ctx.node.attribute if a.name not in without)
    return node


@rule("FusedConv", domain=MICROSOFT)
def fused_conv(ctx: TraceContext) -> None:
    """Activation(Conv(X, W, B) + Z)."""
    activation = ctx.attr_str("activation", "")
    names = [n for n in ctx.node.input[:3] if n]
    out = ctx.node.output[0]
    steps: list[onnx.NodeProto] = []
    current = _between(ctx, "conv")
    steps.append(
        _keep(ctx, helper.make_node("Conv", names, [current]), without=("activation", "activation_params"))
    )
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
    kept = ("activation", "activation_alpha", "activation_beta", "activation_gamma")
    gemm = _keep(ctx, helper.make_node("Gemm", [n for n in ctx.node.input if n], [product]), without=kept)
    bend = helper.make_node(ctx.attr_str("activation", "Identity"), [product], [ctx.node.output[0]])
    expand(ctx, [gemm, bend], {product: ctx.out_shape()})


@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(ctx: TraceContext) -> None:
    """Alpha * A' B', with the last two axes of either operand swapped on request."""
    nodes: list[onnx.NodeProto] = []
    shapes: Shapes = {}
    names = list(ctx.node.input[:2])
    for position, key in enumerate(("transA", "transB")):
        shape = ctx.value(names[position]).shape
        if ctx.attr_int(key, 0) and len(shape) > 1:
            perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            flipped = _between(ctx, f"flipped{position}")
            nodes.append(helper.make_node("Transpose", [names[position]], [flipped], perm=perm))
            shapes[flipped] = tuple(shape[k] for k in perm)
            names[position] = flipped
    nodes.append(helper.make_node("MatMul", names, [ctx.node.output[0]]))
    if ctx.attr_float("alpha", 1.0) != 1.0:
        ctx.warn(f"{ctx.name}: the factor alpha of {ctx.op} is not folded into its weights")
    expand(ctx, nodes, shapes)


@rule("BiasGelu", "FastGelu", "BiasAdd", "BiasSplitGelu", domain=MICROSOFT)
def bias_gelu(ctx: TraceContext) -> None:
    """Gelu(x + bias); BiasAdd also adds a skip connection."""
    op = ctx.node.op_type
    out = ctx.node.output[0]
    nodes: list[onnx.NodeProto] = []
    shapes: Shapes = {}
    current = ctx.node.input[0]
    if op == "BiasSplitGelu":
        ctx.make_opaque("BiasSplitGelu is not understood")
        return
    for position in range(1, len(ctx.node.input)):
        if ctx.node.input[position]:
            added = _between(ctx, f"sum{position}")
            nodes.append(helper.make_node("Add", [current, ctx.node.input[position]], [added]))
            shapes[added] = ctx.out_shape()
            current = added
    nodes.append(helper.make_node("Identity" if op == "BiasAdd" else "Gelu", [current], [out]))
    expand(ctx, nodes, shapes)


@rule("QuickGelu", "Gelu", domain=MICROSOFT)
def quick_gelu(ctx: TraceContext) -> None:
    """X * sigmoid(1.702 x), and Gelu."""
    expand(ctx, [helper.make_node("Gelu", [ctx.node.input[0]], [ctx.node.output[0]])], {})


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
    op = "RMSNormalization" if simplified else "LayerNormalization"
    nodes.append(helper.make_node(op, names, [ctx.node.output[0]], axis=-1))
    expand(ctx, nodes, shapes)


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(ctx: TraceContext) -> None:
    """LayerNorm(word[ids] + position[0..T) + segment[segments]).

    Inputs: (ids, segments, word, position, segment, gamma, beta, mask, position_ids).
    """
    ids, segments, word, position, segment, gamma, beta = [*ctx.node.input, *[""] * 7][:7]
    shape = ctx.out_shape()
    parts: list[str] = []
    nodes: list[onnx.NodeProto] = []
    shapes: Shapes = {}
    for name, table, indices in (("word", word, ids), ("segment", segment, segments)):
        if table and indices:
            looked_up = _between(ctx, name)
            nodes.append(helper.make_node("Gather", [table, indices], [looked_up]))
            shapes[looked_up] = shape
            parts.append(looked_up)
    ctx.use(ctx.value(position).constant, "shift")
    current = parts[0]
    if len(parts) > 1:
        current = _between(ctx, "sum")
        nodes.append(helper.make_node("Add", parts, [current]))
        shapes[current] = shape
    nodes.append(
        helper.make_node("LayerNormalization", [current, gamma, beta], [ctx.node.output[0]], axis=-1)
    )
    expand(ctx, nodes, shapes)
    for k in range(1, len(ctx.node.output)):
        if ctx.node.output[k] and ctx.known(ctx.node.output[k]) is not None:
            ctx.set_control(k)
