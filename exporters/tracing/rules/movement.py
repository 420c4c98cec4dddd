"""Data movement: the operation itself is run on the labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.constants import literal
from emergraph.exporters.tracing.context import TraceContext, op_names, rule
from emergraph.exporters.tracing.evaluate import move_labels
from emergraph.exporters.tracing.join import join
from emergraph.exporters.tracing.labels import NO_UNIT, Labels, compress, units_in
from emergraph.exporters.tracing.rules.pooling import mix_positions
from emergraph.exporters.tracing.values import Track, Value, merged_tracks
from emergraph.graphstore.records import EdgeKind, TracedAs

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_BY_INDEX = {
    "Slice": (1, 2, 3, 4),
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "Compress": (1,),
    "ReverseSequence": (1,),
    "TensorScatter": (2,),
    "ScatterND": (1,),
    "ScatterElements": (1,),
    "Scatter": (1,),
}
_DATA_INPUTS = {"ScatterND": (0, 2), "ScatterElements": (0, 2), "Scatter": (0, 2), "TensorScatter": (0, 1)}
_COMBINING = {"add": EdgeKind.IDENTITY, "mul": EdgeKind.GATE, "min": EdgeKind.GATE, "max": EdgeKind.GATE}
"""What a scatter operation does with what it meets, by its attribute `reduction`."""
_PLAIN = op_names("Expand Tile Pad DepthToSpace SpaceToDepth Trilu CenterCropPad")


def label_array(value: Value) -> Labels:
    """The labels of a value; -1 everywhere for constants and control."""
    return value.labels if value.labels is not None else np.broadcast_to(np.asarray(-1), value.shape)


@rule(*_RESHAPING)
def reshape(ctx: TraceContext) -> None:
    """Same elements in another shape: the concrete run knows it."""
    value = ctx.value(ctx.node.input[0])
    labels = np.reshape(label_array(value), ctx.out_shape())
    _set_moved(ctx, [labels], value)


@rule("Transpose")
def transpose(ctx: TraceContext) -> None:
    """Axes in another order."""
    value = ctx.value(ctx.node.input[0])
    _set_moved(ctx, [np.transpose(label_array(value), ctx.attr_ints("perm"))], value)


@rule("Split")
def split(ctx: TraceContext) -> None:
    """Slices along an axis, as long as the outputs are."""
    value = ctx.value(ctx.node.input[0])
    axis = ctx.attr_int("axis", 0)
    lengths = [ctx.out_shape(k)[axis] for k in range(len(ctx.node.output))]
    _set_moved(ctx, np.split(label_array(value), np.cumsum(lengths)[:-1], axis=axis), value)


@rule("Concat")
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
    _set_moved(ctx, [np.broadcast_to(np.concatenate(parts, axis=axis), ctx.out_shape())], *values)


def constant_along_all(arrays: Sequence[Labels], axis: int) -> bool:
    """Whether an axis of several label arrays is kept as one slice in all of them."""
    return all(a.strides[axis] == 0 or a.shape[axis] <= 1 for a in arrays)


@rule(*_PLAIN, *(op for op in _BY_INDEX if op != "Gather"))
def move(ctx: TraceContext) -> None:
    """Run the operation on the labels; positions that it fills in carry no unit."""
    op = ctx.node.op_type
    data = _DATA_INPUTS.get(op, (0,))
    arrays: list[NDArray[np.generic] | None] = []
    values: list[Value] = []
    for position, name in enumerate(ctx.node.input):
        if not name:
            arrays.append(None)
        elif position in data:
            value = ctx.value(name)
            values.append(value)
            ctx.use(value.constant, "other")
            arrays.append(label_array(value))
        else:
            array = ctx.concrete(name)
            if array is None:
                ctx.make_opaque(f"{op} whose input {name} is too large to follow")
                return
            arrays.append(array)
    if not _indices_are_safe(ctx, op, values):
        ctx.make_opaque(f"{op} picks among different units by an index that depends on the data")
        return
    reduction = ctx.attr_str("reduction", "none") if len(data) > 1 else "none"
    if reduction != "none":
        arrays[0] = np.full(values[0].shape, NO_UNIT, np.int64)
    results = move_labels(ctx.node, arrays, data, ctx.model.opsets)
    if reduction != "none":
        _combine(ctx, reduction, values, results[0])
    else:
        _set_moved(ctx, results, *values)


def _combine(ctx: TraceContext, reduction: str, values: Sequence[Value], scattered: Labels) -> None:
    """A scatter that adds to (or multiplies, ...) what is there: a junction where both carry units."""
    indices = ctx.concrete(ctx.node.input[1])
    if indices is None or _writes_twice(ctx, indices):
        ctx.make_opaque(f"{ctx.op} that combines several values in one place")
        return
    updates = Value(scattered.shape, labels=scattered, tracks=values[1].tracks)
    both = [replace(values[0], labels=label_array(values[0])), updates]
    kind = _COMBINING[reduction]
    join(ctx, both, kind=kind, weights=[1.0, 1.0] if kind is EdgeKind.IDENTITY else None)


def _writes_twice(ctx: TraceContext, indices: NDArray[np.generic]) -> bool:
    if ctx.node.op_type == "ScatterND":
        places = indices.reshape(-1, indices.shape[-1])
    else:
        axis = ctx.attr_int("axis", 0) % indices.ndim
        grid = [np.asarray(g, np.int64) for g in np.indices(indices.shape)]
        grid[axis] = indices.astype(np.int64)
        places = np.stack([g.ravel() for g in grid], axis=1)
    return len(np.unique(places, axis=0)) < len(places)


def _indices_are_safe(ctx: TraceContext, op: str, values: list[Value]) -> bool:
    """Whether the choice of indices in the concrete run cannot matter: constants, or labels that agree."""
    names = [
        ctx.node.input[k] for k in _BY_INDEX.get(op, ()) if k < len(ctx.node.input) and ctx.node.input[k]
    ]
    if all(ctx.value(name).constant is not None for name in names):
        return True
    packed = [compress(label_array(v)) for v in values]
    varying = {k for p in packed for k in range(p.ndim) if p.strides[k] != 0 and p.shape[k] > 1}
    return not (varying & _indexed_axes(ctx, op, values[0]))


def _indexed_axes(ctx: TraceContext, op: str, data: Value) -> set[int]:
    rank = len(data.shape)
    if op in ("Gather", "GatherElements", "ScatterElements", "Scatter", "Compress"):
        return {ctx.attr_int("axis", 0) % max(rank, 1)}
    if op == "Slice" and len(ctx.node.input) > 3 and ctx.node.input[3]:
        axes = ctx.concrete(ctx.node.input[3])
        if axes is not None:
            return {int(a) % rank for a in np.ravel(axes)}
    if op in ("GatherND", "ScatterND"):
        batch = ctx.attr_int("batch_dims", 0)
        depth = ctx.value(ctx.node.input[1]).shape[-1]
        return set(range(batch, batch + depth))
    return set(range(rank))


def _set_moved(ctx: TraceContext, results: Sequence[Labels], *values: Value) -> None:
    tracks: dict[int, Track] = merged_tracks(list(values))
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


@rule("Shape", "Size")
def shape_of(ctx: TraceContext) -> None:
    """Shapes depend on no unit."""
    value = ctx.facts(ctx.node.output[0]).value
    ctx.set_constant(0, literal(np.asarray(value)))
    ctx.did(TracedAs.CONSTANT)


@rule(
    *op_names(
        "ArgMax ArgMin NonZero NonMaxSuppression Unique Multinomial Bernoulli RandomNormalLike "
        "RandomUniformLike EyeLike"
    )
)
def control(ctx: TraceContext) -> None:
    """Decides which or where, or depends on a shape alone."""
    for position in range(len(ctx.node.output)):
        ctx.set_control(position)
    ctx.did(TracedAs.CONTROL)


@rule("TopK")
def top_k(ctx: TraceContext) -> None:
    """The largest values along an axis depend on all of them; the indices are control."""
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        control(ctx)
        return
    mix_positions(ctx, value, [ctx.attr_int("axis", -1) % len(value.shape)], nonlinear=True)
    ctx.set_control(1)
