"""Contractions of two activations: attention scores, context features, gram matrices."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.context import TraceContext
from emergraph.exporters.tracing.contraction_axes import Letters
from emergraph.exporters.tracing.labels import (
    NO_UNIT,
    Labels,
    compress,
    distinct_sets,
    distinct_tuples,
    look_up,
)
from emergraph.exporters.tracing.positionaxes import close_gaps, free_positions, shared_positions
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs


def contract_activations(ctx: TraceContext, left: Value, right: Value, x: str, y: str, out: str) -> None:
    """One structural unit per distinct pair (set of labels in the row, set of labels in the column).

    Heads, their scores and their context features fall out of the labels; nothing is matched by pattern.
    """
    ctx.read(left)
    ctx.read(right)
    shape = ctx.out_shape()
    mixed = _positions(ctx, left, right, x, y, out)
    sets_x, which_x = _operand_sets(left, x, out, shape, mixed)
    sets_y, which_y = _operand_sets(right, y, out, shape, mixed)
    pairs, which = distinct_tuples([which_x, which_y])
    alive = np.asarray([sets_x[a].size + sets_y[b].size > 0 for a, b in pairs.tolist()], bool)
    pairs = pairs[alive]
    kind = LayerKind.CONTEXT if _reads_scores(ctx, sets_x) or _reads_scores(ctx, sets_y) else LayerKind.SCORE
    suffix = ":scores" if kind is LayerKind.SCORE else ""
    layer = ctx.builder.add_layer(f"{ctx.name}{suffix}", ctx.op, kind, len(pairs))
    for column, sets in enumerate((sets_x, sets_y)):
        if _layers_of(ctx, sets) & ctx.builder.learned_scores:
            layer.queries = pairs[:, column]
    write_attention(
        ctx, layer.units, [sets_x[int(a)] for a in pairs[:, 0]], [sets_y[int(b)] for b in pairs[:, 1]]
    )
    table = np.full(alive.size, NO_UNIT, np.int64)
    table[alive] = layer.units
    ctx.new_layer_output(0, layer, compress(look_up(table, which)))
    # What scores weigh is given the whole product; of two factors of one kind each is given half.
    weighing = [_reads_scores(ctx, sets) for sets in (sets_x, sets_y)]
    shares = tuple(0.0 if own else 1.0 for own in weighing) if weighing[0] != weighing[1] else (0.5, 0.5)
    ctx.summed(layer, (left, right), letters=Letters(x, y, out), factors=shares)
    ctx.did(TracedAs.ATTENDED)


def write_attention(
    ctx: TraceContext,
    units: NDArray[np.int64],
    rows: list[NDArray[np.int64]],
    columns: list[NDArray[np.int64]],
) -> None:
    """Attention edges from both label sets of every unit."""
    members = [np.union1d(a, b) for a, b in zip(rows, columns, strict=True)]
    sizes = np.asarray([m.size for m in members], np.int64)
    src = np.concatenate(members) if members else np.empty(0, np.int64)
    if not units.size:
        return
    layer = ctx.builder.layers[int(ctx.builder.layer_ids(units[:1])[0])]
    ctx.builder.edges(
        layer, name=ctx.name, op=ctx.op, kind=EdgeKind.ATTENTION, src=src, dst=np.repeat(units, sizes)
    )


def _reads_scores(ctx: TraceContext, sets: list[NDArray[np.int64]]) -> bool:
    return not ctx.builder.scores.isdisjoint(_layers_of(ctx, sets))


def _layers_of(ctx: TraceContext, sets: list[NDArray[np.int64]]) -> set[int]:
    return {layer.id for s in sets if s.size for layer in ctx.builder.layers_of(s)}


def _positions(ctx: TraceContext, left: Value, right: Value, x: str, y: str, out: str) -> set[str]:
    """Axes of the output, by letter, along which positions do not tell units apart."""
    families = ctx.builder.families
    found: set[str] = set()
    for value, own, other in ((left, x, y), (right, y, x)):
        free = [k for k, c in enumerate(own) if c in out and c not in other]
        chosen = free_positions(compress(value.carried), free, families, by_weight=False)
        found.update(own[k] for k in chosen)
    batch = [c for c in x if c in y and c in out]
    if batch:
        sizes = [[v.shape[own.index(c)] for c in batch] for v, own in ((left, x), (right, y))]
        shape = [max(pair) for pair in zip(*sizes, strict=True)]
        aligned = []
        for value, own in ((left, x), (right, y)):
            rest = [k for k, c in enumerate(own) if c not in batch]
            moved = value.carried.transpose([*(own.index(c) for c in batch), *rest])
            aligned.append(compress(np.broadcast_to(moved, (*shape, *moved.shape[len(batch) :]))))
        found.update(batch[k] for k in shared_positions(aligned, sizes, range(len(batch)), families))
    return found


def _operand_sets(
    value: Value, own: str, out: str, out_shape: tuple[int, ...], mixed: set[str]
) -> tuple[list[NDArray[np.int64]], Labels]:
    """Distinct label sets along an operand's summed axes, and which one each output element sees.

    Args:
        value: The operand.
        own: Letters of its axes.
        out: Letters of the output.
        out_shape: Its shape.
        mixed: Axes of positions, which take part in the sets.
    """
    labels = compress(close_gaps(compress(value.carried), [k for k, c in enumerate(own) if c in mixed]))
    sizes = dict(zip(out, out_shape, strict=True))
    kept = [
        c
        for c in own
        if c in out and c not in mixed and not (value.shape[own.index(c)] == 1 and sizes[c] > 1)
    ]
    rest = [c for c in own if c not in kept]
    moved = labels.transpose([own.index(c) for c in [*kept, *rest]])
    index = tuple(
        slice(0, 1) if moved.strides[k] == 0 and moved.shape[k] > 1 else slice(None)
        for k in range(moved.ndim)
    )
    inner = moved[index]
    n_rows = prod(inner.shape[: len(kept)])
    sets, which = distinct_sets(np.ascontiguousarray(inner).reshape(n_rows, -1))
    small = which.reshape(inner.shape[: len(kept)])
    spread_shape = [small.shape[kept.index(c)] if c in kept else 1 for c in out]
    order = sorted(range(len(kept)), key=lambda k: out.index(kept[k]))
    placed = small.transpose(order).reshape(spread_shape)
    return sets, np.broadcast_to(placed, out_shape)
