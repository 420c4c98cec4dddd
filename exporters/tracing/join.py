"""Element-wise operations on two or more activations: junctions, gates, and statistics that pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.operations import Kind, kind_of
from emergraph.exporters.tracing.affine import advanced
from emergraph.exporters.tracing.context import TraceContext
from emergraph.exporters.tracing.labels import (
    NO_UNIT,
    Labels,
    compress,
    distinct_tuples,
    joint_core,
    look_up,
    units_in,
)
from emergraph.exporters.tracing.positionaxes import JoinedTuples, join_tuples, shared_positions
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.values import Value, merged_tracks
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs

_SELF_GATED = {
    "Sigmoid": "Swish",
    "Erf": "Gelu",
    "Tanh": "Gelu",
    "Softplus": "Mish",
    "HardSigmoid": "HardSwish",
}


def join(
    ctx: TraceContext, values: Sequence[Value], *, kind: EdgeKind, weights: Sequence[float] | None
) -> None:
    """Set output 0 to the element-wise combination of several labelled values.

    A new structural unit stands for each distinct tuple of labels, with an edge from each of them; tuples
    that differ by position alone are one unit, with the edges of all. No unit is made where the labels agree
    (x * sigmoid(x)), where only one is left beside constants, and where one is a statistic of the other
    (x - mean(x)): there the label passes, and the statistic is a `norm` hub.

    Args:
        ctx: The trace; its current node is the operation.
        values: Two or more labelled values that broadcast to the output's shape.
        kind: Kind of the edges.
        weights: One weight per operand, or None for NULL weights.
    """
    shape = ctx.out_shape()
    spread = [np.broadcast_to(v.labels, shape) for v in values if v.labels is not None]
    tuples, which = distinct_tuples(spread)
    units, fresh = _resolve(ctx, tuples)
    labels = look_up(units, which)
    if fresh.size:
        groups = join_tuples(which, _positions(ctx, values, spread))
        found = _contributions(tuples, units, fresh, weights)
        labels = _new_junctions(ctx, groups, found, labels, kind=kind)
    tracks = merged_tracks(list(values))
    name = ctx.node.output[0]
    if fresh.size:
        for value in values:
            ctx.read(value)
        kept = set(ctx.builder.layer_ids(units_in(labels)).tolist())
        ctx.set_labels(0, labels, {k: v for k, v in tracks.items() if k in kept})
        kinds = (LayerKind.GATE, LayerKind.JUNCTION)
        made = next(layer for layer in reversed(ctx.builder.layers) if layer.kind in kinds)
        ctx.summed(made, values, factors=tuple(weights or ()))
        ctx.did(TracedAs.JOINED)
        return
    tracks = advanced(_self_gated(ctx, values, tracks), labels, name, ctx.builder)
    ctx.set_labels(0, labels, tracks)
    ctx.did(TracedAs.ELEMENTWISE)


def _self_gated(ctx: TraceContext, values: Sequence[Value], tracks: dict[int, Track]) -> dict[int, Track]:
    """Name the nonlinearity of a unit that is multiplied by a function of itself."""
    out: dict[int, Track] = {}
    for layer_id, track in tracks.items():
        branches = [v.tracks[layer_id] for v in values if layer_id in v.tracks]
        plain = next((t for t in branches if t.activation is None), None)
        bent = next((t for t in branches if t.activation is not None), None)
        if kind_of(ctx.node) is Kind.PRODUCT and len(branches) > 1:
            # The inside of the nonlinearity may be scaled and shifted; that belongs to the function, so the
            # branch that carries the unit itself is the one that goes on.
            base = plain if plain is not None else branches[0]
            inner = "Square" if bent is None else (bent.activation or "")
            name = _SELF_GATED.get(inner, inner) if plain is not None else inner
            out[layer_id] = replace(base, activation=base.activation or name, nonlinear=True)
        elif kind_of(ctx.node) is Kind.CHOICE:
            named = track.activation or ctx.node.op_type
            out[layer_id] = replace(track, activation=named, nonlinear=True)
        elif len(branches) > 1 and plain is not None:
            out[layer_id] = plain
        else:
            out[layer_id] = track
    return out


def _resolve(ctx: TraceContext, tuples: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each tuple the unit that passes (or -1), and the indices of tuples that need a new unit."""
    units = tuples[:, 0].copy()
    merged = np.ones(len(tuples), bool)
    pairs: list[NDArray[np.int64]] = []
    for column in range(1, tuples.shape[1]):
        other = tuples[:, column]
        same = (units == other) | (other < 0)
        take = units < 0
        units = np.where(take, other, units)
        open_rows = np.flatnonzero(merged & ~same & ~take)
        if open_rows.size:
            passed, hubs = _pass_statistics(ctx, units[open_rows], other[open_rows])
            pairs.append(hubs)
            units[open_rows] = np.where(passed >= 0, passed, units[open_rows])
            merged[open_rows] = passed >= 0
    fresh = np.flatnonzero(~merged)
    if pairs:
        ctx.builder.norm_edges(ctx.name, ctx.op, np.concatenate(pairs))
    return units, fresh


def _pass_statistics(
    ctx: TraceContext, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where one label is a statistic of the other, the other one passes.

    Returns:
        The passing label or -1 per row, and the (hub, unit) pairs of the statistics that were met.
    """
    passed = np.full(left.shape, -1, np.int64)
    hubs: list[tuple[int, int]] = []
    reductions = ctx.builder.reductions
    if reductions:
        is_statistic = [np.isin(ctx.builder.layer_ids(x), list(reductions)) for x in (left, right)]
        for row in np.flatnonzero(is_statistic[0] | is_statistic[1]):
            a, b = int(left[row]), int(right[row])
            behind_a, behind_b = ctx.builder.members(a), ctx.builder.members(b)
            if _covers(behind_b, a, behind_a):
                passed[row] = a
                hubs.append((b, a))
            elif _covers(behind_a, b, behind_b):
                passed[row] = b
                hubs.append((a, b))
    return passed, np.asarray(hubs, np.int64).reshape(-1, 2)


def _covers(members: NDArray[np.int64] | None, unit: int, behind: NDArray[np.int64] | None) -> bool:
    """Whether a statistic (its members) is one of `unit` itself, or of all that `unit` reduces."""
    if members is None:
        return False
    if behind is not None and behind.size <= members.size and bool(np.isin(behind, members).all()):
        return True
    position = int(np.searchsorted(members, unit))
    return position < members.size and int(members[position]) == unit


def _positions(ctx: TraceContext, values: Sequence[Value], spread: Sequence[Labels]) -> tuple[int, ...]:
    """Axes of the output along which it shows one unit, whatever the operands carry there."""
    rank = spread[0].ndim
    sizes = [(1,) * (rank - len(v.shape)) + v.shape for v in values if v.labels is not None]
    above = [set(ctx.builder.layer_ids(units_in(s)).tolist()) for s in spread]
    scores = [bool(layers) and layers <= ctx.builder.scores for layers in above]
    packed = [compress(s) for s in spread]
    return shared_positions(packed, sizes, range(rank), ctx.builder.families, scores=scores)


@dataclass(frozen=True)
class _Contributions:
    """What the tuples of labels contribute to junctions."""

    fresh: NDArray[np.bool_]
    """(tuples,) whether no label passes."""
    labels: Labels
    """(tuples, operands); -1 where an operand contributes nothing."""
    weights: NDArray[np.float32] | None


def _contributions(
    tuples: Labels, units: NDArray[np.int64], fresh: NDArray[np.int64], weights: Sequence[float] | None
) -> _Contributions:
    is_fresh = np.zeros(len(tuples), bool)
    is_fresh[fresh] = True
    # Where one label passes, it alone contributes, and not the statistic beside it.
    labels = np.where(is_fresh[:, None] | (tuples == units[:, None]), tuples, NO_UNIT)
    # A label that stands twice in a tuple (x + y + x) is one edge with the summed weight.
    totals = None
    if weights is not None:
        spread = np.broadcast_to(np.asarray(weights, np.float32), labels.shape)
        columns = range(labels.shape[1])
        totals = np.stack(
            [np.where(labels == labels[:, [c]], spread, 0).sum(axis=1) for c in columns], axis=1
        )
    for column in range(1, labels.shape[1]):
        labels[(labels[:, :column] == labels[:, [column]]).any(axis=1), column] = NO_UNIT
    return _Contributions(is_fresh, labels, None if totals is None else totals.astype(np.float32))


def _new_junctions(
    ctx: TraceContext, groups: JoinedTuples, found: _Contributions, labels: Labels, *, kind: EdgeKind
) -> Labels:
    """A unit for each group with a fresh tuple; returns `labels` with these units in the groups' elements."""
    made = np.zeros(int(groups.group_of.max()) + 1, bool)
    made[groups.group_of[found.fresh[groups.tuple_of]]] = True
    layer_kind = LayerKind.GATE if kind is EdgeKind.GATE else LayerKind.JUNCTION
    layer = ctx.builder.add_layer(ctx.name, ctx.op, layer_kind, int(made.sum()))
    unit_of = np.full(made.size, NO_UNIT, np.int64)
    unit_of[made] = layer.units
    src = found.labels[groups.tuple_of]
    dst = np.broadcast_to(unit_of[groups.group_of][:, None], src.shape)
    keep = (src >= 0) & (dst >= 0)
    pairs, first = np.unique(np.stack([dst[keep], src[keep]], axis=1), axis=0, return_index=True)
    weight = None if found.weights is None else found.weights[groups.tuple_of][keep][first]
    ctx.builder.edges(
        layer, name=ctx.name, op=ctx.op, kind=kind, src=pairs[:, 1], dst=pairs[:, 0], weight=weight
    )
    joined = unit_of[groups.which]
    if made.all():
        return np.broadcast_to(joined, labels.shape)
    parts = joint_core([compress(labels), np.broadcast_to(joined, labels.shape)])
    kept, new = (np.asarray(part, np.int64) for part in parts)
    return np.broadcast_to(np.where(new >= 0, new, kept), labels.shape)
