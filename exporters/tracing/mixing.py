"""Positions of one value that mix: its channels stay, and a structural unit stands for each set of units."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.affine import advanced
from emergraph.exporters.tracing.context import TraceContext
from emergraph.exporters.tracing.labels import (
    Labels,
    ReducedRows,
    compress,
    distinct_multisets,
    distinct_sets,
    reduced_rows,
)
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import TracedAs


def mixed_labels(ctx: TraceContext, value: Value, axes: Sequence[int], weight: str) -> Labels:
    """Labels with length 1 along mixed axes; a new structural unit for each set of different units.

    Args:
        ctx: The trace.
        value: What is mixed.
        axes: The axes that are mixed.
        weight: Of the new edges: "sum", "mean", "one" or "none".
    """
    labels = compress(value.carried)
    index = tuple(slice(0, 1) if k in axes else slice(None) for k in range(labels.ndim))
    if all(labels.strides[k] == 0 or labels.shape[k] <= 1 for k in axes):
        return labels[index]
    ctx.read(value)
    laid_out = reduced_rows(labels, axes)
    sets, weights, which = weighted_sets(laid_out, weight)
    single = all(s.size <= 1 for s in sets)
    if single:
        found = np.asarray([s[0] if s.size else -1 for s in sets], np.int64)[which]
    else:
        reduction = ctx.builder.add_reduction(ctx.name, ctx.op, sets, weights)
        reduction.used_as_value = True
        found = reduction.layer.first + which
    shape = tuple(1 if k in axes else labels.shape[k] for k in range(labels.ndim))
    return np.broadcast_to(found.reshape(laid_out.shape), shape)


def weighted_sets(
    laid_out: ReducedRows, weight: str
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]] | None, NDArray[np.int64]]:
    """Distinct sets of labels among rows, the weight that each label has in them, and the set of every row.

    Args:
        laid_out: The rows.
        weight: "sum": how often a label occurs; "mean": that by the length of the row; "one"; "none".
    """
    if weight in ("none", "one"):
        sets, which = distinct_sets(laid_out.rows)
        return sets, None if weight == "none" else [np.ones(s.size) for s in sets], which
    sets, counts, which = distinct_multisets(laid_out.rows)
    factor = 1.0 / laid_out.rows.shape[1] if weight == "mean" else float(laid_out.repeats)
    return sets, [c * factor for c in counts], which


def mix_positions(ctx: TraceContext, value: Value, axes: Sequence[int], *, nonlinear: bool = False) -> None:
    """Output 0 shows in every position along some axes what the input shows in any of them.

    Where those positions carry different units (a dense layer reshaped into an image), a new structural unit
    stands for the set of them.
    """
    shape = ctx.out_shape()
    before = ctx.builder.n_units
    labels = mixed_labels(ctx, value, axes, "none" if nonlinear else "mean")
    out = np.broadcast_to(labels, shape)
    if ctx.builder.n_units > before:
        ctx.new_layer_output(0, ctx.builder.layers[-1], out)
        ctx.did(TracedAs.REDUCED)
        return
    # An average hides what its positions do: the tensor before it shows the activation.
    tracks = value.tracks
    if nonlinear:
        name = ctx.node.output[0]
        tracks = advanced(tracks, out, name, ctx.builder, nonlinearity=ctx.node.op_type)
    ctx.set_labels(0, out, tracks)
    ctx.did(TracedAs.ELEMENTWISE if prod(shape) == prod(value.shape) else TracedAs.REDUCED)
