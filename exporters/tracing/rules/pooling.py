"""Pooling and resampling: channels stay, positions mix."""

from math import prod

import numpy as np

from emergraph.exporters.tracing.affine import advanced
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import compress, distinct_sets
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import TracedAs

_NONLINEAR_POOLS = ("MaxPool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "MaxRoiPool")


@rule("AveragePool", "GlobalAveragePool", *_NONLINEAR_POOLS)
def pool(ctx: TraceContext) -> None:
    """Windows over positions of one channel."""
    value = ctx.value(ctx.node.input[0])
    spread_over_space(ctx, value, nonlinear=ctx.node.op_type in _NONLINEAR_POOLS)
    ctx.set_control(1)


@rule("GridSample", "RoiAlign", "AffineGrid", "MaxUnpool")
def sample(ctx: TraceContext) -> None:
    """Sampling positions of a channel; where to sample is control."""
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    spread_over_space(ctx, value)


def spread_over_space(ctx: TraceContext, value: Value, *, nonlinear: bool = False) -> None:
    """Output 0 (N', C, ...) shows in every position of a channel what the input shows in any position.

    Where the positions of a channel carry different units (a dense layer reshaped into an image), a new
    structural unit stands for the set of them.
    """
    if value.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    shape = ctx.out_shape()
    labels = compress(value.labels)
    space = range(2, labels.ndim)
    if all(labels.strides[k] == 0 or labels.shape[k] == 1 for k in space):
        flat = labels[(slice(0, 1), slice(None), *(slice(0, 1) for _ in space))]
        if labels.strides[0] != 0 and labels.shape[0] > 1 and labels.shape[0] == shape[0]:
            flat = labels[(slice(None), slice(None), *(slice(0, 1) for _ in space))]
        out = np.broadcast_to(flat, shape)
        bend = ctx.node.op_type if nonlinear else None
        ctx.set_labels(
            0, out, advanced(value.tracks, out, ctx.node.output[0], ctx.builder, nonlinearity=bend)
        )
        ctx.did(TracedAs.ELEMENTWISE if prod(shape[2:]) == prod(value.shape[2:]) else TracedAs.REDUCED)
        return
    ctx.read(value)
    rows = np.ascontiguousarray(labels).reshape(labels.shape[0] * labels.shape[1], -1)
    sets, which = distinct_sets(rows)
    layer = ctx.builder.add_reduction(ctx.name, ctx.op, sets, "none" if nonlinear else "mean")
    out = (layer.first + which).reshape(labels.shape[:2])
    ctx.new_layer_output(0, layer, np.broadcast_to(out.reshape(*out.shape, *[1] * len(space)), shape))
    ctx.builder.reductions[layer.id].used_as_value = True
    ctx.did(TracedAs.REDUCED)
