"""Embedding tables: one source unit per table, one neuron per feature; the rows are kept raw.

Rows that are matrices are weights that the data chooses, as long as a contraction alone reads them.
"""

from math import prod

import numpy as np

from emergraph.exporters.operations import Kind, kind_of
from emergraph.exporters.tracing.banks import table_features
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import look_up
from emergraph.exporters.tracing.rules.movement import move
from emergraph.exporters.tracing.values import Bank, Value
from emergraph.graphstore.records import TracedAs


@rule(Kind.GATHER, Kind.PICK)
def gather(ctx: TraceContext) -> None:
    """A look-up in a constant table by the data, of features or of matrices; else plain data movement."""
    data, indices = ctx.value(ctx.node.input[0]), ctx.value(ctx.node.input[1])
    if data.constant is None or indices.constant is not None:
        move(ctx)
    elif not data.constant.roots:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
    elif ctx.node.op_type == "GatherElements":
        _embed_elements(ctx, data.constant, indices.shape)
    elif kind_of(ctx.node) is Kind.GATHER:
        axis = ctx.attr_int("axis", 0) % max(len(data.shape), 1)
        embed(ctx, data.constant, axis=axis, rank_before=axis, index_rank=len(indices.shape))
    else:
        _embed_entries(ctx, data.constant, indices.shape)


def _embed_entries(ctx: TraceContext, table: Constant, index: tuple[int, ...]) -> None:
    """Tuples of indices are rows of a table with one row for each."""
    batch = ctx.attr_int("batch_dims", 0)
    shape = (*table.shape[:batch], -1, *table.shape[batch + index[-1] :])
    whole = table.load().reshape(shape).shape
    by_row = table.changed(lambda: table.load().reshape(shape), shape=whole, unmoved=None)
    embed(ctx, by_row, axis=batch, rank_before=batch, index_rank=len(index) - 1 - batch)


def _embed_elements(ctx: TraceContext, table: Constant, index: tuple[int, ...]) -> None:
    """Along one axis the index picks; along the others it covers the table or a part of it."""
    axis = ctx.attr_int("axis", 0) % len(index)
    layer = table_features(ctx, table, axis)
    others = [1 if k == axis else n for k, n in enumerate(table.shape)]
    covered = tuple(slice(0, n) if k != axis else slice(None) for k, n in enumerate(index))
    ctx.new_layer_output(0, layer, np.broadcast_to(layer.units.reshape(others)[covered], index))
    ctx.looked_up(layer)
    ctx.did(TracedAs.EMBEDDED)


def embed(ctx: TraceContext, table: Constant, *, axis: int, rank_before: int, index_rank: int) -> None:
    """Output 0 (before..., index..., after...) as features of an embedding table looked up along `axis`."""
    features_shape = [n for k, n in enumerate(table.shape) if k != axis]
    before, after = features_shape[:rank_before], features_shape[rank_before:]
    numbers = np.arange(prod(features_shape)).reshape([*before, *[1] * index_rank, *after])
    feature = np.broadcast_to(numbers, ctx.out_shape())
    if len(features_shape) > 1:
        ctx.set(0, Value(feature.shape, bank=Bank(table, axis, feature)))
    else:
        layer = table_features(ctx, table, axis)
        ctx.new_layer_output(0, layer, look_up(layer.units, feature))
        ctx.looked_up(layer)
    ctx.did(TracedAs.EMBEDDED)
