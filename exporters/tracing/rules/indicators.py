"""Comparisons with several constants at once: one indicator unit per constant (one-hot codes)."""

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.operations import Kind
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import Labels, distinct_tuples, look_up
from emergraph.exporters.tracing.rules.elementwise import bent, pass_one, split_inputs
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs


@rule(Kind.COMPARISON)
def compare(ctx: TraceContext) -> None:
    """An indicator of a condition; against several constants at once, one unit for each of them."""
    values, constants = split_inputs(ctx)
    if len(values) != 1 or not constants:
        bent(ctx)
        return
    shape = ctx.out_shape()
    labels = np.broadcast_to(values[0].carried, shape)
    levels, level = np.unique(constants[0].load(), return_inverse=True)
    level = np.broadcast_to(level.reshape(constants[0].shape), shape)
    if levels.size < 2 or not _several_per_unit(labels, level):
        for constant in constants:
            ctx.use(constant, "threshold")
        pass_one(ctx, values[0], nonlinearity=ctx.node.op_type)
        return
    for constant in constants:
        ctx.use(constant, "threshold")
    _set_indicators(ctx, values[0], labels, level)


@rule(Kind.ONE_HOT)
def one_hot(ctx: TraceContext) -> None:
    """A new axis of indicators: (indices, depth, values)."""
    indices = ctx.value(ctx.node.input[0])
    for given in ctx.inputs()[1:]:
        ctx.use(given.constant, "other")
    if indices.labels is None:
        ctx.make_opaque("OneHot whose levels depend on activations")
        return
    shape = ctx.out_shape()
    axis = ctx.attr_int("axis", -1) % len(shape)
    labels = np.broadcast_to(np.expand_dims(indices.labels, axis), shape)
    along = [shape[axis] if k == axis else 1 for k in range(len(shape))]
    level = np.broadcast_to(np.arange(shape[axis]).reshape(along), shape)
    _set_indicators(ctx, indices, labels, level)


def _several_per_unit(labels: Labels, level: NDArray[np.int64]) -> bool:
    """Whether some unit is compared with several constants."""
    tuples, _ = distinct_tuples([labels, level])
    carried = tuples[tuples[:, 0] >= 0]
    return bool(np.unique(carried[:, 0]).size < len(carried))


def _set_indicators(ctx: TraceContext, value: Value, labels: Labels, level: NDArray[np.int64]) -> None:
    """Output 0 as one junction unit per pair of a unit and a constant."""
    tuples, which = distinct_tuples([labels, level])
    carried = tuples[tuples[:, 0] >= 0]
    ctx.read(value)
    layer = ctx.builder.add_layer(ctx.name, ctx.op, LayerKind.JUNCTION, len(carried))
    ctx.builder.edges(
        layer,
        name=ctx.name,
        op=ctx.op,
        kind=EdgeKind.IDENTITY,
        src=carried[:, 0],
        dst=layer.units,
        note="indicator",
    )
    table = np.full(len(tuples), -1, np.int64)
    table[tuples[:, 0] >= 0] = layer.units
    ctx.set_labels(0, look_up(table, which), {})
    ctx.did(TracedAs.JOINED, "one indicator unit per constant")
