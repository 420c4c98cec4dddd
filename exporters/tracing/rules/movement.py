"""Data movement: the operation itself is run on the labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emergraph.exporters.operations import PICKING, Kind, kind_of, spec_of
from emergraph.exporters.tracing.constants import literal
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.indexing import Array, indexed_axes, move_labels
from emergraph.exporters.tracing.labels import Labels, compress, units_in
from emergraph.exporters.tracing.mixing import mix_positions, mixed_labels
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.values import Value, merged_tracks
from emergraph.graphstore.records import TracedAs


def label_array(value: Value) -> Labels:
    """The labels of a value; -1 everywhere for constants and control."""
    if value.bank is not None:
        return value.bank.feature
    return value.labels if value.labels is not None else np.broadcast_to(np.asarray(-1), value.shape)


@rule(Kind.RESHAPE, Kind.UNIT_AXES)
def reshape(ctx: TraceContext) -> None:
    """Same elements in another shape: the concrete run knows it."""
    value = ctx.value(ctx.node.input[0])
    labels = np.reshape(label_array(value), ctx.out_shape())
    set_moved(ctx, [labels], value)


@rule(Kind.TRANSPOSE)
def transpose(ctx: TraceContext) -> None:
    """Axes in another order."""
    value = ctx.value(ctx.node.input[0])
    set_moved(ctx, [np.transpose(label_array(value), ctx.attr_ints("perm"))], value)


@rule(Kind.SPLIT)
def split(ctx: TraceContext) -> None:
    """Slices along an axis, as long as the outputs are."""
    value = ctx.value(ctx.node.input[0])
    axis = ctx.attr_int("axis", 0)
    lengths = [ctx.out_shape(k)[axis] for k in range(len(ctx.node.output))]
    set_moved(ctx, np.split(label_array(value), np.cumsum(lengths)[:-1], axis=axis), value)


@rule(Kind.CONCAT)
def concat(ctx: TraceContext) -> None:
    """One after the other; axes along which nothing changes stay one slice."""
    values = ctx.inputs()
    for value in values:
        ctx.use(value.constant, "other")
    rank = len(ctx.out_shape())
    axis = ctx.attr_int("axis", 1) % rank
    arrays = [label_array(v) for v in values]
    still = [k for k in range(rank) if k != axis and constant_along_all(arrays, k)]
    parts = [a[tuple(slice(0, 1) if k in still else slice(None) for k in range(rank))] for a in arrays]
    set_moved(ctx, [np.broadcast_to(np.concatenate(parts, axis=axis), ctx.out_shape())], *values)


def constant_along_all(arrays: Sequence[Labels], axis: int) -> bool:
    """Whether an axis of several label arrays is kept as one slice in all of them."""
    return all(a.strides[axis] == 0 or a.shape[axis] <= 1 for a in arrays)


@rule(Kind.SLICE, Kind.PAD, Kind.REARRANGE)
def move(ctx: TraceContext) -> None:
    """Run the operation on the labels; positions that it fills in carry no unit."""
    value = ctx.value(ctx.node.input[0])
    ctx.use(value.constant, "other")
    steady = indices_are_constant(ctx)
    if not steady and value.labels is not None:
        value = _any_of(ctx, value)
    arrays: list[Array | None] = [label_array(value)]
    for position, name in enumerate(ctx.node.input[1:], 1):
        array = ctx.concrete(name) if name else None
        if not steady and kind_of(ctx.node) in PICKING and position == 1:
            # Whatever the index is: along its axes there is nothing to choose.
            array = np.zeros(ctx.value(name).shape, np.int64)
        if name and array is None:
            ctx.make_opaque(f"{ctx.op} whose input {name} is too large to follow")
            return
        arrays.append(array)
    set_moved(ctx, move_labels(ctx.node, arrays, (0,), ctx.model.opsets), value)


def _any_of(ctx: TraceContext, value: Value) -> Value:
    """What an index that depends on the data may pick: along its axes, the union of what is there."""
    before = ctx.builder.n_units
    labels = mixed_labels(ctx, value, index_axes(ctx, value), "none")
    tracks = value.tracks if ctx.builder.n_units == before else {}
    return replace(value, labels=np.broadcast_to(labels, value.shape), tracks=tracks)


def indices_are_constant(ctx: TraceContext) -> bool:
    """Whether what says which or where, in the current node, is the same in every run."""
    names = [ctx.node.input[k] for k in spec_of(ctx.node).steering if k < len(ctx.node.input)]
    return all(not name or ctx.value(name).constant is not None for name in names)


def index_axes(ctx: TraceContext, data: Value) -> tuple[int, ...]:
    """The axes along which the current node picks or places."""
    given = ctx.node.input
    axes = ctx.concrete(given[3]) if kind_of(ctx.node) is Kind.SLICE and len(given) > 3 and given[3] else None
    index = ctx.value(given[1]).shape
    return indexed_axes(ctx.node.op_type, ctx.attrs, len(data.shape), index, axes)


def set_moved(ctx: TraceContext, results: Sequence[Labels], *values: Value) -> None:
    """Set all outputs to labels that were moved; control where nothing carries units."""
    tracks: dict[int, Track] = merged_tracks(list(values))
    bank = values[0].bank
    if bank is not None:
        feature = compress(np.asarray(results[0]))
        ctx.set(0, Value(feature.shape, bank=replace(bank, feature=feature)))
        ctx.did(TracedAs.MOVED)
        return
    if all(v.labels is None for v in values):
        for position in range(len(results)):
            ctx.set_control(position)
        ctx.did(TracedAs.CONTROL)
        return
    for position, labels in enumerate(results):
        if position < len(ctx.node.output) and ctx.node.output[position]:
            moved = compress(np.asarray(labels).astype(np.int64, copy=False))
            ctx.set_labels(position, moved, _present(ctx, tracks, moved), packed=True)
    ctx.did(TracedAs.MOVED)


def _present(ctx: TraceContext, tracks: dict[int, Track], labels: Labels) -> dict[int, Track]:
    """Keep the tracks of layers whose units are still there."""
    if len(tracks) <= 1:
        return tracks
    here = set(ctx.builder.layer_ids(units_in(labels)).tolist())
    return {layer: track for layer, track in tracks.items() if layer in here}


@rule(Kind.SHAPE)
def shape_of(ctx: TraceContext) -> None:
    """Shapes depend on no unit."""
    value = ctx.facts(ctx.node.output[0]).value
    ctx.set_constant(0, literal(np.asarray(value)))
    ctx.did(TracedAs.CONSTANT)


@rule(Kind.ARGUMENT, Kind.CONTROL)
def control(ctx: TraceContext) -> None:
    """Decides which or where, or depends on a shape alone."""
    for position in range(len(ctx.node.output)):
        ctx.set_control(position)
    ctx.did(TracedAs.CONTROL)


@rule(Kind.TOP)
def top_k(ctx: TraceContext) -> None:
    """The largest values along an axis depend on all of them; the indices are control."""
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        control(ctx)
        return
    mix_positions(ctx, value, [ctx.attr_int("axis", -1) % len(value.shape)], nonlinear=True)
    ctx.set_control(1)
