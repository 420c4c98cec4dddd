"""The tracer: one pass over a flat model that turns operations into layers, units and edges."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np
import onnx

from emergraph.errors import InvalidInputError
from emergraph.exporters.codings import CodedTensor
from emergraph.exporters.counts import bytes_of, count
from emergraph.exporters.filetensors import FileTensors
from emergraph.exporters.onnxfile.dtypes import BY_NAME
from emergraph.exporters.runtime.ordering import outer_names_read
from emergraph.exporters.summary import MUST_BE_FINITE, GraphSummary, nonfinite_warnings
from emergraph.exporters.tracing.banks import make_units
from emergraph.exporters.tracing.builder import GraphBuilder
from emergraph.exporters.tracing.constants import parameter
from emergraph.exporters.tracing.context import ParameterTensor, ParameterUse, TraceContext, TracedModel
from emergraph.exporters.tracing.dispatch import dispatch
from emergraph.exporters.tracing.inputs import input_units
from emergraph.exporters.tracing.labels import compress, unit_axes, units_in
from emergraph.exporters.tracing.rules import (  # noqa: F401 - importing them registers the rules
    attention,
    contraction,
    controlflow,
    convolution,
    einsum,
    elementwise,
    embedding,
    fourier,
    fused,
    heads,
    movement,
    normalisation,
    pooling,
    quantized,
    recurrent,
    reduction,
    scatter,
    sequences,
)
from emergraph.exporters.tracing.sums import Sums
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import (
    NEURON_LAYER_KINDS,
    GraphSink,
    LayerKind,
    Operation,
    Tensor,
    TracedAs,
)
from emergraph.graphstore.tensors import KEPT_BYTES

_SHOWN = 3
"""Layers that a warning names."""
_PARAMETER_PREFIXES = ("float", "bfloat", "int8", "uint8", "int4", "uint4", "int2", "uint2")


def trace(
    model: TracedModel,
    sink: GraphSink,
    *,
    files: Mapping[str, memoryview] | None = None,
    in_place: bool = False,
    progress: Callable[[int, int], None] | None = None,
    sums: Sums | None = None,
) -> GraphSummary:
    """Trace the units of a flat model and write its graph.

    Args:
        model: The flat model with the facts of one concrete run.
        sink: Where blocks, layers, units, tensors and operations go.
        files: The mapped files that the parameters are in, by name.
        in_place: Whether edges stay in them where they can.
        progress: Called with (operations done, operations in all).
        sums: Takes in what operations sum up.

    Returns:
        Counts and coverage.

    Raises:
        InvalidInputError: The model is inconsistent.
    """
    tensors = FileTensors(
        files or {},
        lambda name: model.initializers[name].held(),
        lambda name: model.initializers[name].coded(),
        in_place=in_place,
    )
    builder = GraphBuilder(sink, tensors)
    ctx = TraceContext(model, builder)
    ctx.sums = sums
    _set_initializers(ctx)
    _set_inputs(ctx)
    last_use = _last_uses(model)
    for index, node in enumerate(model.nodes):
        _step(ctx, index, node)
        _forget(ctx, index, node, last_use)
        if progress is not None:
            progress(index + 1, len(model.nodes))
    _set_outputs(ctx)
    n_params, n_understood, not_finite = _write_tensors(ctx)
    builder.finish()
    if sums is not None:
        sums.raw = {layer.id: layer.raw for layer in builder.layers if layer.raw is not None}
    sink.write_operations(ctx.operations)
    split_by = _say_split(ctx)
    ctx.warnings += nonfinite_warnings(not_finite, n_params)
    opaque = tuple(op for op in ctx.operations if op.traced_as is TracedAs.OPAQUE)
    return GraphSummary(
        n_layers=len(builder.layers),
        n_units=builder.n_units,
        n_neurons=sum(layer.count for layer in builder.layers if layer.kind in NEURON_LAYER_KINDS),
        n_blocks=builder.n_blocks,
        n_edges=builder.n_edges,
        n_weight_edges=builder.n_weight_edges,
        n_parameters=n_params,
        n_parameters_understood=n_understood,
        n_operations=len(ctx.operations),
        n_operations_understood=len(ctx.operations) - len(opaque),
        opaque=opaque,
        warnings=tuple(ctx.warnings),
        branches=tuple(dict.fromkeys(ctx.branches)),
        split_by=split_by,
        n_in_place=builder.n_in_place,
        rows=dict(builder.rows),
        n_nonfinite=sum(not_finite.values()),
    )


def _say_split(ctx: TraceContext) -> dict[str, int]:
    """Warn of layers that have more units than their weights have outputs; returns how many, by reason."""
    by_reason: dict[str, list[str]] = {}
    for layer in ctx.builder.layers:
        if layer.n_outputs is not None and layer.split_by is not None and layer.count > layer.n_outputs:
            shown = f"{layer.name} ({layer.count} for {layer.n_outputs})"
            by_reason.setdefault(layer.split_by, []).append(shown)
    for reason, names in by_reason.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        ctx.warn(f"more units than the weight has outputs, {reason}: {', '.join(names[:_SHOWN])}{more}")
    return {reason: len(names) for reason, names in by_reason.items()}


def _set_initializers(ctx: TraceContext) -> None:
    for name, tensor in ctx.model.initializers.items():
        constant = parameter(name, tuple(tensor.shape), tensor.dtype_name, tensor.array)
        ctx.values[name] = Value(constant.shape, constant=constant)


def _set_inputs(ctx: TraceContext) -> None:
    for name in ctx.model.inputs:
        facts = ctx.facts(name)
        numbers = input_units(ctx.model, name)
        if numbers is None:
            ctx.values[name] = Value(facts.shape)
            continue
        count = int(numbers.max(initial=-1)) + 1
        layer = ctx.builder.add_layer(name, "Input", LayerKind.INPUT, count)
        labels = numbers + layer.first
        packed = compress(labels)
        axes = unit_axes(packed, layer.first, count)
        layer.raw = Track(name if axes is not None else None, axes)
        ctx.values[name] = Value(facts.shape, labels=packed, tracks={layer.id: layer.raw}, dtype=facts.dtype)


def _last_uses(model: TracedModel) -> dict[str, int]:
    last: dict[str, int] = {}
    for index, node in enumerate(model.nodes):
        for name in outer_names_read(node):
            last[name] = index
    for name in model.outputs:
        last[name] = len(model.nodes)
    return last


def _forget(ctx: TraceContext, index: int, node: onnx.NodeProto, last_use: dict[str, int]) -> None:
    """Drop label arrays that nothing reads any more."""
    for name in {*outer_names_read(node), *node.output}:
        value = ctx.values.get(name)
        if value is not None and value.labels is not None and last_use.get(name, -1) <= index:
            del ctx.values[name]


def _step(ctx: TraceContext, index: int, node: onnx.NodeProto) -> None:
    before = len(ctx.uses)
    dispatch(ctx, node)
    ctx.operations.append(
        Operation(
            index=index,
            name=node.name or ctx.name,
            op=node.op_type,
            domain=node.domain,
            traced_as=ctx.traced_as,
            reason=ctx.reason,
            n_params=_count_new(ctx, before),
        )
    )


def _count_new(ctx: TraceContext, before: int) -> int:
    new = islice(reversed(ctx.uses), len(ctx.uses) - before)  # they are kept in the order in which they came
    return sum(_n_elements(ctx, name) for name in new)


def _n_elements(ctx: TraceContext, name: str) -> int:
    return (
        int(np.prod(ctx.model.initializers[name].shape, dtype=object))
        if ctx.model.initializers[name].shape
        else 1
    )


def _set_outputs(ctx: TraceContext) -> None:
    for name in ctx.model.outputs:
        if name in ctx.values:
            make_units(ctx, name)
        value = ctx.values.get(name)
        if value is None or value.labels is None:
            continue
        ctx.read(value)
        units = units_in(value.labels)
        ctx.builder.use_as_value(units)
        for layer in ctx.builder.layers_of(units):
            layer.is_output = True


def _is_parameter(ctx: TraceContext, name: str) -> bool:
    """Floating-point tensors and stored quantized weights; not shapes, indices and masks."""
    dtype = ctx.model.initializers[name].dtype_name
    if dtype.startswith(_PARAMETER_PREFIXES):
        return True
    roles = ctx.uses[name].roles if name in ctx.uses else []
    return dtype.startswith(("int32", "complex")) and any(r in ("weight", "bias", "embedding") for r in roles)


def _write_tensors(ctx: TraceContext) -> tuple[int, int, dict[str, int]]:
    """Write the parameter tensors; counts all, the understood ones, and NaN and infinite ones by tensor."""
    total = understood = 0
    zeros: dict[str, int] = {}
    not_finite: dict[str, int] = {}
    for name, stored in ctx.model.initializers.items():
        if not _is_parameter(ctx, name):
            continue
        use = ctx.uses.get(name, ParameterUse())
        in_file = ctx.builder.tensors.in_file(name)
        coded = ctx.builder.tensors.coded(name) if ctx.builder.tensors.in_place and in_file else None
        tensor = replace(
            _tensor(name, stored, use) if coded is None else _coded_tensor(name, stored, use, coded),
            in_file=in_file,
        )
        if not ctx.model.is_parameter(name):
            ctx.builder.sink.write_tensor(replace(tensor, role="buffer"))
            continue
        ctx.builder.sink.write_tensor(tensor)
        total += tensor.n_params
        # what is added may be a mask, infinite on purpose
        not_finite[name] = tensor.n_nonfinite if tensor.role in MUST_BE_FINITE else 0
        understood += tensor.n_params if tensor.understood else 0
        zeros[name] = tensor.n_zeros if use.packed is None else use.packed[1]()
    for layer in ctx.builder.layers:
        layer.n_zeros = sum(zeros.get(root, 0) for root in layer.roots)
    return total, understood, not_finite


def _tensor(name: str, stored: ParameterTensor, use: ParameterUse) -> Tensor:
    held_as = stored.held()
    values = stored.array() if held_as is None else held_as
    counts = count(values)
    n_zeros = counts.n_zeros
    if use.zero_point is not None and counts.n_params:
        n_zeros = int(np.count_nonzero(values == use.zero_point()))
    whole = bytes_of(values)
    held = use.block is not None
    return Tensor(
        name=name,
        dtype=stored.dtype_name,
        shape=tuple(stored.shape),
        n_params=counts.n_params,
        n_zeros=n_zeros,
        n_nonfinite=counts.n_nonfinite,
        understood=not use.opaque,
        role=use.roles[0] if use.roles else "unused",
        data=None if held else whole,
        sha256=hashlib.sha256(whole).hexdigest() if held else None,
        block=use.block,
        block_transposed=use.block_transposed,
    )


_ROWS = 1 << 20
"""Values of a tensor of codes that are computed at once."""


def _coded_tensor(name: str, stored: ParameterTensor, use: ParameterUse, coded: CodedTensor) -> Tensor:
    """The record of a tensor that follows from what the file holds: a large one is never there as a whole."""
    entries, digest = coded.decoded.entries, hashlib.sha256()
    n_rows, n_columns = entries.shape
    n_zeros = n_nonfinite = 0
    kind = BY_NAME[stored.dtype_name].dtype
    small = n_rows * n_columns * kind.itemsize <= KEPT_BYTES
    step = max(1, _ROWS // n_columns)
    pieces = []
    for first in range(0, n_rows, step):
        part = entries.part(slice(first, min(first + step, n_rows)), slice(0, n_columns)).astype(
            kind, copy=False
        )
        counts = count(np.ascontiguousarray(part))
        n_zeros += counts.n_zeros
        n_nonfinite += counts.n_nonfinite
        digest.update(bytes_of(part))
        pieces += [bytes(bytes_of(part))] if small else []
    return Tensor(
        name=name,
        dtype=stored.dtype_name,
        shape=tuple(stored.shape),
        n_params=n_rows * n_columns,
        n_zeros=n_zeros,
        n_nonfinite=n_nonfinite,
        understood=not use.opaque,
        role=use.roles[0] if use.roles else "unused",
        data=b"".join(pieces) if small else None,
        sha256=digest.hexdigest(),
        made=coded.coding,
    )


__all__ = ["GraphSummary", "InvalidInputError", "trace"]
