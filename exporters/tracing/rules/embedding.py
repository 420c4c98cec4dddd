"""Embedding tables: one source unit per table, one neuron per feature; the rows are kept raw."""

import numpy as np

from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.rules.movement import move
from emergraph.exporters.tracing.weights import kernel_matrix, main_root, write_block
from emergraph.graphstore.records import LayerKind, TracedAs


@rule("Gather")
def gather(ctx: TraceContext) -> None:
    """A look-up in a constant table by data-dependent indices, else plain data movement."""
    data, indices = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    if data.constant is None or indices.constant is not None:
        move(ctx)
        return
    axis = ctx.attr_int("axis", 0) % max(len(data.shape), 1)
    if not data.constant.roots:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    embed(ctx, data.constant, axis=axis, rank_before=axis, index_rank=len(indices.shape))


def embed(ctx: TraceContext, table: Constant, *, axis: int, rank_before: int, index_rank: int) -> None:
    """Output 0 (before..., index..., after...) as features of an embedding table looked up along `axis`."""
    ctx.use(table, "embedding")
    values = np.moveaxis(table.floats(), axis, -1)
    features_shape = values.shape[:-1]
    n_features = int(np.prod(features_shape, dtype=np.int64))
    name = ctx.layer_name(main_root(table, ctx))
    source = ctx.builder.add_layer(f"{name}:table", ctx.op, LayerKind.EMBEDDING, 1)
    layer = ctx.builder.add_layer(name, ctx.op, LayerKind.DENSE, n_features)
    ctx.count_params(layer, table)
    matrix = kernel_matrix(values.reshape(1, n_features, -1), taps=1)
    write_block(ctx, layer, source.units, layer.units, matrix, tensor=main_root(table, ctx), note="embedding")
    before, after = features_shape[:rank_before], features_shape[rank_before:]
    labels = layer.units.reshape([*before, *[1] * index_rank, *after])
    ctx.new_layer_output(0, layer, np.broadcast_to(labels, ctx.out_shape()))
    ctx.did(TracedAs.EMBEDDED)
