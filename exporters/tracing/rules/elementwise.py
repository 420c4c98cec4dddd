"""Element-wise operations: labels pass, constants become scales and shifts, two activations are joined."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.operations import COPYING, Kind, kind_of
from emergraph.exporters.tracing.affine import advanced, scaled, shifted
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.join import join
from emergraph.exporters.tracing.labels import Labels, compress, distinct_tuples, look_up, spread
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.values import Value, merged_tracks
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs


def labelled(ctx: TraceContext) -> list[Value]:
    """The inputs of the current node that carry units."""
    return [v for v in ctx.inputs() if v.labels is not None]


def pass_one(
    ctx: TraceContext,
    value: Value,
    *,
    nonlinearity: str | None = None,
    multiply: Constant | float | None = None,
    add: Constant | float | None = None,
) -> None:
    """Set output 0 to an element-wise function of one activation and constants."""
    if value.labels is None:
        ctx.set_control(0)
        return
    labels = compress(spread(value.labels, ctx.out_shape()))
    tracks: dict[int, Track] = dict(value.tracks)
    if multiply is not None:
        factor = _array(ctx, multiply, "scale")
        tracks = scaled(tracks, labels, factor, ctx.builder)
        labels = _without_zeroed(labels, factor)
    if add is not None:
        tracks = shifted(tracks, labels, _array(ctx, add, "shift"), ctx.builder)
    for constant in (multiply, add):
        if isinstance(constant, Constant) and len(value.tracks) == 1:
            ctx.count_params(ctx.builder.layers[next(iter(value.tracks))], constant)
    tracks = advanced(tracks, labels, ctx.node.output[0], ctx.builder, nonlinearity=nonlinearity)
    _remember_bias(ctx, tracks)
    ctx.set_labels(0, labels, tracks, packed=multiply is None)
    ctx.did(TracedAs.ELEMENTWISE)


def _remember_bias(ctx: TraceContext, tracks: dict[int, Track]) -> None:
    """A bias added behind a MatMul belongs to the layer's raw output."""
    for layer_id, track in tracks.items():
        layer = ctx.builder.layers[layer_id]
        raw = layer.raw
        plain = track.activation is None and track.scale is None and track.shift is None
        if raw is not None and raw.bias is None and track.bias is not None and plain:
            layer.raw = replace(raw, bias=track.bias, tensor=track.tensor, axes=track.axes)


def _array(ctx: TraceContext, constant: Constant | float, role: str) -> np.ndarray:
    if isinstance(constant, Constant):
        ctx.use(constant, role)
        return constant.load()
    return np.asarray(constant)


def _without_zeroed(labels: Labels, factor: np.ndarray) -> Labels:
    """A unit multiplied by exactly zero is pruned: what follows is constant."""
    zero = factor == 0
    if not zero.any():
        return labels
    return np.where(np.broadcast_to(zero, labels.shape), -1, labels)


def split_inputs(ctx: TraceContext) -> tuple[list[Value], list[Constant]]:
    """The inputs that carry units, and those that are constants."""
    values = ctx.inputs()
    return [v for v in values if v.labels is not None], [v.constant for v in values if v.constant is not None]


@rule(*COPYING, Kind.DROPOUT, Kind.DEQUANTIZE)
def linear(ctx: TraceContext) -> None:
    """Y = x, up to rounding."""
    value = ctx.input(0)
    for extra in ctx.inputs()[1:]:
        ctx.use(extra.constant, "quantization")
    is_cast = kind_of(ctx.node) is Kind.CAST_LIKE  # only the type of its second input counts
    if is_cast and value is not None and value.constant is not None:
        _fold_cast(ctx)
        return
    values = split_inputs(ctx)[0]
    if value is None or not values or (is_cast and value.labels is None):
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    if value.labels is None or (len(values) > 1 and kind_of(ctx.node) is Kind.DEQUANTIZE):
        ctx.make_opaque(f"{ctx.op} whose scale depends on activations")
        return
    pass_one(ctx, value)
    ctx.set_control(1)


def _fold_cast(ctx: TraceContext) -> None:
    """A constant cast to an activation's type stays constant: only the type of the second input counts."""
    facts = ctx.known(ctx.node.output[0])
    if facts is None:
        ctx.make_opaque("the concrete run did not reach this operation")
        return
    to = onnx.helper.np_dtype_to_tensor_dtype(facts.dtype)
    ctx.node = onnx.helper.make_node(
        "Cast", [ctx.node.input[0]], [ctx.node.output[0]], name=ctx.node.name, to=to
    )
    ctx.fold()


@rule(Kind.QUANTIZE)
def quantize(ctx: TraceContext) -> None:
    """Codes of the same units; the activation stays the float tensor before."""
    for extra in ctx.inputs()[1:]:
        ctx.use(extra.constant, "quantization")
    value = ctx.value(ctx.node.input[0])
    if value.labels is None:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)
        return
    ctx.set_labels(0, value.labels, value.tracks)
    ctx.did(TracedAs.ELEMENTWISE)


@rule(Kind.NEGATION)
def neg(ctx: TraceContext) -> None:
    """Y = -x."""
    pass_one(ctx, labelled(ctx)[0], multiply=-1.0)


@rule(Kind.ACTIVATION)
def nonlinear(ctx: TraceContext) -> None:
    """Y = f(x) for one activation; bounds and slopes that are tensors are understood as such."""
    values, constants = split_inputs(ctx)
    for constant in constants:
        ctx.use(constant, "shape of the nonlinearity")
    if len(values) > 1:
        join(ctx, values, kind=EdgeKind.GATE, weights=None)
        return
    pass_one(ctx, values[0], nonlinearity=ctx.node.op_type)


@rule(Kind.SLOPED)
def prelu(ctx: TraceContext) -> None:
    """Y = x for x >= 0, slope * x below; the slope is a parameter per channel."""
    values, constants = split_inputs(ctx)
    if len(values) > 1:
        join(ctx, values, kind=EdgeKind.GATE, weights=None)
        return
    for constant in constants:
        ctx.use(constant, "slope")
    pass_one(ctx, values[0], nonlinearity=ctx.node.op_type)


def _arithmetic(
    *,
    kind: EdgeKind,
    weights: Callable[[int], Sequence[float]] | None,
    with_constant: Callable[[TraceContext, Value, list[Constant]], None],
    how: str,
) -> Callable[[TraceContext], None]:
    def traced(ctx: TraceContext) -> None:
        values, constants = split_inputs(ctx)
        if len(values) == 1:
            with_constant(ctx, values[0], constants)
            return
        for constant in constants:
            ctx.use(constant, "shift" if kind is EdgeKind.IDENTITY else "scale")
        join(
            ctx,
            values,
            kind=kind,
            weights=None if weights is None else weights(len(ctx.inputs()))[: len(values)],
        )

    traced.__doc__ = how
    return traced


def _add(ctx: TraceContext, value: Value, constants: list[Constant]) -> None:
    pass_one(ctx, value, add=_total(constants, 1.0))


def _total(constants: Sequence[Constant], factor: float) -> Constant | None:
    """The sum of some constants, times a factor."""
    if not constants:
        return None
    if len(constants) == 1 and factor == 1.0:
        return constants[0]

    def load() -> np.ndarray:
        arrays = [np.asarray(c.load(), np.float64) for c in constants]
        return factor * sum(arrays[1:], start=arrays[0])

    shape = np.broadcast_shapes(*(c.shape for c in constants))
    roots = frozenset().union(*(c.roots for c in constants))
    return Constant(shape, load, roots, coding=frozenset().union(*(c.coding for c in constants)))


def _sub(ctx: TraceContext, value: Value, constants: list[Constant]) -> None:
    first_is_constant = ctx.value(ctx.node.input[0]).labels is None
    if not constants:
        pass_one(ctx, value, multiply=-1.0 if first_is_constant else None)
    elif first_is_constant:
        pass_one(ctx, value, multiply=-1.0, add=constants[0])
    else:
        pass_one(ctx, value, add=_mapped(constants[0], np.negative))


def _mul(ctx: TraceContext, value: Value, constants: list[Constant]) -> None:
    pass_one(ctx, value, multiply=constants[0] if constants else None)


def _div(ctx: TraceContext, value: Value, constants: list[Constant]) -> None:
    if ctx.value(ctx.node.input[0]).labels is None:
        for constant in constants:
            ctx.use(constant, "scale")
        pass_one(ctx, value, nonlinearity="Reciprocal")
        return
    pass_one(ctx, value, multiply=_mapped(constants[0], _reciprocal) if constants else None)


def _reciprocal(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 1.0 / np.asarray(values, np.float64)


def _mapped(constant: Constant, function: Callable[[np.ndarray], np.ndarray]) -> Constant:
    return constant.changed(lambda: function(constant.load()))


def _bend(ctx: TraceContext, value: Value, constants: list[Constant]) -> None:
    for constant in constants:
        ctx.use(constant, "shape of the nonlinearity")
    pass_one(ctx, value, nonlinearity=ctx.node.op_type)


def _mean(ctx: TraceContext, value: Value, constants: list[Constant]) -> None:
    share = 1.0 / len(ctx.inputs())
    pass_one(ctx, value, multiply=share, add=_total(constants, share))


def _one_each(n: int) -> list[float]:
    return [1.0] * n


def _plus_minus(_: int) -> list[float]:
    return [1.0, -1.0]


def _shares(n: int) -> list[float]:
    return [1.0 / n] * n


_JUNCTION = "a constant is a bias or a shift; of several activations a junction"
_PRODUCT = "a constant is a scale; of several activations a gate"
_SUM = EdgeKind.IDENTITY
rule(Kind.SUM)(_arithmetic(kind=_SUM, weights=_one_each, with_constant=_add, how=f"A sum: {_JUNCTION}."))
rule(Kind.DIFFERENCE)(
    _arithmetic(kind=_SUM, weights=_plus_minus, with_constant=_sub, how=f"A difference: {_JUNCTION}.")
)
rule(Kind.MEAN)(_arithmetic(kind=_SUM, weights=_shares, with_constant=_mean, how=f"A mean: {_JUNCTION}."))
rule(Kind.PRODUCT)(
    _arithmetic(kind=EdgeKind.GATE, weights=None, with_constant=_mul, how=f"A product: {_PRODUCT}.")
)
rule(Kind.QUOTIENT)(
    _arithmetic(kind=EdgeKind.GATE, weights=None, with_constant=_div, how=f"A quotient: {_PRODUCT}.")
)
bent = _arithmetic(
    kind=EdgeKind.GATE,
    weights=None,
    with_constant=_bend,
    how="Nonlinear in both operands: with a constant the label passes; of several activations a gate.",
)
"""Operations on two operands that are nonlinear in both."""
rule(Kind.BENT)(bent)


@rule(Kind.CHOICE)
def where(ctx: TraceContext) -> None:
    """A choice is condition * first + (1 - condition) * second: what carries units is joined as a gate."""
    condition, first, second = (ctx.value(name) for name in ctx.node.input)
    carried = [v for v in (condition, first, second) if v.labels is not None]
    for value in (first, second):
        ctx.use(value.constant, "shift")
    ctx.use(condition.constant, "mask")
    if carried and condition.constant is not None:
        _where_constant(ctx, condition.constant, first, second)
    elif len(carried) >= 2:
        join(ctx, carried, kind=EdgeKind.GATE, weights=None)
    elif carried:
        pass_one(ctx, carried[0], nonlinearity=ctx.node.op_type)
    else:
        ctx.set_control(0)
        ctx.did(TracedAs.CONTROL)


def _where_constant(ctx: TraceContext, condition: Constant, first: Value, second: Value) -> None:
    """A constant mask: every element carries the unit of the side that is chosen, if that has one."""
    shape = ctx.out_shape()
    mask = np.broadcast_to(condition.load().astype(bool), shape)
    labels = [
        np.broadcast_to(v.labels if v.labels is not None else np.asarray(-1), shape) for v in (first, second)
    ]
    chosen = np.where(mask, labels[0], labels[1])
    tracks = advanced(
        merged_tracks([first, second]), chosen, ctx.node.output[0], ctx.builder, nonlinearity=None
    )
    ctx.set_labels(0, chosen, tracks)
    ctx.did(TracedAs.ELEMENTWISE)


@rule(Kind.SCALER)
def scaler(ctx: TraceContext) -> None:
    """Y = (x - offset) * scale, per feature; the numbers are attributes."""
    value = labelled(ctx)[0]
    offset = np.asarray(ctx.attrs.get("offset", [0.0]), np.float64)
    factor = np.asarray(ctx.attrs.get("scale", [1.0]), np.float64)
    labels = value.carried
    tracks = shifted(value.tracks, labels, -offset, ctx.builder)
    tracks = scaled(tracks, labels, factor, ctx.builder)
    labels = _without_zeroed(labels, factor)
    ctx.set_labels(0, labels, advanced(tracks, labels, ctx.node.output[0], ctx.builder))
    ctx.did(TracedAs.ELEMENTWISE)


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
