"""Convolutions of any dimension: channels are units, positions that the kernel slides over are not."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.operations import Kind, kind_of
from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import channel_labels, compress, units_in
from emergraph.exporters.tracing.positionaxes import contends
from emergraph.exporters.tracing.rules.attention import write_attention
from emergraph.exporters.tracing.rules.contraction import add_bias, contract_constant
from emergraph.exporters.tracing.values import Value
from emergraph.exporters.tracing.weights import (
    KernelMatrix,
    kernel_matrix,
    left_in_file,
    main_root,
    remember_block,
    restorable,
    write_block,
    write_pairs,
)
from emergraph.graphstore.records import LayerKind, MatrixKernels, TracedAs


def new_channels(
    ctx: TraceContext, name: str, count: int, bias: NDArray[np.float64] | None = None
) -> LayerDraft:
    """A new layer of channels as output 0 of the current node (N, C, ...)."""
    layer = ctx.builder.add_layer(name, ctx.op, LayerKind.CONV, count)
    shape = ctx.out_shape()
    spread = layer.units.reshape([1, count, *[1] * (len(shape) - 2)])
    ctx.new_layer_output(0, layer, np.broadcast_to(spread, shape), bias=bias)
    return layer


def trace_convolution(
    ctx: TraceContext, x: Value, weight: Constant, bias: Constant | None, *, group: int, transposed: bool
) -> None:
    """Edges of a convolution: weight (O, I/g, k...) or, transposed, (I, O/g, k...)."""
    if group == 1 and not transposed and _is_pointwise(ctx, x, weight):
        _multiply(ctx, x, weight, bias)
        return
    ctx.read(x)
    ctx.use(weight, "weight")
    n_out = weight.shape[1] * group if transposed else weight.shape[0]
    bias_values = None
    if bias is not None:
        ctx.use(bias, "bias")
        bias_values = bias.load().astype(np.float64).reshape(-1)
    tensor = main_root(weight, ctx)
    layer = new_channels(ctx, ctx.layer_name(tensor), n_out, bias_values)
    ctx.count_params(layer, weight)
    ctx.count_params(layer, bias)
    channels, labels = channel_labels(x.carried)
    if group == 1:
        matrix = _matrix(ctx, weight, transposed=transposed)
        write_kernels(ctx, layer, weight, matrix, channels, labels, tensor, transposed=transposed)
    else:
        values = ctx.weights_of(weight)
        src, dst, taps = _grouped_pairs(values, channels, labels, group, layer, transposed=transposed)
        write_pairs(ctx, layer, src, dst, taps, tensor=tensor, note=f"group={group}")
    ctx.summed(layer, (x, Value(weight.shape, constant=weight)), group=group, transposed=transposed)
    ctx.did(TracedAs.CONTRACTED)


def _matrix(ctx: TraceContext, weight: Constant, *, transposed: bool) -> KernelMatrix:
    """The weights (inputs, outputs) of a convolution, summed over the taps of each kernel."""

    def lay(values: NDArray[np.generic]) -> KernelMatrix:
        oriented = values if transposed else np.swapaxes(values, 0, 1)
        return kernel_matrix(oriented, taps=oriented.ndim - 2)

    codes = ctx.codes_of(weight) if prod(weight.shape[2:]) == 1 else None  # sums are in no file
    left = None if codes is None else left_in_file(codes, [lay(codes.stand_in)])
    return lay(ctx.weights_of(weight)) if left is None else left[0]


def _is_pointwise(ctx: TraceContext, x: Value, weight: Constant) -> bool:
    """Whether a kernel of size 1 is used at positions that are units of their own: a matrix product."""
    space = range(2, len(x.shape))
    same_size = all(size == 1 for size in weight.shape[2:]) and ctx.out_shape()[2:] == x.shape[2:]
    return same_size and contends(compress(x.carried), space, ctx.builder.families)


def _multiply(ctx: TraceContext, x: Value, weight: Constant, bias: Constant | None) -> None:
    space = "".join(chr(ord("p") + k) for k in range(len(x.shape) - 2))
    taps = space.upper()
    contract_constant(ctx, x, weight, f"nc{space}", f"oc{taps}", f"no{space}", kind=LayerKind.CONV)
    if bias is not None:
        ctx.use(bias, "bias")
        shape = (-1, *[1] * len(space))
        add_bias(ctx, bias.changed(lambda: bias.load().reshape(shape)))


def write_kernels(
    ctx: TraceContext,
    layer: LayerDraft,
    weight: Constant,
    matrix: KernelMatrix,
    channels: NDArray[np.int64],
    labels: NDArray[np.int64],
    tensor: str | None,
    *,
    transposed: bool,
) -> None:
    """One matrix (channel labels, outputs); a channel that carries several units gives a row to each."""
    whole = np.array_equal(channels, np.arange(matrix.weights.shape[0]))
    if not whole:
        matrix = _rows_of(matrix.computed(), channels)
    block = write_block(ctx, layer, labels, layer.units, matrix, tensor=tensor)
    if whole and matrix.kernels is None and weight.permutation is not None:
        root_shape = ctx.model.initializers[weight.root].shape if weight.root else ()
        if len(root_shape) == 2 and restorable(ctx, weight, labels, matrix):
            remember_block(ctx, weight, block, transposed=not transposed)


def _rows_of(matrix: KernelMatrix, rows: NDArray[np.int64]) -> KernelMatrix:
    k = matrix.kernels
    if k is None:
        return KernelMatrix(matrix.weights[rows])
    return KernelMatrix(
        matrix.weights[rows],
        MatrixKernels(l1=k.l1[rows], l2=k.l2[rows], max_abs=k.max_abs[rows], n_params=k.n_params[rows]),
    )


def _grouped_pairs(
    values: NDArray[np.floating],
    channels: NDArray[np.int64],
    labels: NDArray[np.int64],
    group: int,
    layer: LayerDraft,
    *,
    transposed: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]:
    """(src, dst, taps) of a grouped convolution: an output sees the inputs of its own group only."""
    if transposed:
        n_in, out_per_group = values.shape[:2]
        in_per_group = n_in // group
    else:
        out_per_group, in_per_group = values.shape[0] // group, values.shape[1]
    taps = int(np.prod(values.shape[2:], dtype=np.int64))
    per_pair = np.arange(out_per_group)
    block = channels // in_per_group
    out = block[:, None] * out_per_group + per_pair[None, :]
    if transposed:
        kernel = values[channels[:, None], per_pair[None, :]]
    else:
        kernel = values[out, (channels % in_per_group)[:, None]]
    src = np.repeat(labels, out_per_group)
    return src, layer.first + out.ravel(), kernel.reshape(-1, taps)


def _convolve_activations(ctx: TraceContext, x: Value, kernel: Value, bias: Value | None) -> None:
    """A kernel that carries units: a structural unit per output channel, from its inputs and its kernel."""
    group, transposed = ctx.attr_int("group", 1), kind_of(ctx.node) is Kind.CONV_TRANSPOSE
    shape = ctx.out_shape()
    n_out, per_group = shape[1], shape[1] // group
    channels, labels = (np.empty(0, np.int64),) * 2 if x.labels is None else channel_labels(x.labels)
    blocks = channels // (x.shape[1] // group)
    taps = kernel.carried
    kernels: list[NDArray[np.int64]] = []
    for channel in range(n_out):
        block, within = divmod(channel, per_group)
        own = np.array_split(taps, group)[block][:, within] if transposed else taps[channel]
        kernels.append(units_in(compress(own)))
    for value in (x, kernel):
        ctx.read(value)
    if bias is not None:
        ctx.use(bias.constant, "bias")
    layer = ctx.builder.add_layer(ctx.name, ctx.op, LayerKind.CONTEXT, n_out)
    sources = [np.unique(labels[blocks == channel // per_group]) for channel in range(n_out)]
    write_attention(ctx, layer.units, sources, kernels)
    spread = layer.units.reshape([1, n_out, *[1] * (len(shape) - 2)])
    ctx.new_layer_output(0, layer, np.broadcast_to(spread, shape))
    ctx.did(TracedAs.ATTENDED)


@rule(Kind.DEFORMED)
def deformable_convolution(ctx: TraceContext) -> None:
    """A convolution (X, W, offset, B, mask) whose taps are moved; where to is control."""
    x, weight, bias = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1]), ctx.input(3)
    if weight.constant is None or x.labels is None or (bias is not None and bias.constant is None):
        ctx.make_opaque("a deformable convolution whose kernel depends on activations")
        return
    constant = None if bias is None else bias.constant
    trace_convolution(ctx, x, weight.constant, constant, group=ctx.attr_int("group", 1), transposed=False)


@rule(Kind.CONVOLUTION, Kind.CONV_TRANSPOSE)
def convolution(ctx: TraceContext) -> None:
    """A convolution or transposed convolution with constant weights."""
    x, weight, bias = ctx.value(ctx.node.input[0]), ctx.input(1), ctx.input(2)
    if weight is not None and weight.labels is not None:
        _convolve_activations(ctx, x, weight, bias)
        return
    if weight is None or weight.constant is None or x.labels is None:
        ctx.make_opaque("a convolution whose kernel depends on the data without carrying units")
        return
    if bias is not None and bias.constant is None:
        ctx.make_opaque("a convolution whose bias depends on activations")
        return
    trace_convolution(
        ctx,
        x,
        weight.constant,
        None if bias is None else bias.constant,
        group=ctx.attr_int("group", 1),
        transposed=kind_of(ctx.node) is Kind.CONV_TRANSPOSE,
    )
