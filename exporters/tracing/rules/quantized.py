"""Quantized operations: edges carry dequantized weights, a weight at the zero point is not an edge."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.runtime.quantization import dequantize, laid_out
from emergraph.exporters.tracing.constants import Constant, literal
from emergraph.exporters.tracing.context import ParameterUse, TraceContext, rule
from emergraph.exporters.tracing.rules.contraction import add_bias, contract, matmul_letters
from emergraph.exporters.tracing.rules.convolution import trace_convolution
from emergraph.exporters.tracing.rules.recurrent import RecurrentWeights, trace_lstm
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import TracedAs

Array = NDArray[np.generic]
MICROSOFT = "com.microsoft"
INTEGER_WEIGHTS = (
    "weights of MatMulInteger and ConvInteger are integers; the scale that the model applies behind them is "
    "in units.scale: weights of different layers do not compare"
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
    return Constant(stored.shape, load, stored.roots, coding=_coding(stored, zero, factor))


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


@rule("MatMulInteger")
def matmul_integer(ctx: TraceContext) -> None:
    """Y = (A - a_zero) (B - b_zero) in integers; scales follow as multiplications."""
    left, right = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    if left.constant is not None or right.constant is not None:
        ctx.warn(INTEGER_WEIGHTS)
    _integer_contraction(ctx, left, right, ctx.input(2), ctx.input(3))


@rule("QLinearMatMul")
def qlinear_matmul(ctx: TraceContext) -> None:
    """Y = A B with all three quantized."""
    left, right = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[3])
    _integer_contraction(ctx, left, right, ctx.input(2), ctx.input(5), ctx.input(1), ctx.input(4))


def _integer_contraction(
    ctx: TraceContext,
    left: Value,
    right: Value,
    left_zero: Value | None,
    right_zero: Value | None,
    left_scale: Value | None = None,
    right_scale: Value | None = None,
) -> None:
    letters = matmul_letters(len(left.shape), len(right.shape))
    operands = []
    for value, zero, scale, axis in (
        (left, left_zero, left_scale, max(len(left.shape) - 2, 0)),
        (right, right_zero, right_scale, len(right.shape) - 1),
    ):
        constant = dequantized(ctx, value, zero, scale, axis=axis)
        operands.append(value if constant is None else replace(value, constant=constant))
    contract(ctx, operands[0], operands[1], letters)


@rule("ConvInteger")
def conv_integer(ctx: TraceContext) -> None:
    """A convolution in integers."""
    weight = dequantized(ctx, ctx.value(ctx.node.input[1]), ctx.input(3), axis=0)
    if weight is not None:
        ctx.warn(INTEGER_WEIGHTS)
    _convolve(ctx, ctx.value(ctx.node.input[0]), weight, None)


@rule("QLinearConv")
def qlinear_conv(ctx: TraceContext) -> None:
    """A convolution with quantized input, weight and output; the bias is stored as int32 of scale xs * ws."""
    weight = dequantized(ctx, ctx.value(ctx.node.input[3]), ctx.input(5), ctx.input(4), axis=0)
    constant = dequantized_bias(ctx, 8, (1, 4))
    for position in (1, 2, 6, 7):
        ctx.use(ctx.value(ctx.node.input[position]).constant, "quantization")
    _convolve(ctx, ctx.value(ctx.node.input[0]), weight, constant)


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


def _convolve(ctx: TraceContext, x: Value, weight: Constant | None, bias: Constant | None) -> None:
    if weight is None or x.labels is None:
        ctx.make_opaque("a convolution whose kernel depends on activations")
        return
    trace_convolution(ctx, x, weight, bias, group=ctx.attr_int("group", 1), transposed=False)


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

    if stored.root is not None:
        ctx.uses.setdefault(stored.root, ParameterUse()).packed = (n * k, n_zeros)
    for extra in (factor, offset):
        ctx.use(extra, "quantization")
    weight = Value(
        (n, k), constant=Constant((n, k), load, stored.roots, coding=_coding(stored, factor, offset))
    )
    letters = matmul_letters(len(a.shape), 2)
    contract(ctx, a, weight, replace(letters, right="nk"))
    if bias is not None and bias.constant is not None:
        ctx.use(bias.constant, "bias")
        add_bias(ctx, bias.constant)


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
    scales = [ctx.input(k) for k in (8, 10)]
    zeros = [ctx.input(k) for k in (9, 11)]
    found = []
    for position, scale, zero in zip((1, 2), scales, zeros, strict=True):
        stored = ctx.value(ctx.node.input[position])
        constant = _per_direction(ctx, stored, scale, zero)
        if constant is None:
            ctx.make_opaque("DynamicQuantizeLSTM whose weights depend on activations")
            return
        found.append(constant)
    b, p = ctx.input(3), ctx.input(7)
    trace_lstm(
        ctx,
        RecurrentWeights(
            found[0], found[1], None if b is None else b.constant, None if p is None else p.constant
        ),
    )


def _per_direction(
    ctx: TraceContext, stored: Value, scale: Value | None, zero: Value | None
) -> Constant | None:
    q = stored.constant
    parts = [None if v is None else v.constant for v in (scale, zero)]
    if q is None:
        return None
    directions, rows, columns = stored.shape

    def load() -> Array:
        values = q.load().astype(np.float32)
        by, middle = (
            None if c is None else c.load().astype(np.float32).reshape(directions, 1, -1) for c in parts
        )
        shifted = values if middle is None else values - middle
        return np.swapaxes(shifted if by is None else shifted * by, 1, 2)

    for part in parts:
        ctx.use(part, "quantization")
    if parts[1] is not None:
        zero_point = parts[1]
        ctx.note_zero_point(q, lambda: zero_point.load().reshape(directions, 1, -1))
    return Constant((directions, columns, rows), load, q.roots, coding=_coding(q, *parts))
