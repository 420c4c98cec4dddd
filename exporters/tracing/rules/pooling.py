"""Pooling, resampling and unfolding: channels stay, positions mix."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from emergraph.exporters.operations import Kind, spec_of
from emergraph.exporters.tracing.affine import advanced
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.join import join
from emergraph.exporters.tracing.mixing import mix_positions, mixed_labels
from emergraph.graphstore.records import EdgeKind, TracedAs

if TYPE_CHECKING:
    from emergraph.exporters.tracing.values import Value


@rule(Kind.POOL, Kind.GLOBAL_POOL, Kind.REGION_POOL)
def pool(ctx: TraceContext) -> None:
    """Windows over positions of one channel."""
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        ctx.make_opaque(f"{ctx.op} of constants, steered by the data")
        return
    rois = ctx.node.op_type == "MaxRoiPool"
    mix_positions(
        ctx,
        value,
        [*([0] if rois else []), *range(2, len(value.shape))],
        nonlinear=not spec_of(ctx.node).is_linear,
    )
    ctx.set_control(1)


@rule(Kind.RESIZE)
def resize(ctx: TraceContext) -> None:
    """Interpolation along the axes whose length changes, in whatever layout."""
    value = ctx.value(ctx.node.input[0])
    shape = ctx.out_shape()
    for given in ctx.inputs()[1:]:
        ctx.use(given.constant, "other")
    mix_positions(ctx, value, [k for k in range(len(shape)) if shape[k] != value.shape[k]])


@rule("GridSample")
def grid_sample(ctx: TraceContext) -> None:
    """Channels sampled where a grid (N, ..., 2) says; a grid that carries units is a gate."""
    value, grid = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    shape = ctx.out_shape()
    rank = len(shape)
    parts: list[Value] = []
    if value.labels is not None:
        labels = mixed_labels(ctx, value, range(2, rank), "none")
        parts.append(replace(value, labels=np.broadcast_to(labels, shape), shape=shape))
    if grid.labels is not None:
        labels = mixed_labels(ctx, grid, [rank - 1], "none")
        parts.append(replace(grid, labels=np.broadcast_to(np.moveaxis(labels, -1, 1), shape), shape=shape))
    if len(parts) == 2:
        join(ctx, parts, kind=EdgeKind.GATE, weights=None)
        return
    ctx.set_labels(
        0, parts[0].carried, advanced(parts[0].tracks, parts[0].carried, ctx.node.output[0], ctx.builder)
    )
    ctx.did(TracedAs.REDUCED)


@rule("RoiAlign")
def roi_align(ctx: TraceContext) -> None:
    """Channels sampled in regions of any image of the batch; where is control."""
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    mix_positions(ctx, value, [0, 2, 3])


@rule("AffineGrid")
def affine_grid(ctx: TraceContext) -> None:
    """Coordinate j of every grid point is a sum over row j of theta (N, rows, columns)."""
    value = ctx.value(ctx.node.input[0])
    shape = ctx.out_shape()
    labels = mixed_labels(ctx, value, [2], "none")[:, :, 0]
    spread = labels.reshape(labels.shape[0], *[1] * (len(shape) - 2), labels.shape[1])
    ctx.set_labels(0, np.broadcast_to(spread, shape), {})
    ctx.did(TracedAs.REDUCED)


@rule("Col2Im")
def col2im(ctx: TraceContext) -> None:
    """Overlapping blocks (N, C * block, positions) added up into an image (N, C, ...)."""
    value = ctx.value(ctx.node.input[0])
    shape = ctx.out_shape()
    n, _, positions = value.shape
    blocks = value.carried.reshape(n, shape[1], -1, positions)
    whole = replace(value, labels=blocks, shape=blocks.shape)
    labels = mixed_labels(ctx, whole, [2, 3], "one")
    ctx.set_labels(0, np.broadcast_to(labels.reshape(*labels.shape[:2], *[1] * (len(shape) - 2)), shape), {})
    ctx.did(TracedAs.REDUCED)
