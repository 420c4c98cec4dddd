"""Matrices that the data chooses: routed experts, whose weights a file keeps in one tensor.

A contraction of an activation with a chosen matrix is a dense layer whose weights are any of the matrices:
one unit per output, and an edge stands for the weights that it has in all of them, as an edge of a
convolution stands for its taps. Which one is chosen is control. Whatever else reads a chosen matrix sees
units, one for each of its numbers.
"""

from dataclasses import replace
from string import ascii_letters

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.operations import COPYING, DENSE, KEEPING, Kind, kind_of
from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext
from emergraph.exporters.tracing.contraction_axes import Letters
from emergraph.exporters.tracing.labels import compress, look_up, unit_axes
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.values import Bank, Value
from emergraph.exporters.tracing.weights import kernel_matrix, main_root, write_block
from emergraph.graphstore.records import LayerKind

_MOVING = KEEPING - COPYING | {Kind.SHAPE}
_CONTRACTING = DENSE | {Kind.EINSUM}


def settle_banks(ctx: TraceContext, node: onnx.NodeProto) -> None:
    """Make units of chosen matrices that a node reads, unless it moves them or contracts an activation."""
    banks = [name for name in node.input if name in ctx.values and ctx.values[name].bank is not None]
    others = [ctx.values[name] for name in node.input if name in ctx.values and name not in banks]
    if kind_of(node) in _MOVING and banks:
        return
    if kind_of(node) in _CONTRACTING and len(banks) == 1 and any(v.labels is not None for v in others):
        return
    for name in dict.fromkeys(banks):
        make_units(ctx, name)


def make_units(ctx: TraceContext, name: str) -> None:
    """Turn chosen matrices into units, one for each of their numbers: not only contractions read them."""
    value = ctx.value(name)
    if value.bank is None:
        return
    layer = table_features(ctx, value.bank.table, value.bank.axis)
    labels = look_up(layer.units, value.bank.feature)
    axes = unit_axes(labels, layer.first, layer.count)
    layer.raw = Track(name if axes is not None else None, axes)
    ctx.values[name] = replace(value, labels=labels, tracks={layer.id: layer.raw}, bank=None)


def as_weight(bank: Bank, x: Value, letters: Letters) -> tuple[Constant, Value, Letters]:
    """A chosen matrix as a weight with one axis more, which a contraction takes as taps.

    Args:
        bank: The matrix; its letters are on the right.
        x: The activation, on the left.
        letters: Of the contraction.

    Returns:
        The weight, the activation spread along axes of choices that it has none for, and the letters.
    """
    feature = compress(bank.feature)
    choices = [k for k, stride in enumerate(feature.strides) if stride == 0 and feature.shape[k] > 1]
    new = [k for k in choices if letters.right[k] not in letters.left and letters.right[k] in letters.out]
    kept = [k for k in range(feature.ndim) if k not in choices]
    one = feature[tuple(slice(None) if k in kept else 0 for k in range(feature.ndim))]

    def load() -> NDArray[np.floating]:
        values = np.moveaxis(bank.table.floats(), bank.axis, -1)
        return values.reshape(-1, values.shape[-1])[one]

    n_choices = bank.table.shape[bank.axis]
    weight = bank.table.changed(load, shape=(*one.shape, n_choices), unmoved=None)
    sizes = [feature.shape[k] for k in new]
    spread = np.broadcast_to(x.carried[(..., *[None] * len(new))], (*x.shape, *sizes))
    taken = letters.left + letters.right + letters.out
    own = [*(letters.right[k] for k in kept), next(c for c in ascii_letters if c not in taken)]
    named = Letters(letters.left + "".join(letters.right[k] for k in new), "".join(own), letters.out)
    return weight, replace(x, labels=spread, shape=spread.shape), named


def table_features(ctx: TraceContext, table: Constant, axis: int) -> LayerDraft:
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
