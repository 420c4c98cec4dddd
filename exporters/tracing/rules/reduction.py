"""Reductions: over positions of one unit the label passes, over distinct units a structural unit arises."""

import numpy as np

from emergraph.exporters.operations import Kind, spec_of
from emergraph.exporters.tracing.affine import advanced, scaled
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import NO_UNIT, Labels, compress, core, reduced_rows
from emergraph.exporters.tracing.mixing import weighted_sets
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import TracedAs

MAX_SEEN = 1 << 24
"""Pairs of an element of a running sum and one that it may have seen, beyond which it is opaque."""


@rule(Kind.REDUCTION)
def reduce(ctx: TraceContext) -> None:
    """Sum, mean, maximum, ... over some axes."""
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    axes = _axes(ctx, len(value.shape))
    spec = spec_of(ctx.node)
    share = "mean" if spec.keeps_value else "sum"
    reduce_labels(ctx, value, axes, weight=share if spec.is_linear else "none", nonlinear=not spec.is_linear)


def reduce_labels(ctx: TraceContext, value: Value, axes: list[int], *, weight: str, nonlinear: bool) -> None:
    """Set output 0 to the reduction of a labelled value over some axes.

    A reduction over positions that carry the same unit passes its label. Otherwise one structural unit stands
    for each distinct set of labels; whether it is a normalisation's hub shows in what reads it.
    """
    shape = ctx.out_shape()
    if not axes:
        out = np.broadcast_to(value.carried, shape)
        ctx.set_labels(0, out, advanced(value.tracks, out, ctx.node.output[0], ctx.builder))
        ctx.did(TracedAs.ELEMENTWISE)
        return
    laid_out = reduced_rows(value.carried, axes)
    sets, weights, which = weighted_sets(laid_out, weight)
    aligned = which.reshape(laid_out.shape)
    if all(s.size <= 1 for s in sets):
        carried = np.asarray([s[0] if s.size else -1 for s in sets], np.int64)
        out = _fit(carried[aligned], value.shape, axes, shape)
        tracks = dict(value.tracks)
        if weights is not None:
            factor = np.asarray([w[0] if w.size else 0.0 for w in weights])[aligned]
            factor = _fit(factor, value.shape, axes, shape)
            tracks = scaled(tracks, out, factor, ctx.builder) if (factor != 1).any() else tracks
        if nonlinear:  # a sum or mean hides what its positions do: the tensor before it shows the activation
            name = ctx.node.output[0]
            tracks = advanced(tracks, out, name, ctx.builder, nonlinearity=ctx.node.op_type)
        ctx.set_labels(0, out, tracks)
        ctx.did(TracedAs.REDUCED)
        return
    reduction = ctx.builder.add_reduction(ctx.name, ctx.op, sets, weights)
    # That a normalisation reads its group does not decide which tensor shows the activation.
    reduction.readings.extend(value.tracks.items())
    layer = reduction.layer
    ctx.new_layer_output(0, layer, _fit(layer.first + aligned, value.shape, axes, shape))
    ctx.did(TracedAs.REDUCED)


def _fit(
    labels: np.ndarray, in_shape: tuple[int, ...], axes: list[int], out_shape: tuple[int, ...]
) -> np.ndarray:
    """Spread labels with size-1 reduced axes to the output's shape, with or without kept dimensions."""
    kept_dims = tuple(1 if k in axes else in_shape[k] for k in range(len(in_shape)))
    full = np.broadcast_to(labels, kept_dims)
    if len(out_shape) == len(in_shape):
        return full
    return full[tuple(0 if k in axes else slice(None) for k in range(len(in_shape)))]


def _axes(ctx: TraceContext, rank: int) -> list[int]:
    axes = ctx.attr_ints("axes")
    if axes is None and len(ctx.node.input) > 1 and ctx.node.input[1]:
        given = ctx.concrete(ctx.node.input[1])
        axes = None if given is None else [int(a) for a in np.ravel(given)]
        if axes == [] and not ctx.attr_int("noop_with_empty_axes", 0):
            axes = None
    elif axes is None and ctx.attr_int("noop_with_empty_axes", 0):
        axes = []
    return sorted({a % rank for a in axes}) if axes is not None else list(range(rank))


@rule(Kind.RUNNING)
def running(ctx: TraceContext) -> None:
    """Running sums or products: over positions the label passes, over units each reduces those before it."""
    value = ctx.value(ctx.node.input[0])
    axis = ctx.concrete(ctx.node.input[1])
    if value.labels is None or axis is None:
        ctx.make_opaque(f"{ctx.op} along an axis that depends on the data")
        return
    labels = compress(value.labels)
    k = int(np.ravel(axis)[0]) % labels.ndim
    if labels.strides[k] != 0 and labels.shape[k] > 1:
        _running_over_units(ctx, value, labels, k)
        return
    bend = "CumProd" if ctx.node.op_type == "CumProd" else None
    tracks = advanced(value.tracks, labels, ctx.node.output[0], ctx.builder, nonlinearity=bend)
    ctx.set_labels(0, labels, tracks, packed=True)
    ctx.did(TracedAs.ELEMENTWISE)


def _running_over_units(ctx: TraceContext, value: Value, labels: Labels, axis: int) -> None:
    """A structural unit for each set of units that one element has seen."""
    inner = core(np.moveaxis(labels, axis, -1))
    n = inner.shape[-1]
    if inner.size * n > MAX_SEEN:
        ctx.make_opaque(f"{ctx.op} over {n} different units, whose pairs are too many to follow")
        return
    seen = np.tril(np.ones((n, n), bool), -ctx.attr_int("exclusive", 0))
    if ctx.attr_int("reverse", 0):
        seen = seen[::-1, ::-1]
    ctx.read(value)
    spread = np.where(seen, inner[..., None, :], NO_UNIT)
    laid_out = reduced_rows(spread, [spread.ndim - 1])
    sets, weights, which = weighted_sets(laid_out, "sum" if ctx.node.op_type == "CumSum" else "none")
    alive = [at for at, members in enumerate(sets) if members.size]
    kept = None if weights is None else [weights[at] for at in alive]
    reduction = ctx.builder.add_reduction(ctx.name, ctx.op, [sets[at] for at in alive], kept)
    reduction.used_as_value = True
    table = np.full(len(sets), NO_UNIT, np.int64)
    table[alive] = reduction.layer.units
    found = np.broadcast_to(table[which].reshape(laid_out.shape)[..., 0], inner.shape)
    moved = np.moveaxis(found, -1, axis)
    ctx.new_layer_output(0, reduction.layer, np.broadcast_to(moved, labels.shape))
    ctx.did(TracedAs.REDUCED)
