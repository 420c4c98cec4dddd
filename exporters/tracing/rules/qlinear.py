"""Operations on quantized activations, traced as their float twins: scales and zero points are undone."""

from collections.abc import Sequence

import onnx
from onnx import helper

from emergraph.exporters.nodes import input_name
from emergraph.exporters.operations import MICROSOFT, Codes, Kind, spec_of
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.dispatch import expand
from emergraph.exporters.tracing.rules.fused import dense_nodes
from emergraph.exporters.tracing.rules.quantized import dequantized, dequantized_bias
from emergraph.exporters.tracing.values import Value

_KEPT_ATTRIBUTES = frozenset(
    [
        "axis",
        "alpha",
        "auto_pad",
        "ceil_mode",
        "count_include_pad",
        "dilations",
        "kernel_shape",
        "pads",
        "strides",
    ]
)


def _use_all(ctx: TraceContext, positions: Sequence[int]) -> None:
    """Note that these inputs are understood as scales and zero points."""
    for position in positions:
        given = ctx.input(position)
        ctx.use(None if given is None else given.constant, "quantization")


def _operand(ctx: TraceContext, position: int, codes: Codes | None = None, *, axis: int | None = None) -> str:
    """Name of an operand as floats: the tensor itself if it carries units, its dequantized values if not."""
    name = str(ctx.node.input[position])
    codes = codes or spec_of(ctx.node).codes.get(position)
    if codes is None or codes.scale is None:
        return name
    floats = dequantized(ctx, ctx.value(name), ctx.input(codes.zero), ctx.input(codes.scale), axis=axis)
    if floats is None:
        return name
    made = f"{ctx.node.output[0]}:operand{position}"
    ctx.values[made] = Value(floats.shape, constant=floats)
    return made


def _trace_as(ctx: TraceContext, op: str, names: Sequence[str]) -> None:
    """The current node as a float operation of the same attributes; channels may be last."""
    out = ctx.node.output[0]
    kept = [a for a in ctx.node.attribute if a.name in _KEPT_ATTRIBUTES]
    if not ctx.attr_int("channels_last", 0):
        node = helper.make_node(op, list(names), [out])
        node.attribute.extend(kept)
        expand(ctx, [node], {})
        return
    rank = len(ctx.out_shape())
    to_first = [0, rank - 1, *range(1, rank - 1)]
    back = [0, *range(2, rank), 1]
    before, after = f"{out}:first", f"{out}:result"
    shape_in, shape_out = ctx.value(names[0]).shape, ctx.out_shape()
    node = helper.make_node(op, [before, *names[1:]], [after])
    node.attribute.extend(kept)
    nodes: list[onnx.NodeProto] = [
        helper.make_node("Transpose", [names[0]], [before], perm=to_first),
        node,
        helper.make_node("Transpose", [after], [out], perm=back),
    ]
    shapes = {
        before: tuple(shape_in[k] for k in to_first),
        after: tuple(shape_out[k] for k in to_first),
    }
    expand(ctx, nodes, shapes)


@rule(Kind.TWIN)
def float_twin(ctx: TraceContext) -> None:
    """As the operation of the same name on the float tensors that the codes stand for."""
    spec = spec_of(ctx.node)
    numbers = {part for codes in spec.codes.values() for part in (codes.scale, codes.zero)}
    operands = [k for k in range(spec.codes_out or 0) if k not in numbers]
    names = [_operand(ctx, k) for k in operands]
    _use_all(ctx, [k for k in range(len(ctx.node.input)) if k not in operands])
    _trace_as(ctx, spec.plain, names)


@rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(ctx: TraceContext) -> None:
    """Concat of quantized tensors: (y_scale, y_zero, x0, scale0, zero0, x1, ...)."""
    positions = range(2, len(ctx.node.input), 3)
    names = [_operand(ctx, k, Codes(k + 1, k + 2)) for k in positions]
    _use_all(ctx, [k for k in range(len(ctx.node.input)) if k not in positions])
    _trace_as(ctx, spec_of(ctx.node).plain, names)


@rule("QGemm", domain=MICROSOFT)
def qgemm(ctx: TraceContext) -> None:
    """Gemm of quantized operands: (A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero)."""
    transposed = bool(ctx.attr_int("transB", 0))
    name = _operand(ctx, 3, axis=0 if transposed else 1)
    if name == ctx.node.input[3]:
        ctx.make_opaque("QGemm whose weight depends on activations")
        return
    _use_all(ctx, (1, 2, 7, 8))
    inputs = [ctx.node.input[0], name]
    bias = dequantized_bias(ctx, 6, (1, 4))
    if bias is not None:
        inputs.append(f"{ctx.node.output[0]}:bias")
        ctx.values[inputs[-1]] = Value(bias.shape, constant=bias)
    node = helper.make_node(spec_of(ctx.node).plain, inputs, list(ctx.node.output))
    node.attribute.extend(a for a in ctx.node.attribute if a.name in ("transA", "transB", "alpha"))
    expand(ctx, [node], {})


@rule("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=MICROSOFT)
def scaled_matmul(ctx: TraceContext) -> None:
    """Y = (A - a_zero) (B - b_zero) a_scale b_scale + bias; or with A quantized on the way."""
    name, (bias,) = _operand(ctx, 1), spec_of(ctx.node).vectors
    if name == ctx.node.input[1]:
        ctx.make_opaque(f"{ctx.op} whose weight depends on activations")
        return
    out, between = ctx.node.output[0], f"{ctx.node.output[0]}:product"
    nodes = dense_nodes([ctx.node.input[0], name, input_name(ctx.node, bias)], between, out)
    expand(ctx, nodes, {node.output[0]: ctx.out_shape() for node in nodes[:-1]})


@rule("QAttention", domain=MICROSOFT)
def qattention(ctx: TraceContext) -> None:
    """As Attention of the float tensors: (x, weights, bias, x_scale, w_scale, mask, x_zero, w_zero, past)."""
    name = _operand(ctx, 1)
    if name == ctx.node.input[1]:
        ctx.make_opaque("QAttention whose weights depend on activations")
        return
    _use_all(ctx, (3, 6))
    inputs = [*ctx.node.input, *[""] * 9]
    names = [inputs[0], name, inputs[2], inputs[5], inputs[8]]
    node = helper.make_node(spec_of(ctx.node).plain, names, list(ctx.node.output), domain=MICROSOFT)
    node.attribute.extend(a for a in ctx.node.attribute if a.name in ("num_heads", "unidirectional"))
    expand(ctx, [node], {})
