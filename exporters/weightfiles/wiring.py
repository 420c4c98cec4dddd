"""A weight file as a graph: separate bipartite layers, or a chain where order and shapes leave no choice."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.summary import GraphSummary
from emergraph.exporters.tracing.builder import GraphBuilder, LayerDraft
from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.exporters.weightfiles.wiring_blocks import (
    Wiring,
    apply_norm,
    input_size,
    understand_norm,
    write_convolution,
    write_dense,
    write_embedding,
)
from emergraph.exporters.weightfiles.wiring_modules import Module, ModuleKind, group_modules
from emergraph.exporters.weightfiles.wiring_parameters import parameters
from emergraph.exporters.weightfiles.wiring_recurrent import write_recurrent
from emergraph.exporters.weightfiles.wiring_sequential import Join, chain
from emergraph.graphstore.records import (
    NEURON_LAYER_KINDS,
    GraphHeader,
    GraphSink,
    Operation,
    Tensor,
    TracedAs,
)


class Wire(StrEnum):
    """How the layers of a weight file are joined; the file itself does not say."""

    NONE = "none"
    """Not at all: every layer stands alone, from units of its own to its outputs."""
    SEQUENTIAL = "sequential"
    """As a chain in file order, where the sizes fit; refused where they do not."""


@dataclass(frozen=True, kw_only=True)
class WiringSummary(GraphSummary):
    """What became of a weight file."""

    wire: Wire
    joins: tuple[Join, ...]
    """Every join of a chain with its reason; empty for separate layers."""


_OPERATIONS = {
    ModuleKind.DENSE: ("Gemm", TracedAs.CONTRACTED),
    ModuleKind.CONV: ("Conv", TracedAs.CONTRACTED),
    ModuleKind.EMBEDDING: ("Gather", TracedAs.EMBEDDED),
    ModuleKind.NORM: ("Normalization", TracedAs.NORMALISED),
    ModuleKind.LSTM: ("LSTM", TracedAs.RECURRENT),
    ModuleKind.GRU: ("GRU", TracedAs.RECURRENT),
    ModuleKind.RNN: ("RNN", TracedAs.RECURRENT),
    ModuleKind.OTHER: ("Parameter", TracedAs.OPAQUE),
}


def weights_header(weights: WeightFile, *, wire: Wire = Wire.NONE, name: str | None = None) -> GraphHeader:
    """Return the first record of the graph of a weight file.

    Args:
        weights: The file.
        wire: How its layers will be joined.
        name: Name of the graph; the file's name without its ending by default.
    """
    tied = {tensor.name: tensor.alias_of for tensor in weights.tensors.values() if tensor.alias_of}
    return GraphHeader(
        name=name or Path(weights.source).stem,
        source=weights.source,
        sha256=weights.sha256,
        format=weights.format,
        wiring="none" if wire is Wire.NONE else "inferred",
        settings={"wire": wire.value, "tied": tied},
    )


def export_weights(weights: WeightFile, sink: GraphSink, *, wire: Wire = Wire.NONE) -> WiringSummary:
    """Write the graph of a weight file: blocks, layers, units, tensors, operations.

    Every tensor of the file can be restored from what is written, tied ones by the first of their names.

    Args:
        weights: What `read_weights` gave.
        sink: A store's writer, or one that counts.
        wire: How the layers are joined.

    Returns:
        Counts, coverage, the joins with their reasons, and warnings.

    Raises:
        InvalidInputError: no tensor is recognised as a layer's weight, or the layers are no chain.

    Example:
        >>> from emergraph.exporters.counting import CountingSink
        >>> from emergraph.exporters.weightfiles.reader import read_weights
        >>> weights = read_weights("model.safetensors")  # doctest: +SKIP
        >>> export_weights(weights, CountingSink()).n_edges  # doctest: +SKIP
        10764288
    """
    modules = group_modules(parameters(weights))
    if not any(module.kind not in {ModuleKind.OTHER, ModuleKind.NORM} for module in modules):
        message = "no tensor is recognised as the weight of a layer, so there is no weighted graph to make"
        raise InvalidInputError(f"{printable(weights.source)}: {message}")
    wiring = Wiring(GraphBuilder(sink))
    joins = _separate(wiring, modules) if wire is Wire.NONE else _joined(wiring, modules, weights)
    wiring.builder.finish()
    n_parameters, n_understood = _write_tensors(wiring, weights, sink)
    operations = tuple(_operation(index, module) for index, module in enumerate(modules))
    opaque = tuple(op for op in operations if op.traced_as is TracedAs.OPAQUE)
    sink.write_operations(operations)
    layers = wiring.builder.layers
    return WiringSummary(
        wire=wire,
        joins=tuple(joins),
        n_layers=len(layers),
        n_units=wiring.builder.n_units,
        n_neurons=sum(layer.count for layer in layers if layer.kind in NEURON_LAYER_KINDS),
        n_blocks=wiring.builder.n_blocks,
        n_edges=wiring.builder.n_edges,
        n_weight_edges=wiring.builder.n_weight_edges,
        n_parameters=n_parameters,
        n_parameters_understood=n_understood,
        n_operations=len(operations),
        n_operations_understood=len(operations) - len(opaque),
        opaque=opaque,
        warnings=_warnings(weights, wire, joins),
    )


def _separate(wiring: Wiring, modules: Sequence[Module]) -> list[Join]:
    """Every layer by itself; packed parts read the same inputs."""
    for module in modules:
        if module.kind is ModuleKind.NORM:
            understand_norm(wiring, module)
            continue
        if module.kind is ModuleKind.OTHER:
            continue
        if module.kind is ModuleKind.EMBEDDING:
            made = [write_embedding(wiring, module)]
        else:
            sources = wiring.source(module.name, input_size(module))
            groups = input_size(module) if module.depthwise else 1
            made = _write(wiring, module, sources, groups=groups)
        for layer in made:
            layer.is_output = True
    return []


def _joined(wiring: Wiring, modules: Sequence[Module], weights: WeightFile) -> list[Join]:
    """One chain; normalisations act on the units of the layer before them."""
    joins = []
    current: LayerDraft | None = None
    for module, join in chain(modules, weights.source, sorted_by_name=weights.format == "safetensors"):
        note = ""
        if module.kind is ModuleKind.NORM:
            note = f" ({apply_norm(wiring, module, current)})" if current is not None else ""
        elif module.kind is ModuleKind.EMBEDDING:
            current = write_embedding(wiring, module)
        else:
            sources = wiring.source(module.name, input_size(module)) if current is None else current
            current = _write(wiring, module, sources, groups=join.groups, repeat=join.repeat)[-1]
        joins.append(replace(join, reason=join.reason + note))
    if current is not None:
        current.is_output = True
    return joins


def _write(
    wiring: Wiring, module: Module, sources: LayerDraft, *, groups: int = 1, repeat: int = 1
) -> list[LayerDraft]:
    if module.kind is ModuleKind.DENSE:
        note = f"{repeat} positions per channel" if repeat > 1 else None
        return write_dense(wiring, module, sources.units, repeat=repeat, note=note)
    if module.kind is ModuleKind.CONV:
        return [write_convolution(wiring, module, sources.units, groups=groups)]
    return [write_recurrent(wiring, module, sources.units)]


def _operation(index: int, module: Module) -> Operation:
    op, traced = _OPERATIONS[module.kind]
    counted = sum(part.tensor.n_elements for part in module.parts.values() if _is_parameter(part.tensor))
    if traced is TracedAs.OPAQUE and not counted:
        traced = TracedAs.CONSTANT  # counters, indices, empty buffers: no weights whose use could be unknown
    return Operation(
        index=index, name=module.name, op=op, domain="", traced_as=traced, reason=module.why, n_params=counted
    )


def _is_parameter(tensor: LazyTensor) -> bool:
    """Floating-point tensors and stored quantized weights; not counters, indices and masks."""
    return tensor.dtype in FLOATING or tensor.dtype in {"int8", "uint8"} or tensor.quantization is not None


def _write_tensors(wiring: Wiring, weights: WeightFile, sink: GraphSink) -> tuple[int, int]:
    """Write every tensor once; return how many parameters there are and how many of them are understood."""
    total = understood = 0
    for tensor in weights.tensors.values():
        if tensor.alias_of is not None:
            continue
        record = _tensor(wiring, tensor)
        sink.write_tensor(record)
        total += record.n_params
        understood += record.n_params if record.understood else 0
    return total, understood


def _tensor(wiring: Wiring, tensor: LazyTensor) -> Tensor:
    counts, held = wiring.counts(tensor), wiring.held.get(tensor.name)
    counted = _is_parameter(tensor)
    data = _bytes(tensor)
    return Tensor(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        n_params=counts.n_params if counted else 0,
        n_zeros=counts.n_zeros if counted else 0,
        n_nonfinite=counts.n_nonfinite,
        understood=not counted or tensor.name in wiring.roles,
        role=wiring.roles.get(tensor.name, "other"),
        data=None if held else data,
        block=held.block if held else None,
        block_transposed=held.transposed if held else False,
        sha256=hashlib.sha256(data).hexdigest() if held else None,
    )


def _bytes(tensor: LazyTensor) -> memoryview:
    """The values in C order, one byte each where elements have fewer than 8 bits: what the store restores."""
    values = np.ascontiguousarray(tensor.array()).reshape(-1)
    return values.view(np.uint8).data if values.size else memoryview(b"")


def _warnings(weights: WeightFile, wire: Wire, joins: Sequence[Join]) -> tuple[str, ...]:
    if wire is Wire.NONE:
        found = ["a weight file does not say how its layers are joined: every layer stands alone"]
    else:
        found = ["the layers were joined as a chain by order and size; the file does not say so"]
        for join in joins:
            found.append(f"{printable(join.source or 'inputs')} -> {printable(join.target)}: {join.reason}")
    found.extend(f"{printable(entry.name)} was left out: {entry.reason}" for entry in weights.skipped)
    return tuple(found)
