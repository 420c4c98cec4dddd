"""Linear attention: heads whose keys and values are kept as one running matrix."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.operations import MICROSOFT
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import Labels, units_in
from emergraph.exporters.tracing.rules.heads import (
    Heads,
    attend,
    attention_edges,
    heads_of,
    read_all,
    set_context,
    split_heads,
)
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import LayerKind

Sets = list[NDArray[np.int64]]


@rule("LinearAttention")
@rule("LinearAttention", domain=MICROSOFT)
def linear_attention(ctx: TraceContext) -> None:
    """(query, key, value, past_state, decay, beta); the state after is one unit per value feature."""
    n_q, n_kv = ctx.attr_int("q_num_heads", 1), ctx.attr_int("kv_num_heads", 1)
    q, k, v = (ctx.value(ctx.node.input[i]) for i in range(3))
    past, decay, beta = ctx.input(3), ctx.input(4), ctx.input(5)
    read_all(ctx, (q, k, v, past, decay, beta))
    for given in (past, decay, beta):
        ctx.use(None if given is None else given.constant, "other")
    steering = [_per_head(g, n_kv) for g in (decay, beta) if g is not None and g.labels is not None]
    keys = heads_of(split_heads(k, n_kv))
    keys = replace(
        keys,
        whole=[np.unique(np.concatenate([s, *(g[h] for g in steering)])) for h, s in enumerate(keys.whole)],
    )
    values = _with_state(heads_of(split_heads(v, n_kv)), past)
    grid = attend(ctx, heads_of(split_heads(q, n_q)), keys, values)
    set_context(ctx, grid, heads_first=False)
    _set_state(ctx, keys, values)


def _per_head(value: Value, n_heads: int) -> Sets:
    """Units of a gate (B, T, heads), (B, T, heads * width) or (B, T, 1), per head."""
    labels = value.carried
    if labels.shape[2] % n_heads:
        return [units_in(labels)] * n_heads
    return [units_in(part) for part in np.split(labels, n_heads, axis=2)]


def _with_state(values: Heads, past: Value | None) -> Heads:
    """Features of values joined with the columns of a given state (B, heads, keys, features)."""
    if past is None or past.labels is None:
        return values
    state: Labels = past.labels
    features = [
        [np.union1d(own, units_in(state[:, h, :, f])) for f, own in enumerate(columns)]
        for h, columns in enumerate(values.features)
    ]
    return Heads([np.unique(np.concatenate(f)) for f in features], features)


def _set_state(ctx: TraceContext, keys: Heads, values: Heads) -> None:
    if len(ctx.node.output) < 2 or not ctx.node.output[1]:
        return
    shape = ctx.out_shape(1)
    layer = ctx.builder.add_layer(f"{ctx.name}:state", ctx.op, LayerKind.CONTEXT, shape[1] * shape[3])
    grid = layer.units.reshape(shape[1], shape[3])
    fed = [np.union1d(keys.whole[h], values.features[h][f]) for h in range(shape[1]) for f in range(shape[3])]
    attention_edges(ctx, layer.id, fed, grid.ravel())
    ctx.new_layer_output(1, layer, np.broadcast_to(grid[None, :, None, :], shape))
