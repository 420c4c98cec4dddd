"""Values put, added, multiplied, ... into places: sums over neighbours and segments, caches, routes."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.operations import Kind
from emergraph.exporters.tracing.affine import advanced
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.indexing import move_labels, values_into_places
from emergraph.exporters.tracing.join import join
from emergraph.exporters.tracing.labels import NO_UNIT, Labels
from emergraph.exporters.tracing.mixing import mixed_labels
from emergraph.exporters.tracing.rules.movement import (
    index_axes,
    indices_are_constant,
    label_array,
    set_moved,
)
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import EdgeKind, TracedAs

_REDUCTIONS = {"mul": "ReduceProd", "min": "ReduceMin", "max": "ReduceMax"}
"""The nonlinearity of what a scatter operation makes of the values that it meets."""


@rule(Kind.SCATTER)
def scatter(ctx: TraceContext) -> None:
    """Values put, added, multiplied, ... into places; any value into any place where the data says where."""
    data, updates = (ctx.value(ctx.node.input[k]) for k in values_into_places(ctx.node.op_type))
    reduction = ctx.attr_str("reduction", "none")
    for value in (data, updates):
        ctx.use(value.constant, "other")
    if data.labels is None and updates.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
    elif not indices_are_constant(ctx):
        before = ctx.builder.n_units
        arriving = _anywhere(ctx, updates, "one" if reduction == "add" else "none")
        is_fresh = ctx.builder.n_units > before
        moved = replace(updates, shape=data.shape, labels=arriving, tracks={} if is_fresh else updates.tracks)
        _combine(ctx, reduction, data, [moved])
    elif reduction == "none":
        _place(ctx, data, updates)
    else:
        levels = [
            Value(data.shape, labels=labels, tracks=updates.tracks) for labels in _levels(ctx, data, updates)
        ]
        _combine(ctx, reduction, data, levels)


def _combine(ctx: TraceContext, reduction: str, data: Value, arriving: Sequence[Value]) -> None:
    """Output 0 as what is there joined with what arrives; the label passes where they are one unit."""
    parts = [v for v in (data, *arriving) if v.labels is not None]
    if len(parts) == 1:
        bend = _REDUCTIONS.get(reduction)
        labels = parts[0].carried
        tracks = advanced(parts[0].tracks, labels, ctx.node.output[0], ctx.builder, nonlinearity=bend)
        ctx.set_labels(0, labels, tracks if reduction != "none" else parts[0].tracks)
        ctx.did(TracedAs.MOVED if reduction == "none" else TracedAs.REDUCED)
        return
    is_sum = reduction == "add"
    kind = EdgeKind.IDENTITY if is_sum else EdgeKind.GATE
    join(ctx, parts, kind=kind, weights=[1.0] * len(parts) if is_sum else None)


def _place(ctx: TraceContext, data: Value, updates: Value) -> None:
    """Constant indices, each value in a place of its own: the operation itself is run on the labels."""
    values = values_into_places(ctx.node.op_type)
    carried = dict(zip(values, (label_array(data), label_array(updates)), strict=True))
    arrays = [
        carried[k] if k in carried else ctx.concrete(name) if name else None
        for k, name in enumerate(ctx.node.input)
    ]
    set_moved(ctx, move_labels(ctx.node, arrays, values, ctx.model.opsets), data, updates)


def _anywhere(ctx: TraceContext, updates: Value, weight: str) -> Labels:
    """What may arrive in every place, whichever the indices are: the other axes stay what they are."""
    shape = ctx.out_shape()
    if updates.labels is None:
        return np.broadcast_to(np.asarray(NO_UNIT), shape)
    if ctx.node.op_type == "ScatterND":
        lead = len(ctx.value(ctx.node.input[1]).shape) - 1
        rest = updates.shape[lead:]
        return np.broadcast_to(mixed_labels(ctx, updates, range(lead), weight).reshape(rest), shape)
    (axis,) = index_axes(ctx, updates)
    labels = mixed_labels(ctx, updates, [axis], weight)
    covered = tuple(slice(0, n) if k != axis else slice(None) for k, n in enumerate(updates.shape))
    if all(labels.shape[k] == shape[k] for k in range(len(shape)) if k != axis):
        return np.broadcast_to(labels, shape)
    whole = np.full(shape, NO_UNIT, np.int64)
    whole[covered] = labels
    return whole


def _levels(ctx: TraceContext, data: Value, updates: Value) -> list[Labels]:
    """What constant indices bring into each place, as arrays with one value in a place.

    A label that arrives several times in one place arrives as often there, unless nothing else does.
    """
    places, labels = _places(ctx, data.shape), label_array(updates).ravel()
    arrives = labels >= 0
    order = np.lexsort((labels[arrives], places[arrives]))
    place, label = places[arrives][order], labels[arrives][order]
    other = label_array(data).ravel()[place]
    first = np.flatnonzero(np.r_[True, place[1:] != place[:-1]]) if place.size else np.empty(0, np.int64)
    sizes = np.diff(np.r_[first, place.size])
    low, high = (
        np.repeat(f.reduceat(label, first), sizes) if place.size else label for f in (np.minimum, np.maximum)
    )
    rank = np.arange(place.size) - np.repeat(first, sizes)
    alone = (low == high) & ((other == low) | (other < 0))
    keep = ~alone | (rank == 0)
    place, label, rank = place[keep], label[keep], rank[keep]
    found = np.full((int(rank.max(initial=-1)) + 1, prod(data.shape)), NO_UNIT, np.int64)
    found[rank, place] = label
    return list(found.reshape(-1, *data.shape))


def _places(ctx: TraceContext, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """(updates,) flat index of the place that each update goes to."""
    indices = np.asarray(ctx.concrete(ctx.node.input[1]), np.int64)
    if ctx.node.op_type == "ScatterND":
        depth = indices.shape[-1]
        own = (
            np.ravel_multi_index(
                tuple(np.moveaxis(indices % np.asarray(shape[:depth]), -1, 0)), shape[:depth]
            )
            if depth
            else np.zeros(indices.shape[:-1], np.int64)
        )
        rest = np.arange(prod(shape[depth:]))
        return np.asarray(own.reshape(-1, 1) * rest.size + rest, np.int64).ravel()
    (axis,) = index_axes(ctx, ctx.value(ctx.node.input[0]))
    grid = [np.asarray(g, np.int64) for g in np.indices(indices.shape)]
    grid[axis] = indices % shape[axis]
    return np.asarray(np.ravel_multi_index(tuple(grid), shape), np.int64).ravel()
