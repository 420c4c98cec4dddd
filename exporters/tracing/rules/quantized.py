"""Quantized operations: edges carry dequantized weights, a weight at the zero point is not an edge.

Operations on codes are traced as the plain ones on the floats that the codes stand for.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from emergraph.exporters.nodes import input_name
from emergraph.exporters.operations import MICROSOFT, Codes, Kind, spec_of
from emergraph.exporters.runtime.quantization import dequantize, laid_out
from emergraph.exporters.tracing.constants import Constant, literal
from emergraph.exporters.tracing.context import ParameterUse, TraceContext, rule
from emergraph.exporters.tracing.dispatch import expand
from emergraph.exporters.tracing.rules.contraction import add_bias, contract, matmul_letters
from emergraph.exporters.tracing.rules.convolution import trace_convolution
from emergraph.exporters.tracing.rules.embedding import embed
from emergraph.exporters.tracing.rules.fused import dense_nodes
from emergraph.exporters.tracing.rules.recurrent import RecurrentWeights, trace_lstm
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import TracedAs

Array = NDArray[np.generic]
INTEGER_WEIGHTS = (
    "weights of MatMulInteger and ConvInteger are integers; the scale that the model applies behind them is "
    "in units.scale: weights of different layers do not compare"
)
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


def dequantized(
    ctx: TraceContext,
    q: Value,
    zero_point: Value | None,
    scale: Value | None = None,
    *,
    axis: int | None = None,
) -> Constant | None:
    """A stored quantized tensor as float32: (q - zero_point) * scale; None when it is not a constant.

    Args:
        ctx: The trace.
        q: The stored integers.
        zero_point: Scalar, or one per index along `axis`; 0 where omitted.
        scale: Like the zero point; 1 where omitted.
        axis: Axis that vectors of zero points and scales run along (default: the last).
    """
    if q.constant is None:
        return None
    stored = q.constant
    zero, factor = (None if v is None else v.constant for v in (zero_point, scale))
    if (zero_point is not None and zero is None) or (scale is not None and factor is None):
        return None
    rank = len(q.shape)
    where = rank - 1 if axis is None else axis % max(rank, 1)

    def load() -> Array:
        points = None if zero is None else zero.load()
        return dequantize(stored.load(), None if factor is None else factor.load(), points, axis=where)

    if zero is not None:
        ctx.note_zero_point(stored, lambda: laid_out(zero.load(), stored.shape, axis=where))
    for extra in (zero, factor):
        ctx.use(extra, "quantization")
    codes = ctx.codes_in_file(stored, factor, zero, axis=where)
    return Constant(stored.shape, load, stored.roots, coding=_coding(stored, zero, factor), codes=codes)


def _coding(stored: Constant, *extras: Constant | None) -> frozenset[str]:
    """Scales and zero points behind a dequantized constant."""
    return stored.coding.union(*(c.names for c in extras if c is not None))


@rule("DynamicQuantizeLinear")
def dynamic_quantize_linear(ctx: TraceContext) -> None:
    """Y = round(x / s) + z with s, z from the data: the label passes, s counts as 1 and z as 0."""
    value = ctx.value(ctx.node.input[0])
    # The activation is the float tensor before, not its codes.
    ctx.set_labels(0, value.carried, value.tracks)
    ctx.set_constant(1, replace(literal(np.asarray(1.0, np.float32)), neutral=True))
    ctx.set_constant(2, replace(literal(np.asarray(0, np.uint8)), neutral=True))
    ctx.did(TracedAs.ELEMENTWISE)


@rule("MatMulInteger", "QLinearMatMul")
def coded_matmul(ctx: TraceContext) -> None:
    """Y = (A - a_zero) (B - b_zero), times both scales; of integers, scales follow as multiplications."""
    operands = []
    for position, codes in spec_of(ctx.node).codes.items():
        value = ctx.value(ctx.node.input[position])
        constant = _decoded(ctx, position, codes)
        operands.append(value if constant is None else replace(value, constant=constant))
    left, right = operands
    contract(ctx, left, right, matmul_letters(len(left.shape), len(right.shape)))


@rule("ConvInteger", "QLinearConv")
def coded_convolution(ctx: TraceContext) -> None:
    """A convolution of integers or codes; a bias is stored as int32 whose scale is that of both operands."""
    spec = spec_of(ctx.node)
    position = max(spec.weights)
    weight = _decoded(ctx, position, spec.codes[position])
    bias = None
    if spec.codes_out is not None:
        bias = dequantized_bias(ctx, 8, (1, 4))
        for extra in (1, 2, 6, 7):
            ctx.use(ctx.value(ctx.node.input[extra]).constant, "quantization")
    x = ctx.value(ctx.node.input[0])
    if weight is None or x.labels is None:
        ctx.make_opaque("a convolution whose kernel depends on activations")
        return
    trace_convolution(ctx, x, weight, bias, group=ctx.attr_int("group", 1), transposed=False)


def _decoded(ctx: TraceContext, position: int, codes: Codes) -> Constant | None:
    """The floats that a constant input stands for; of integers without a scale, less their zero point."""
    stored = ctx.value(ctx.node.input[position])
    scale = None if codes.scale is None else ctx.input(codes.scale)
    if codes.scale is None and stored.constant is not None:
        ctx.warn(INTEGER_WEIGHTS)
    return dequantized(ctx, stored, ctx.input(codes.zero), scale, axis=codes.axis)


def dequantized_bias(ctx: TraceContext, position: int, scales: tuple[int, int]) -> Constant | None:
    """An int32 bias times the product of the scales of the two operands, which are at these inputs."""
    bias = ctx.input(position)
    factors = [ctx.value(ctx.node.input[k]).constant for k in scales]
    if bias is None or bias.constant is None:
        return None
    stored = bias.constant

    def load() -> Array:
        values = stored.load().astype(np.float64)
        for scale in factors:
            values = values if scale is None else values * np.ravel(scale.load().astype(np.float64))
        return values

    return Constant(stored.shape, load, stored.roots)


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(ctx: TraceContext) -> None:
    """Y = A B' with B stored in blocks of 2, 4 or 8 bits, a scale and a zero point per block."""
    n, k = ctx.attr_int("N", 0), ctx.attr_int("K", 0)
    bits, block = ctx.attr_int("bits", 4), ctx.attr_int("block_size", 32)
    a, packed, scales = (ctx.value(ctx.node.input[i]) for i in range(3))
    zero, bias = ctx.input(3), ctx.input(5)
    stored, factor = packed.constant, scales.constant
    known = all(v.constant is not None for v in (zero, bias) if v is not None)
    if a.labels is None or stored is None or factor is None or not known or ctx.input(4) is not None:
        ctx.make_opaque("MatMulNBits with weights that are not constants, or that are reordered by g_idx")
        return
    offset = None if zero is None else zero.constant
    n_blocks = -(-k // block)

    def centred() -> NDArray[np.float32]:
        codes = unpack(stored.load().reshape(n, n_blocks, -1), bits)[:, :, :block].astype(np.float32)
        middle = np.full(1, 1 << (bits - 1), np.float32)
        if offset is not None:
            raw = offset.load()
            points: Array = raw.reshape(n, -1)
            points = points if raw.dtype.kind == "f" else unpack(points, bits)
            middle = points[:, :n_blocks, None].astype(np.float32)
        difference: NDArray[np.float32] = codes - middle
        return difference

    def load() -> Array:
        by = factor.load().astype(np.float32).reshape(n, n_blocks, 1)
        return (centred() * by).reshape(n, -1)[:, :k]

    def n_zeros() -> int:
        return int(np.count_nonzero(centred().reshape(n, -1)[:, :k] == 0))

    _contract_packed(ctx, a, stored, (factor, offset), (n, k), load, n_zeros)
    if bias is not None and bias.constant is not None:
        ctx.use(bias.constant, "bias")
        add_bias(ctx, bias.constant)


def _contract_packed(
    ctx: TraceContext,
    a: Value,
    stored: Constant,
    coding: Sequence[Constant | None],
    shape: tuple[int, int],
    load: Callable[[], Array],
    n_zeros: Callable[[], int],
) -> None:
    """A times the transpose of packed weights (outputs, inputs)."""
    _note_packed(ctx, stored, coding, prod(shape), n_zeros)
    weight = Value(shape, constant=Constant(shape, load, stored.roots, coding=_coding(stored, *coding)))
    letters = matmul_letters(len(a.shape), 2)
    contract(ctx, a, weight, replace(letters, right="nk"))


def _note_packed(
    ctx: TraceContext,
    stored: Constant,
    coding: Sequence[Constant | None],
    n_weights: int,
    n_zeros: Callable[[], int],
) -> None:
    """Note how many weights a tensor of packed codes holds, and what counts their zeros."""
    if stored.root is not None:
        ctx.uses.setdefault(stored.root, ParameterUse()).packed = (n_weights, n_zeros)
    for extra in coding:
        ctx.use(extra, "quantization")


_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_FP4_SIZES = (0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
_FOUR_BITS = {0: (*_FP4_SIZES, *(-size for size in _FP4_SIZES)), 1: _NF4}
"""What the sixteen codes stand for, by the attribute `quant_type`: parts of the block's largest weight."""


@rule("MatMulBnb4", domain=MICROSOFT)
def matmul_bnb4(ctx: TraceContext) -> None:
    """Y = A B' with B stored as codes of 4 bits, high half first, and the largest weight of each block."""
    n, k, block = ctx.attr_int("N", 0), ctx.attr_int("K", 0), ctx.attr_int("block_size", 64)
    a, packed, largest = (ctx.value(ctx.node.input[i]) for i in range(3))
    table = _FOUR_BITS.get(ctx.attr_int("quant_type", 1))
    stored, factor = packed.constant, largest.constant
    if a.labels is None or stored is None or factor is None or table is None:
        ctx.make_opaque("MatMulBnb4 with weights that are not constants, or of a type that is not defined")
        return

    def load() -> Array:
        halves = unpack(np.ravel(stored.load()), 4).reshape(-1, 2)[:, ::-1]
        values = np.asarray(table, np.float32)[halves.ravel()[: n * k]]
        by = np.repeat(np.ravel(factor.load()).astype(np.float32), block)[: n * k]
        return (values * by).reshape(n, k)

    def n_zeros() -> int:
        return n * k - int(np.count_nonzero(load()))

    _contract_packed(ctx, a, stored, (factor,), (n, k), load, n_zeros)


@rule("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(ctx: TraceContext) -> None:
    """Rows of a table that is stored in blocks of 4 or 8 bits, with a scale and a zero point per block."""
    indices = ctx.value(ctx.node.input[1])
    data, scales, zero = (None if v is None else v.constant for v in map(ctx.input, (0, 2, 3)))
    if data is None or scales is None or (zero is None and ctx.input(3) is not None):
        ctx.make_opaque("GatherBlockQuantized of a table that is not a constant")
        return
    bits, size = ctx.attr_int("bits", 4), ctx.attr_int("block_size", 128)
    in_bytes = data.load().dtype == np.uint8
    per_byte = 8 // bits if in_bytes else 1
    shape = (*data.shape[:-1], data.shape[-1] * per_byte)
    axis = ctx.attr_int("quantize_axis", 1) % len(shape)

    def codes(constant: Constant) -> Array:
        values = constant.load()
        return unpack(values, bits) if per_byte > 1 else values

    def points() -> Array:
        middle = 1 << (bits - 1) if in_bytes else 0
        given = np.full(scales.shape, middle, np.uint8) if zero is None else codes(zero)
        return laid_out(given, shape, axis=axis, block_size=size)

    def load() -> Array:
        by = laid_out(scales.load(), shape, axis=axis, block_size=size).astype(np.float32)
        difference = codes(data).astype(np.float32) - points().astype(np.float32)
        return np.asarray(difference * by)

    def n_zeros() -> int:
        return int(np.count_nonzero(codes(data) == points()))

    _note_packed(ctx, data, (scales, zero), prod(shape), n_zeros)
    table = Constant(shape, load, data.roots, coding=_coding(data, scales, zero))
    where = ctx.attr_int("gather_axis", 0) % len(shape)
    embed(ctx, table, axis=where, rank_before=where, index_rank=len(indices.shape))


def unpack(packed: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Codes of `bits` bits from bytes along the last axis, the lowest bits first.

    Example:
        >>> unpack(np.array([0x21, 0x43], np.uint8), 4).tolist()
        [1, 2, 3, 4]
    """
    per_byte = 8 // bits
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    codes = (packed.astype(np.uint8)[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)


@rule("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(ctx: TraceContext) -> None:
    """An LSTM with int8 weights; W (directions, I, 4 H) and R (directions, H, 4 H) are stored transposed."""
    found = []
    for position, codes in spec_of(ctx.node).codes.items():
        constant = _decoded(ctx, position, codes)
        if constant is None:
            ctx.make_opaque(f"{ctx.op} whose weights depend on activations")
            return
        found.append(_turned(constant))
    b, p = (None if v is None else v.constant for v in (ctx.input(3), ctx.input(7)))
    trace_lstm(ctx, RecurrentWeights(found[0], found[1], b, p))


def _turned(constant: Constant) -> Constant:
    """Weights with their last two axes swapped."""
    directions, rows, columns = constant.shape
    return replace(
        constant, shape=(directions, columns, rows), load=lambda: np.swapaxes(constant.load(), 1, 2)
    )


def _use_all(ctx: TraceContext, positions: Sequence[int]) -> None:
    """Note that these inputs are understood as scales and zero points."""
    for position in positions:
        given = ctx.input(position)
        ctx.use(None if given is None else given.constant, "quantization")


def _operand(ctx: TraceContext, position: int, codes: Codes | None = None) -> str:
    """Name of an operand as floats: the tensor itself if it carries units, its dequantized values if not."""
    name = str(ctx.node.input[position])
    codes = codes or spec_of(ctx.node).codes.get(position)
    floats = None if codes is None else _decoded(ctx, position, codes)
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


@rule(Kind.ON_CODES)
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
    columns = spec_of(ctx.node).codes[3]
    name = _operand(ctx, 3, replace(columns, axis=0) if ctx.attr_int("transB", 0) else columns)
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
