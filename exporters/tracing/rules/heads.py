"""Fused attention operations: scores and context features per head, as if they were written out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.operations import MICROSOFT, Kind
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.dispatch import expand
from emergraph.exporters.tracing.labels import Labels, compress, distinct_sets, distinct_tuples, units_in
from emergraph.exporters.tracing.rules.fused import dense_nodes
from emergraph.exporters.tracing.rules.movement import label_array
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs

Sets = list[NDArray[np.int64]]


@dataclass(frozen=True)
class Heads:
    """Label sets of queries, keys or values."""

    whole: Sets
    """Per head: all labels of its features."""
    features: list[Sets]
    """Per head and feature: the labels over all positions."""


def heads_of(labels: Labels) -> Heads:
    """Label sets of an array (batch, positions, heads, features)."""
    packed = compress(labels)
    n_heads, width = labels.shape[2], labels.shape[3]
    index = tuple(
        slice(0, 1) if packed.strides[k] == 0 and packed.shape[k] > 1 else slice(None) for k in (0, 1)
    )
    inner = np.ascontiguousarray(np.moveaxis(packed[index], (2, 3), (0, 1))).reshape(n_heads * width, -1)
    sets, which = distinct_sets(inner)
    features = [[sets[int(which[h * width + f])] for f in range(width)] for h in range(n_heads)]
    whole = [np.unique(np.concatenate(f)) if f else np.empty(0, np.int64) for f in features]
    return Heads(whole, features)


def joined(parts: Sequence[Heads]) -> Heads:
    """Heads of positions that stand one after the other (a cache and what is new)."""
    if len(parts) == 1:
        return parts[0]
    n_heads = len(parts[0].whole)
    whole = [np.unique(np.concatenate([p.whole[h] for p in parts])) for h in range(n_heads)]
    features = [
        [
            np.unique(np.concatenate([p.features[h][f] for p in parts]))
            for f in range(len(parts[0].features[h]))
        ]
        for h in range(n_heads)
    ]
    return Heads(whole, features)


def attend(ctx: TraceContext, q: Heads, k: Heads, v: Heads, *, masks: Sequence[Value | None] = ()) -> Labels:
    """Score units per head, context units per head and feature; heads of k and v repeat in groups.

    Returns:
        (heads, features) labels of the context.
    """
    n_heads = len(q.whole)
    group = max(1, n_heads // max(len(k.whole), 1))
    extra = [units_in(m.labels) for m in masks if m is not None and m.labels is not None]
    for mask in masks:
        if mask is not None:
            ctx.use(mask.constant, "mask")
    scores = ctx.builder.add_layer(f"{ctx.name}:scores", ctx.op, LayerKind.SCORE, n_heads)
    sources = [np.unique(np.concatenate([q.whole[h], k.whole[h // group], *extra])) for h in range(n_heads)]
    attention_edges(ctx, scores.id, sources, scores.units)
    width = len(v.features[0]) if v.features else 0
    context = ctx.builder.add_layer(ctx.name, ctx.op, LayerKind.CONTEXT, n_heads * width)
    grid = context.units.reshape(n_heads, width)
    fed = [
        np.unique(np.append(v.features[h // group][f], scores.first + h))
        for h in range(n_heads)
        for f in range(width)
    ]
    attention_edges(ctx, context.id, fed, grid.ravel())
    ctx.did(TracedAs.ATTENDED)
    return grid


def attention_edges(ctx: TraceContext, layer: int, sources: Sets, targets: NDArray[np.int64]) -> None:
    """`attention` edges from the units of each set to one target."""
    sizes = np.asarray([s.size for s in sources], np.int64)
    src = np.concatenate(sources) if sources else np.empty(0, np.int64)
    ctx.builder.edges(
        ctx.builder.layers[layer],
        name=ctx.name,
        op=ctx.op,
        kind=EdgeKind.ATTENTION,
        src=src,
        dst=np.repeat(targets, sizes),
    )


def split_heads(value: Value, n_heads: int) -> Labels:
    """(B, T, H, D) labels of a (B, T, H * D) or (B, H, T, D) tensor."""
    labels = label_array(value)
    if labels.ndim == 4:
        return np.swapaxes(labels, 1, 2)
    batch, positions, width = labels.shape
    return labels.reshape(batch, positions, n_heads, width // n_heads)


def set_context(ctx: TraceContext, grid: Labels, *, heads_first: bool) -> None:
    """Output 0 carries the context units (heads, features): (B, H, T, D) or (B, T, H * D)."""
    shape = ctx.out_shape()
    layer = ctx.builder.layers[int(ctx.builder.layer_ids(grid.ravel()[:1])[0])]
    labels = grid[None, :, None, :] if heads_first else grid.reshape(1, 1, -1)
    ctx.new_layer_output(0, layer, np.broadcast_to(labels, shape))


def _set_cache(ctx: TraceContext, position: int, past: Value | None, new: Value, n_heads: int) -> None:
    """Present = concat(past, new) along positions, shape (B, H, P + T, D)."""
    if position >= len(ctx.node.output) or not ctx.node.output[position]:
        return
    shape = ctx.out_shape(position)
    fresh = np.swapaxes(split_heads(new, n_heads), 1, 2)
    parts = [label_array(past)] if past is not None and past.shape[2] else []
    labels = np.concatenate([*parts, fresh], axis=2)
    if labels.shape != shape:
        # A preallocated cache of fixed length: every slot may hold either.
        labels = np.broadcast_to(fresh[:, :, :1], shape)
    ctx.set_labels(position, labels, new.tracks)


def read_all(ctx: TraceContext, values: Sequence[Value | None]) -> None:
    """Note that the operation reads these tensors."""
    for value in values:
        if value is not None and value.labels is not None:
            ctx.read(value)


def _with_past(value: Labels, past: Value | None) -> Heads:
    parts = [heads_of(value)]
    if past is not None and past.labels is not None and past.shape[2]:
        parts.append(heads_of(np.swapaxes(past.labels, 1, 2)))
    return joined(parts)


@rule("Attention")
def attention(ctx: TraceContext) -> None:
    """Scaled dot-product attention of opset 23: (Q, K, V, mask, past_key, past_value)."""
    q, k, v = (ctx.value(ctx.node.input[i]) for i in range(3))
    mask, past_k, past_v = ctx.input(3), ctx.input(4), ctx.input(5)
    four = len(q.shape) == 4
    n_q = q.shape[1] if four else ctx.attr_int("q_num_heads", 1)
    n_kv = k.shape[1] if four else ctx.attr_int("kv_num_heads", n_q)
    read_all(ctx, (q, k, v, past_k, past_v, mask))
    grid = attend(
        ctx,
        heads_of(split_heads(q, n_q)),
        _with_past(split_heads(k, n_kv), past_k),
        _with_past(split_heads(v, n_kv), past_v),
        masks=[mask],
    )
    set_context(ctx, grid, heads_first=four)
    scores, context = ctx.builder.layers[-2:]
    extra = [given for k in (3, 4, 5, 6) if (given := ctx.input(k)) is not None]
    if all(given is mask and given.labels is None for given in extra):
        ctx.summed(scores, (q, k, v, *extra), layers=(scores.id, context.id))
    _set_cache(ctx, 1, past_k, k, n_kv)
    _set_cache(ctx, 2, past_v, v, n_kv)
    ctx.set_control(3)


@rule("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(ctx: TraceContext) -> None:
    """Grouped-query attention with a cache; q, k, v packed in one tensor when key and value are omitted."""
    n_q, n_kv = ctx.attr_int("num_heads", 1), ctx.attr_int("kv_num_heads", 1)
    q, k, v = ctx.value(ctx.node.input[0]), ctx.input(1), ctx.input(2)
    past_k, past_v = ctx.input(3), ctx.input(4)
    read_all(ctx, (q, k, v, past_k, past_v))
    if k is None or v is None:
        width = q.shape[2] // (n_q + 2 * n_kv)
        labels = label_array(q)
        cuts = np.cumsum([n_q * width, n_kv * width])
        parts = np.split(labels, cuts, axis=2)
        shapes = [p.shape for p in parts]
        q, k, v = (Value(s, labels=p, tracks=q.tracks) for s, p in zip(shapes, parts, strict=True))
    for position in range(5, len(ctx.node.input)):
        given = ctx.input(position)
        ctx.use(None if given is None else given.constant, "other")
    if ctx.attr_int("do_rotary", 0):
        q, k = (_rotated_by_cache(ctx, x, n, part) for x, n, part in ((q, n_q, "query"), (k, n_kv, "key")))
    grid = attend(
        ctx,
        heads_of(split_heads(q, n_q)),
        _with_past(split_heads(k, n_kv), past_k),
        _with_past(split_heads(v, n_kv), past_v),
    )
    set_context(ctx, grid, heads_first=False)
    _set_cache(ctx, 1, past_k, k, n_kv)
    _set_cache(ctx, 2, past_v, v, n_kv)


def _rotated_by_cache(ctx: TraceContext, value: Value, n_heads: int, part: str) -> Value:
    """Queries or keys after the rotation that the operation does itself; cached keys have been rotated."""
    cosines = ctx.input(7)
    labels = _rotate(
        ctx,
        split_heads(value, n_heads),
        f"{ctx.name}:{part}",
        interleaved=bool(ctx.attr_int("rotary_interleaved", 0)),
        rotated=0 if cosines is None else 2 * cosines.shape[-1],
    )
    return Value(value.shape, labels=labels.reshape(value.shape))


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(ctx: TraceContext) -> None:
    """(query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value, ...)."""
    n = ctx.attr_int("num_heads", 1)
    query, key, value = ctx.value(ctx.node.input[0]), ctx.input(1), ctx.input(2)
    past_k, past_v = ctx.input(6), ctx.input(7)
    bias = ctx.input(3)
    ctx.use(None if bias is None else bias.constant, "bias")
    read_all(ctx, (query, key, value, past_k, past_v))
    if len(query.shape) == 5:  # packed (B, T, H, 3, D)
        labels = label_array(query)
        q, k, v = (labels[:, :, :, part] for part in range(3))
    else:
        q = split_heads(query, n)
        if key is not None and len(key.shape) == 5:  # packed (B, T, H, 2, D)
            k, v = (label_array(key)[:, :, :, part] for part in range(2))
        elif key is None or value is None:
            ctx.make_opaque("MultiHeadAttention with a layout of its inputs that is not known")
            return
        else:
            k, v = split_heads(key, n), split_heads(value, n)
    grid = attend(
        ctx, heads_of(q), _with_past(k, past_k), _with_past(v, past_v), masks=[ctx.input(4), ctx.input(5)]
    )
    set_context(ctx, grid, heads_first=False)
    for position, past, new in ((1, past_k, k), (2, past_v, v)):
        fresh = Value(np.swapaxes(new, 1, 2).shape, labels=np.swapaxes(new, 1, 2))
        _set_cache(ctx, position, past, fresh, n)


@rule("Attention", domain=MICROSOFT)
def packed_attention(ctx: TraceContext) -> None:
    """Projection by packed weights (I, q|k|v), then attention: (input, weights, bias, mask, past, ...)."""
    n = ctx.attr_int("num_heads", 1)
    weight = ctx.value(ctx.node.input[1])
    if weight.constant is None or ctx.input(4) is not None:
        ctx.make_opaque("Attention whose weights depend on activations, or with a packed cache")
        return
    widths = ctx.attr_ints("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3
    inner = ctx.node.output[0]
    shape = (*ctx.value(ctx.node.input[0]).shape[:2], weight.shape[1])
    product = f"{inner}:qkv"
    nodes = dense_nodes(ctx.node.input[:3], f"{inner}:product", product)
    expand(ctx, nodes, {node.output[0]: shape for node in nodes})
    packed = ctx.values[product]
    read_all(ctx, [packed])
    parts = np.split(label_array(packed), np.cumsum(widths)[:2], axis=2)
    q, k, v = (heads_of(p.reshape(*p.shape[:2], n, p.shape[2] // n)) for p in parts)
    grid = attend(ctx, q, k, v, masks=[ctx.input(3), ctx.input(5)])
    set_context(ctx, grid, heads_first=False)
    ctx.did(TracedAs.CONTRACTED, "as MatMul, Add, attention")


def _rotate(ctx: TraceContext, labels: Labels, name: str, *, interleaved: bool, rotated: int) -> Labels:
    """x_d cos - x_d' sin: a junction of each feature with its partner; unrotated features pass.

    Returns:
        Labels (B, T, H, D) after it.
    """
    width = labels.shape[3]
    half = (rotated or width) // 2
    partner = np.arange(width)
    if interleaved:
        partner[: 2 * half] = partner[: 2 * half].reshape(-1, 2)[:, ::-1].ravel()
    else:
        partner[: 2 * half] = np.concatenate([np.arange(half, 2 * half), np.arange(half)])
    tuples, which = distinct_tuples([labels, labels[..., partner]])
    units = tuples[:, 0].copy()
    fresh = np.flatnonzero((tuples[:, 0] != tuples[:, 1]) & (tuples >= 0).all(axis=1))
    layer = ctx.builder.add_layer(name, ctx.op, LayerKind.JUNCTION, fresh.size)
    ctx.builder.edges(
        layer,
        name=name,
        op=ctx.op,
        kind=EdgeKind.IDENTITY,
        src=tuples[fresh].ravel(),
        dst=np.repeat(layer.units, 2),
        note="rotary",
    )
    units[fresh] = layer.units
    return compress(units[which])


@rule(Kind.ROTARY)
def rotary_embedding(ctx: TraceContext) -> None:
    """Each feature is joined with its partner; the angles (cos, sin, position_ids) are control."""
    value = ctx.value(ctx.node.input[0])
    for given in ctx.inputs()[1:]:
        ctx.use(given.constant, "other")
    rotated = ctx.attr_int("rotary_embedding_dim", 0)
    n_heads = value.shape[1] if len(value.shape) == 4 else ctx.attr_int("num_heads", 0)
    if value.labels is None or n_heads == 0:
        ctx.make_opaque("RotaryEmbedding without a number of heads")
        return
    ctx.read(value)
    interleaved = bool(ctx.attr_int("interleaved", 0))
    out = _rotate(ctx, split_heads(value, n_heads), ctx.name, interleaved=interleaved, rotated=rotated)
    ctx.set_labels(0, np.swapaxes(out, 1, 2) if len(value.shape) == 4 else out.reshape(value.shape), {})
    ctx.did(TracedAs.JOINED)


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
