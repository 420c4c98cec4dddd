"""Normalisations: the label passes, gamma and beta are columns, the group's statistic is a `norm` hub."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from emergraph.exporters.operations import Kind
from emergraph.exporters.tracing.affine import advanced, scaled, shifted
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import Labels, compress, core, distinct_sets, reduced_rows, units_in
from emergraph.exporters.tracing.positionaxes import close_gaps, is_steady
from emergraph.exporters.tracing.values import Value
from emergraph.exporters.trainingmode import trains
from emergraph.graphstore.records import LayerKind, TracedAs

if TYPE_CHECKING:
    from emergraph.exporters.tracing.tracks import Track


def add_hubs(ctx: TraceContext, labels: Labels, axes: Sequence[int]) -> None:
    """One hub per distinct set of units that are normalised together; none where a set is a single unit."""
    sets, _ = distinct_sets(reduced_rows(labels, [a % labels.ndim for a in axes]).rows)
    sets = [s for s in sets if s.size > 1]
    if not sets:
        return
    hub = ctx.builder.add_reduction(f"{ctx.name}:statistic", ctx.op, sets).layer
    pairs = [np.stack([np.full(s.size, unit), s], axis=1) for unit, s in zip(hub.units, sets, strict=True)]
    ctx.builder.norm_edges(ctx.name, ctx.op, np.concatenate(pairs))


def normalise(
    ctx: TraceContext,
    value: Value,
    axes: Sequence[int],
    *,
    scale: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    nonlinearity: str | None = None,
) -> None:
    """Set output 0 to a normalised value, with an element-wise scale and shift that broadcast to it."""
    labels = value.carried
    if axes:
        add_hubs(ctx, labels, axes)
    tracks: dict[int, Track] = dict(value.tracks)
    if scale is not None:
        tracks = scaled(tracks, labels, scale, ctx.builder)
        if (scale == 0).any():
            labels = np.where(np.broadcast_to(scale == 0, labels.shape), -1, labels)
    if shift is not None:
        tracks = shifted(tracks, labels, shift, ctx.builder)
    ctx.set_labels(
        0, labels, advanced(tracks, labels, ctx.node.output[0], ctx.builder, nonlinearity=nonlinearity)
    )
    ctx.did(TracedAs.NORMALISED)


def _parameter(ctx: TraceContext, position: int, role: str, value: Value) -> np.ndarray | None:
    given = ctx.input(position)
    if given is None or given.constant is None:
        return None
    ctx.use(given.constant, role)
    if len(value.tracks) == 1:
        ctx.count_params(ctx.builder.layers[next(iter(value.tracks))], given.constant)
    return given.constant.load().astype(np.float64)


def _per_channel(array: np.ndarray | None, rank: int) -> np.ndarray | None:
    return None if array is None else array.reshape([-1, *[1] * (rank - 2)])


def _carried(ctx: TraceContext) -> Value | None:
    value = ctx.value(ctx.node.input[0])
    if any(v.labels is not None for v in ctx.inputs()[1:]):
        ctx.make_opaque(f"{ctx.op} whose parameters depend on activations")
        return None
    return value


@rule(Kind.BATCH_NORM)
def batch_normalization(ctx: TraceContext) -> None:
    """Y = gamma (x - mean) / sqrt(var + eps) + beta with stored statistics, per channel.

    In training mode the statistics are those of the batch, and only gamma and beta are columns.
    """
    value = _carried(ctx)
    if value is None:
        return
    if trains(ctx.node, ctx.opset(), lambda _: None):
        _batch_statistics(ctx, value)
        return
    gamma, beta, mean, var = (
        _parameter(ctx, k, role, value)
        for k, role in ((1, "scale"), (2, "shift"), (3, "shift"), (4, "scale"))
    )
    if gamma is None or beta is None or mean is None or var is None:
        ctx.make_opaque("batch normalisation without its four parameters")
        return
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = gamma / np.sqrt(var + ctx.attr_float("epsilon", 1e-5))
        shift = beta - mean * scale
    if not np.isfinite(scale).all():
        ctx.warn(f"{ctx.name}: batch normalisation with a negative or NaN variance")
    rank = len(value.shape)
    normalise(ctx, value, [], scale=_per_channel(scale, rank), shift=_per_channel(shift, rank))


def _batch_statistics(ctx: TraceContext, value: Value) -> None:
    """Statistics over the batch and all positions of each channel: no hub while a channel is one unit."""
    rank = len(value.shape)
    normalise(
        ctx,
        value,
        [0, *range(2, rank)],
        scale=_per_channel(_parameter(ctx, 1, "scale", value), rank),
        shift=_per_channel(_parameter(ctx, 2, "shift", value), rank),
    )
    for position in (3, 4):
        ctx.use(ctx.value(ctx.node.input[position]).constant, "other")
    for position in range(1, len(ctx.node.output)):
        ctx.set_control(position)


@rule(Kind.LAYER_NORM)
def layer_normalization(ctx: TraceContext) -> None:
    """Statistics over the last axes of each position."""
    value = _carried(ctx)
    if value is None:
        return
    rank = len(value.shape)
    first = ctx.attr_int("axis", -1) % rank
    normalise(
        ctx,
        value,
        range(first, rank),
        scale=_parameter(ctx, 1, "scale", value),
        shift=_parameter(ctx, 2, "shift", value),
    )
    for position in (1, 2):
        ctx.set_control(position)


@rule(Kind.INSTANCE_NORM)
def instance_normalization(ctx: TraceContext) -> None:
    """Statistics over the positions of each channel: no hub while a channel is one unit."""
    value = _carried(ctx)
    if value is None:
        return
    rank = len(value.shape)
    normalise(
        ctx,
        value,
        range(2, rank),
        scale=_per_channel(_parameter(ctx, 1, "scale", value), rank),
        shift=_per_channel(_parameter(ctx, 2, "shift", value), rank),
    )


@rule(Kind.GROUP_NORM)
def group_normalization(ctx: TraceContext) -> None:
    """Statistics over groups of channels and all positions."""
    value = _carried(ctx)
    if value is None:
        return
    groups = ctx.attr_int("num_groups", 1)
    n, channels, *space = value.shape
    grouped = value.carried.reshape([n, groups, channels // groups, *space])
    add_hubs(ctx, grouped, range(2, grouped.ndim))
    gains = [_parameter(ctx, k, role, value) for k, role in ((1, "scale"), (2, "shift"))]
    rank = len(value.shape)
    fitted = [None if g is None else _per_channel(np.repeat(g, channels // g.size), rank) for g in gains]
    normalise(ctx, value, [], scale=fitted[0], shift=fitted[1])


@rule(Kind.SOFTMAX)
def softmax(ctx: TraceContext) -> None:
    """Probabilities along an axis (before opset 13: along all axes from it on)."""
    value = ctx.value(ctx.node.input[0])
    rank = len(value.shape)
    if ctx.opset() >= 13:
        axes = [ctx.attr_int("axis", -1) % rank]
    else:
        axes = list(range(ctx.attr_int("axis", 1) % rank, rank))
    # Beside elements that carry a unit, one that carries none (a mask) depends on it after all.
    labels = close_gaps(compress(value.carried), axes)
    if all(is_steady(labels, axis) for axis in axes) and prod(value.shape[axis] for axis in axes) > 1:
        # Shares of positions. Where a weight made them, its outputs are queries that were learned.
        made = {la.id for la in ctx.builder.layers_of(units_in(labels)) if la.kind is LayerKind.DENSE}
        ctx.builder.scores |= made
        ctx.builder.learned_scores |= made
    normalise(ctx, replace(value, labels=labels), axes, nonlinearity=ctx.node.op_type)


@rule("LpNormalization")
def lp_normalization(ctx: TraceContext) -> None:
    """X / |x|_p along an axis."""
    value = ctx.value(ctx.node.input[0])
    normalise(ctx, value, [ctx.attr_int("axis", -1)])


@rule("MeanVarianceNormalization")
def mean_variance_normalization(ctx: TraceContext) -> None:
    """Zero mean and unit variance over some axes."""
    value = ctx.value(ctx.node.input[0])
    axes = ctx.attr_ints("axes")
    normalise(ctx, value, [0, 2, 3] if axes is None else axes)


@rule("LRN")
def local_response_normalization(ctx: TraceContext) -> None:
    """Each channel is divided by a statistic of its neighbours: one hub per channel's window."""
    value = ctx.value(ctx.node.input[0])
    labels = core(compress(value.carried))
    labels = np.broadcast_to(labels, (labels.shape[0], value.shape[1], *labels.shape[2:]))
    size, channels = ctx.attr_int("size", 1), value.shape[1]
    for channel in range(channels):
        low, high = max(0, channel - (size - 1) // 2), min(channels, channel + size // 2 + 1)
        window = labels[:, low:high]
        own = np.unique(labels[:, channel])
        _window_hub(ctx, np.unique(window), own[own >= 0])
    normalise(ctx, value, [])


def _window_hub(ctx: TraceContext, members: np.ndarray, targets: np.ndarray) -> None:
    members = members[members >= 0]
    if members.size < 2:
        return
    hub = ctx.builder.add_reduction(f"{ctx.name}:statistic", ctx.op, [members]).layer
    pairs = np.stack([np.full(targets.size, hub.first), targets], axis=1)
    ctx.builder.norm_edges(ctx.name, ctx.op, pairs)
