"""Sequences of tensors: lists that the tracer keeps as lists of values."""

import numpy as np

from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import compress
from emergraph.exporters.tracing.rules.movement import label_array
from emergraph.exporters.tracing.values import Value, merged_tracks
from emergraph.graphstore.records import TracedAs


def _set_sequence(ctx: TraceContext, items: list[Value]) -> None:
    ctx.sequences[ctx.node.output[0]] = items
    ctx.set(0, Value(()))
    ctx.did(TracedAs.MOVED)


def _sequence(ctx: TraceContext) -> list[Value] | None:
    """The items of input 0; None (and opaque) when they are not known."""
    items = ctx.sequences.get(ctx.node.input[0])
    if items is None:
        ctx.make_opaque(f"{ctx.op} of a sequence whose items are not known")
    return items


def _index(ctx: TraceContext, position: int, default: int) -> int | None:
    if position >= len(ctx.node.input) or not ctx.node.input[position]:
        return default
    array = ctx.concrete(ctx.node.input[position])
    return None if array is None else int(np.ravel(array)[0])


@rule("SequenceConstruct")
def construct(ctx: TraceContext) -> None:
    """A list of the inputs."""
    _set_sequence(ctx, ctx.inputs())


@rule("SequenceEmpty")
def empty(ctx: TraceContext) -> None:
    """A list without items."""
    _set_sequence(ctx, [])


@rule("SplitToSequence")
def split_to_sequence(ctx: TraceContext) -> None:
    """Slices along an axis, with or without that axis."""
    value = ctx.value(ctx.node.input[0])
    axis = ctx.attr_int("axis", 0) % max(len(value.shape), 1)
    size = value.shape[axis]
    given = ctx.concrete(ctx.node.input[1]) if len(ctx.node.input) > 1 and ctx.node.input[1] else None
    if given is None:
        lengths = [1] * size
    elif np.ndim(given) == 0:
        step = max(int(given), 1)
        lengths = [min(step, size - start) for start in range(0, size, step)]
    else:
        lengths = [int(n) for n in np.ravel(given)]
    squeeze = given is None and not ctx.attr_int("keepdims", 1)
    ends = np.cumsum(lengths).tolist()
    spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    _set_sequence(ctx, [_part(value, axis, span, squeeze=squeeze) for span in spans])


def _part(value: Value, axis: int, span: slice, *, squeeze: bool) -> Value:
    """A slice of a value, whatever it is."""
    index = (*[slice(None)] * axis, span.start if squeeze else span)
    shape = np.broadcast_to(False, value.shape)[index].shape
    if value.labels is not None:
        labels = compress(value.labels[index])
        return Value(labels.shape, labels=labels, tracks=value.tracks, dtype=value.dtype)
    stored = value.constant
    if stored is None:
        return Value(shape, dtype=value.dtype)
    return Value(
        shape, constant=Constant(shape, lambda: stored.load()[index], stored.roots, neutral=stored.neutral)
    )


@rule("SequenceInsert")
def insert(ctx: TraceContext) -> None:
    """The list with one more item."""
    items = _sequence(ctx)
    if items is None:
        return
    position = _index(ctx, 2, len(items))
    if position is None:
        ctx.make_opaque("SequenceInsert at a position that depends on the data")
        return
    at = position if position >= 0 else position + len(items)
    _set_sequence(ctx, [*items[:at], ctx.value(ctx.node.input[1]), *items[at:]])


@rule("SequenceErase")
def erase(ctx: TraceContext) -> None:
    """The list without one item."""
    items = _sequence(ctx)
    position = _index(ctx, 1, -1)
    if items is None or position is None:
        return
    kept = list(items)
    del kept[position]
    _set_sequence(ctx, kept)


@rule("SequenceAt")
def at(ctx: TraceContext) -> None:
    """One item."""
    items = _sequence(ctx)
    position = _index(ctx, 1, 0)
    if items is None or position is None:
        return
    ctx.set(0, items[position])
    ctx.did(TracedAs.MOVED)


@rule("SequenceLength")
def length(ctx: TraceContext) -> None:
    """How many items: it steers only."""
    ctx.set_control(0)
    ctx.did(TracedAs.CONTROL)


@rule("ConcatFromSequence")
def concat_from_sequence(ctx: TraceContext) -> None:
    """The items, one after the other or stacked."""
    items = _sequence(ctx)
    if items is None:
        return
    axis = ctx.attr_int("axis", 0)
    if all(item.constant is not None for item in items):
        ctx.set_constant(
            0, _side_by_side(ctx, [item.constant for item in items if item.constant is not None], axis)
        )
        ctx.did(TracedAs.CONSTANT)
        return
    for item in items:
        ctx.use(item.constant, "other")
    arrays = [label_array(item) for item in items]
    labels = np.stack(arrays, axis) if ctx.attr_int("new_axis", 0) else np.concatenate(arrays, axis)
    ctx.set_labels(0, labels, merged_tracks(items))
    ctx.did(TracedAs.MOVED)


def _side_by_side(ctx: TraceContext, parts: list[Constant], axis: int) -> Constant:
    join = np.stack if ctx.attr_int("new_axis", 0) else np.concatenate
    roots = frozenset().union(*(part.roots for part in parts))
    return Constant(
        ctx.out_shape(),
        lambda: join([part.load() for part in parts], axis),
        roots,
        neutral=any(part.neutral for part in parts),
    )
