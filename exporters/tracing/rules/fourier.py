"""Fourier transforms: linear, so they are contractions with a matrix that the operation itself defines."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.constants import literal
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.contraction_axes import transformed_axis
from emergraph.exporters.tracing.labels import channel_labels
from emergraph.exporters.tracing.rules.contraction import contract_constant
from emergraph.exporters.tracing.rules.convolution import write_kernels
from emergraph.exporters.tracing.weights import kernel_matrix, main_root
from emergraph.graphstore.records import LayerKind, TracedAs

_MAX_ELEMENTS = 1 << 25
"""Of a transform's matrix; it is made whole, as float64."""
_ROUNDING = 1e-12
"""Sines and cosines below it are zeros."""


@rule("DFT")
def fourier(ctx: TraceContext) -> None:
    """Y = F x along an axis, real and imaginary parts last; every bin is a unit."""
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    shape, out = value.shape, ctx.out_shape()
    given = ctx.concrete(ctx.node.input[2]) if len(ctx.node.input) > 2 and ctx.node.input[2] else None
    axis = transformed_axis(ctx.node, len(shape), given, ctx.opset())
    inverse, onesided = bool(ctx.attr_int("inverse", 0)), bool(ctx.attr_int("onesided", 0))
    length = _length(ctx, 1, out[axis] if inverse or not onesided else shape[axis])
    if length is None or _is_too_large(ctx, shape[axis], shape[-1], out[axis], out[-1]):
        return
    matrix = transform(shape[axis], shape[-1], length, inverse=inverse, onesided=onesided)
    letters = "".join("n" if k == axis else chr(ord("A") + k) for k in range(len(shape) - 1))
    weight = literal(matrix.astype(np.float32))
    contract_constant(ctx, value, weight, f"{letters}c", "nckd", f"{letters.replace('n', 'k')}d")


def transform(n: int, parts: int, length: int, *, inverse: bool, onesided: bool) -> NDArray[np.float64]:
    """The matrix of a Fourier transform.

    Args:
        n: Values along the axis; they are padded or cut to `length`.
        parts: 1 for real values, 2 for complex ones.
        length: Of the transform.
        inverse: Whether it is the inverse.
        onesided: Of real values, the first half of the bins; inverse: real values of the first half.

    Returns:
        (n, parts, bins, parts of the result).
    """
    basis = np.eye(n * parts).reshape(n * parts, n, parts)
    values = basis[..., 0] + (1j * basis[..., 1] if parts == 2 else 0)
    if inverse and onesided:
        made = np.fft.irfft(values, n=length, axis=1)[..., None]
    else:
        found = (np.fft.ifft if inverse else np.fft.fft)(values, n=length, axis=1)
        bins = length // 2 + 1 if onesided else length
        made = np.stack([found.real, found.imag], axis=-1)[:, :bins]
    made[np.abs(made) < _ROUNDING] = 0.0
    return made.reshape(n, parts, *made.shape[1:])


@rule("STFT")
def short_time_fourier(ctx: TraceContext) -> None:
    """A strided convolution whose kernel is the window times a DFT; bins are channels."""
    value, window = ctx.value(ctx.node.input[0]), ctx.input(2)
    if value.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    if window is not None and window.constant is None:
        ctx.make_opaque("STFT whose window depends on the data")
        return
    constant = literal(np.ones(())) if window is None or window.constant is None else window.constant
    length = _length(ctx, 3, constant.shape[0] if constant.shape else 0)
    shape = ctx.out_shape()
    bins, parts = shape[2:]
    signal = value.carried if len(value.shape) > 2 else value.carried[..., None]
    n_channels = signal.shape[2]
    if length is None or _is_too_large(ctx, length, n_channels, bins, parts):
        return
    ctx.read(value)
    ctx.use(constant, "weight")
    matrix = transform(length, n_channels, length, inverse=False, onesided=bool(ctx.attr_int("onesided", 1)))
    framed = matrix * constant.floats().reshape(-1, 1, 1, 1)
    kernel = framed.transpose(1, 2, 3, 0).reshape(n_channels, bins * parts, length).astype(np.float32)
    tensor = main_root(constant, ctx)
    layer = ctx.builder.add_layer(ctx.name, ctx.op, LayerKind.CONV, bins * parts)
    ctx.count_params(layer, constant)
    channels, labels = channel_labels(signal.transpose(0, 2, 1))
    summed = kernel_matrix(kernel, taps=kernel.ndim - 2)
    write_kernels(ctx, layer, constant, summed, channels, labels, tensor, transposed=False)
    ctx.new_layer_output(0, layer, np.broadcast_to(layer.units.reshape(1, 1, bins, parts), shape))
    ctx.did(TracedAs.CONTRACTED)


def _length(ctx: TraceContext, position: int, default: int) -> int | None:
    """The length of the transform; an opaque node where it depends on the data."""
    if position >= len(ctx.node.input) or not ctx.node.input[position]:
        return default
    given = ctx.concrete(ctx.node.input[position])
    if given is None:
        ctx.make_opaque(f"{ctx.op} whose length depends on the data")
        return None
    return int(np.ravel(given)[0])


def _is_too_large(ctx: TraceContext, *sizes: int) -> bool:
    """Whether the matrix is larger than is made; the node is opaque then."""
    if prod(sizes) <= _MAX_ELEMENTS:
        return False
    ctx.make_opaque(f"{ctx.op} whose matrix has {prod(sizes):,} elements, more than {_MAX_ELEMENTS:,}")
    return True
