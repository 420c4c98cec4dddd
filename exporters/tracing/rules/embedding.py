"""Embedding tables: one source unit per table, one neuron per feature; the rows are kept raw."""

from dataclasses import replace

import numpy as np

from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.rules.movement import move
from emergraph.exporters.tracing.weights import kernel_matrix, main_root, write_block
from emergraph.graphstore.records import LayerKind, TracedAs


@rule("Gather", "GatherElements", "GatherND")
def gather(ctx: TraceContext) -> None:
    """A look-up in a constant table by data-dependent indices, else plain data movement."""
    data, indices = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    if data.constant is None or indices.constant is not None:
        move(ctx)
    elif not data.constant.roots:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
    elif ctx.node.op_type == "GatherElements":
        _embed_elements(ctx, data.constant, indices.shape)
    elif ctx.node.op_type == "Gather":
        axis = ctx.attr_int("axis", 0) % max(len(data.shape), 1)
        embed(ctx, data.constant, axis=axis, rank_before=axis, index_rank=len(indices.shape))
    else:
        _embed_entries(ctx, data.constant, indices.shape)


def _embed_entries(ctx: TraceContext, table: Constant, index: tuple[int, ...]) -> None:
    """Tuples of indices are rows of a table with one row for each."""
    batch = ctx.attr_int("batch_dims", 0)
    shape = (*table.shape[:batch], -1, *table.shape[batch + index[-1] :])
    rows = replace(table, shape=table.load().reshape(shape).shape, load=lambda: table.load().reshape(shape))
    by_row = replace(rows, permutation=None, unmoved=None)
    embed(ctx, by_row, axis=batch, rank_before=batch, index_rank=len(index) - 1 - batch)


def _embed_elements(ctx: TraceContext, table: Constant, index: tuple[int, ...]) -> None:
    """Along one axis the index picks; along the others it covers the table or a part of it."""
    axis = ctx.attr_int("axis", 0) % len(index)
    layer = _table_features(ctx, table, axis)
    others = [1 if k == axis else n for k, n in enumerate(table.shape)]
    covered = tuple(slice(0, n) if k != axis else slice(None) for k, n in enumerate(index))
    ctx.new_layer_output(0, layer, np.broadcast_to(layer.units.reshape(others)[covered], index))
    ctx.did(TracedAs.EMBEDDED)


def embed(ctx: TraceContext, table: Constant, *, axis: int, rank_before: int, index_rank: int) -> None:
    """Output 0 (before..., index..., after...) as features of an embedding table looked up along `axis`."""
    layer = _table_features(ctx, table, axis)
    features_shape = [n for k, n in enumerate(table.shape) if k != axis]
    before, after = features_shape[:rank_before], features_shape[rank_before:]
    labels = layer.units.reshape([*before, *[1] * index_rank, *after])
    ctx.new_layer_output(0, layer, np.broadcast_to(labels, ctx.out_shape()))
    ctx.did(TracedAs.EMBEDDED)


def _table_features(ctx: TraceContext, table: Constant, axis: int) -> LayerDraft:
    """A layer with a unit for each feature of a table that is looked up along an axis."""
    ctx.use(table, "embedding")
    values = np.moveaxis(table.floats(), axis, -1)
    n_features = int(np.prod(values.shape[:-1], dtype=np.int64))
    name = ctx.layer_name(main_root(table, ctx))
    source = ctx.builder.add_layer(f"{name}:table", ctx.op, LayerKind.EMBEDDING, 1)
    layer = ctx.builder.add_layer(name, ctx.op, LayerKind.DENSE, n_features)
    ctx.count_params(layer, table)
    matrix = kernel_matrix(values.reshape(1, n_features, -1), taps=1)
    write_block(ctx, layer, source.units, layer.units, matrix, tensor=main_root(table, ctx), note="embedding")
    return layer
