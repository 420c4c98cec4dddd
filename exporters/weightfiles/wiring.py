"""A weight file as a graph: separate bipartite layers, or a chain where order and shapes leave no choice."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from emergraph.errors import InvalidInputError
from emergraph.exporters.counts import bytes_of
from emergraph.exporters.filetensors import FileTensors, is_weight
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.summary import GraphSummary, nonfinite_warnings
from emergraph.exporters.tracing.builder import GraphBuilder, LayerDraft
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.weights import KernelMatrix
from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.weightfiles.encodings.parameter import COUNTED, Parameter, Part, count_values
from emergraph.exporters.weightfiles.plainarrays import ORIENTATION
from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.exporters.weightfiles.wiring_blocks import (
    IntArray,
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
from emergraph.exporters.weightfiles.wiring_sequential import Join, chain
from emergraph.graphstore.records import (
    NEURON_LAYER_KINDS,
    EdgeKind,
    GraphHeader,
    GraphSink,
    LayerKind,
    Operation,
    Tensor,
    TracedAs,
)

# LSTM, GRU and RNN modules of torch, expanded into their gates (torch packs i, f, g, o and r, z, n).


class _Cell:
    """Weights of one direction, by rows of gates."""

    def __init__(self, wiring: Wiring, module: Module, sources: IntArray) -> None:
        self.wiring, self.module, self.sources = wiring, module, sources
        self.into, self.again = module.parts["weight_ih"], module.parts["weight_hh"]
        self.hidden = self.again.shape[1]
        self.op = module.kind.value.upper()
        rows = self.into.shape[0]
        biases = [module.parts[role] for role in ("bias_ih", "bias_hh") if role in module.parts]
        total = np.zeros(rows)
        for bias in biases:
            wiring.understand(bias, "bias")
            total = total + bias.floats().astype(np.float64)
        self.bias = total if biases else None
        wiring.understand(self.into, "weight")
        wiring.understand(self.again, "weight")
        self.parameters = [self.into, self.again, *biases]

    def layer(self, suffix: str, kind: LayerKind, gates: int, rows: slice | None = None) -> LayerDraft:
        name = f"{self.module.name}:{suffix}" if suffix else self.module.name
        layer = self.wiring.builder.add_layer(name, self.op, kind, gates * self.hidden)
        if rows is not None and self.bias is not None:
            layer.raw = Track(None, None, bias=self.bias[rows])
        return layer

    def weights(self, layer: LayerDraft, rows: slice, state: IntArray, *, note: str) -> None:
        """Edges from the input and, one time step later, from the state into rows of gates."""
        whole = rows == slice(0, self.into.shape[0])
        blocks = (
            (self.into, self.sources, EdgeKind.WEIGHT),
            (self.again, state, EdgeKind.RECURRENT),
        )
        for parameter, sources, kind in blocks:
            matrix = KernelMatrix(parameter.floats()[rows].T)
            block = self.wiring.block(
                layer, parameter, sources, layer.units, matrix, op=self.op, kind=kind, note=note
            )
            if whole:
                self.wiring.hold(parameter, block, transposed=True)

    def link(self, layer: LayerDraft, src: IntArray, dst: IntArray, kind: EdgeKind) -> None:
        self.wiring.builder.edges(layer, name=layer.name, op=self.op, kind=kind, src=src, dst=dst)


def write_recurrent(wiring: Wiring, module: Module, sources: IntArray) -> LayerDraft:
    """Write a recurrent module and return the layer of its hidden state.

    Args:
        wiring: The graph.
        module: A module of kind LSTM, GRU or RNN.
        sources: (n_inputs,) units that it reads.
    """
    cell = _Cell(wiring, module, sources)
    write = {ModuleKind.LSTM: _lstm, ModuleKind.GRU: _gru, ModuleKind.RNN: _rnn}[module.kind]
    return write(cell)


def _lstm(cell: _Cell) -> LayerDraft:
    """C' = f c + i g; h' = o tanh(c')."""
    n = cell.hidden
    gates = cell.layer("gates", LayerKind.RNN_GATE, 4, slice(None))
    memory = cell.layer("cell", LayerKind.RNN_CELL, 1)
    state = cell.layer("", LayerKind.RNN_HIDDEN, 1)
    cell.weights(gates, slice(0, 4 * n), state.units, note="gates i, f, g, o")
    i, f, g, o = (gates.units[k * n : (k + 1) * n] for k in range(4))
    c, h = memory.units, state.units
    cell.link(memory, np.concatenate([i, g, f]), np.tile(c, 3), EdgeKind.GATE)
    cell.link(memory, c, c, EdgeKind.RECURRENT)
    cell.link(state, np.concatenate([o, c]), np.tile(h, 2), EdgeKind.GATE)
    cell.wiring.count(gates, *cell.parameters)
    return state


def _gru(cell: _Cell) -> LayerDraft:
    """N = tanh(W x + r (R h)); h' = (1 - z) n + z h."""
    n = cell.hidden
    gates = cell.layer("gates", LayerKind.RNN_GATE, 2, slice(0, 2 * n))
    candidate = cell.layer("candidate", LayerKind.RNN_GATE, 1, slice(2 * n, 3 * n))
    state = cell.layer("", LayerKind.RNN_HIDDEN, 1)
    cell.weights(gates, slice(0, 2 * n), state.units, note="gates r, z")
    cell.weights(candidate, slice(2 * n, 3 * n), state.units, note="candidate n")
    r, z = gates.units[:n], gates.units[n:]
    new, h = candidate.units, state.units
    cell.link(candidate, r, new, EdgeKind.GATE)
    cell.link(state, np.concatenate([z, new]), np.tile(h, 2), EdgeKind.GATE)
    cell.link(state, h, h, EdgeKind.RECURRENT)
    cell.wiring.count(gates, *cell.parameters)
    return state


def _rnn(cell: _Cell) -> LayerDraft:
    """H' = f(W x + R h)."""
    state = cell.layer("", LayerKind.RNN_HIDDEN, 1, slice(None))
    cell.weights(state, slice(0, cell.hidden), state.units, note="")
    cell.wiring.count(state, *cell.parameters)
    return state


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


_TRACED_AS = {
    ModuleKind.DENSE: TracedAs.CONTRACTED,
    ModuleKind.CONV: TracedAs.CONTRACTED,
    ModuleKind.EMBEDDING: TracedAs.EMBEDDED,
    ModuleKind.NORM: TracedAs.NORMALISED,
    ModuleKind.LSTM: TracedAs.RECURRENT,
    ModuleKind.GRU: TracedAs.RECURRENT,
    ModuleKind.RNN: TracedAs.RECURRENT,
    ModuleKind.OTHER: TracedAs.OPAQUE,
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
        settings={
            "wire": wire.value,
            "tied": tied,
            **({"beside": _digest(weights.config)} if weights.config else {}),
        },
    )


def export_weights(
    weights: WeightFile, sink: GraphSink, *, wire: Wire = Wire.NONE, in_place: bool = False
) -> WiringSummary:
    """Write the graph of a weight file: blocks, layers, units, tensors, operations.

    Every tensor of the file can be restored from what is written, tied ones by the first of their names.

    Args:
        weights: What `read_weights` gave.
        sink: A store's writer, or one that counts.
        wire: How the layers are joined.
        in_place: Whether edges stay in the file where they can.

    Returns:
        Counts, coverage, the joins with their reasons, and warnings.

    Raises:
        InvalidInputError: no tensor is recognised as a layer's weight, or the layers do not form a chain.

    Example:
        >>> from emergraph.exporters.counting import CountingSink
        >>> from emergraph.exporters.weightfiles.reader import read_weights
        >>> weights = read_weights("model.safetensors")  # doctest: +SKIP
        >>> export_weights(weights, CountingSink()).n_edges  # doctest: +SKIP
        10764288
    """
    found = parameters(weights)
    modules, notes = _modules(weights, found)
    if not _n_layers(modules):
        raise InvalidInputError(f"{printable(weights.source)}: {_nothing(modules)}")
    wiring = Wiring(GraphBuilder(sink, file_tensors(weights, in_place=in_place)))
    joins = _separate(wiring, modules) if wire is Wire.NONE else _joined(wiring, modules, weights)
    wiring.builder.finish()
    n_parameters, n_understood, not_finite = _write_tensors(wiring, weights, found, sink)
    operations = tuple(_operation(wiring, index, module) for index, module in enumerate(modules))
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
        warnings=(
            *_warnings(weights, wire, joins),
            *notes,
            *_decoded(found),
            *nonfinite_warnings(not_finite, n_parameters),
        ),
        n_nonfinite=sum(not_finite.values()),
        n_in_place=wiring.builder.n_in_place,
        rows=dict(wiring.builder.rows),
    )


def file_tensors(weights: WeightFile, *, in_place: bool = False) -> FileTensors:
    """Return the tensors of a weight file that its files hold as they are."""
    return FileTensors(weights.files, lambda name: weights.tensors[name].held(), in_place=in_place)


def weights_in_file(weights: WeightFile) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of the tensors whose weights can stay in a file."""
    for tensor in weights.tensors.values():
        if tensor.alias_of is None and tensor.held() is not None:
            if tensor.blocks is not None:
                yield tensor.blocks.shape
            elif is_weight(tensor.dtype):
                yield tensor.shape


def _digest(settings: Mapping[str, object]) -> str:
    """What tells settings apart: they decide the weights, and may be long."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()


_PLAIN_FORMATS = frozenset({"npz", "pickle"})
"""Formats of plain arrays, whose names follow no framework."""


def _modules(weights: WeightFile, found: Mapping[str, Parameter]) -> tuple[list[Module], tuple[str, ...]]:
    """The modules of a file, and what was assumed of matrices whose names say nothing."""
    modules = group_modules(found)
    if weights.format in _PLAIN_FORMATS:
        plain = group_modules(found, plain=True)
        if _n_layers(plain) > _n_layers(modules):
            return plain, (ORIENTATION,)
    return modules, ()


def _n_layers(modules: Sequence[Module]) -> int:
    return sum(module.kind not in {ModuleKind.OTHER, ModuleKind.NORM} for module in modules)


def _nothing(modules: Sequence[Module]) -> str:
    """Why no layer was found: weights whose encoding is not defined are named."""
    message = "no tensor is recognised as the weight of a layer, so no weighted graph can be created"
    for module in modules:
        problem = next((part.problem for part in module.parts.values() if part.problem), "")
        if problem:
            return f"{message}; {printable(module.name)} is not understood: {problem}"
    return message


def _decoded(found: Mapping[str, Parameter]) -> tuple[str, ...]:
    """What was computed from what is stored, by scheme."""
    schemes = Counter(
        parameter.encoding.scheme
        for parameter in found.values()
        if parameter.encoding is not None and parameter.encoding.decode is not None
    )
    return tuple(f"weights computed from what is stored: {n} of {scheme}" for scheme, n in schemes.items())


def _separate(wiring: Wiring, modules: Sequence[Module]) -> list[Join]:
    """Every layer by itself; packed parts read the same inputs."""
    last: dict[str, LayerDraft] = {}
    read = {module.reads for module in modules}
    for module in _in_order(modules):
        if module.kind is ModuleKind.NORM:
            understand_norm(wiring, module)
            continue
        if module.kind is ModuleKind.OTHER:
            continue
        if module.kind is ModuleKind.EMBEDDING:
            made = [write_embedding(wiring, module)]
        else:
            first = last.get(module.reads) if module.reads is not None else None
            sources = wiring.source(module.name, input_size(module)) if first is None else first
            groups = input_size(module) if module.depthwise else 1
            made = _write(wiring, module, sources, groups=groups)
        last[module.name] = made[-1]
        for layer in made:
            layer.is_output = module.name not in read
    return []


def _in_order(modules: Sequence[Module]) -> list[Module]:
    """The modules in file order, but each behind the one that it reads."""
    waiting: dict[str, list[Module]] = {}
    names = {module.name for module in modules}
    seen: set[str] = set()
    ordered: list[Module] = []
    for module in modules:
        if module.reads is not None and module.reads in names - seen:
            waiting.setdefault(module.reads, []).append(module)
            continue
        placed = [module, *waiting.pop(module.name, [])]
        ordered.extend(placed)
        seen.update(one.name for one in placed)
    return ordered


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


def _operation(wiring: Wiring, index: int, module: Module) -> Operation:
    traced = _TRACED_AS[module.kind]
    counted = sum(_n_counted(wiring, parameter) for parameter in module.parts.values())
    if traced is TracedAs.OPAQUE and not counted:
        traced = TracedAs.CONSTANT  # counters, indices, empty buffers: no weights whose use could be unknown
    return Operation(
        index=index,
        name=module.name,
        op=module.op,
        domain="",
        traced_as=traced,
        reason=module.why,
        n_params=counted,
    )


def _n_counted(wiring: Wiring, parameter: Parameter) -> int:
    """Parameters that the weights are, with those of an adapter or a norm that they are made from."""
    if not _is_parameter(parameter):
        return 0
    parts = sum(wiring.part_counts(part).n_params for part in parameter.parts)
    return (parameter.n_elements if not parameter.problem else parameter.tensor.n_elements) + parts


def _is_parameter(parameter: Parameter) -> bool:
    """Floating-point tensors and quantized weights; not counters, indices and masks."""
    tensor = parameter.tensor
    return not parameter.is_plain or tensor.dtype in FLOATING or tensor.dtype in {"int8", "uint8"}


def _write_tensors(
    wiring: Wiring, weights: WeightFile, found: Mapping[str, Parameter], sink: GraphSink
) -> tuple[int, int, dict[str, int]]:
    """Write every tensor once; counts all parameters, the understood ones, and by tensor those not finite."""
    total = understood = 0
    not_finite: dict[str, int] = {}
    holding = {parameter.tensor.name: parameter for parameter in found.values()}
    parts = {
        part.tensor.alias_of or part.tensor.name: part
        for parameter in found.values()
        for part in parameter.parts
    }
    for name, tensor in weights.tensors.items():
        if tensor.alias_of is not None:
            continue
        record = _tensor(wiring, tensor, holding.get(name), parts.get(name))
        sink.write_tensor(record)
        total += record.n_params
        understood += record.n_params if record.understood else 0
        not_finite[record.name] = record.n_nonfinite if record.n_params else 0
    return total, understood, not_finite


def _tensor(wiring: Wiring, tensor: LazyTensor, parameter: Parameter | None, part: Part | None) -> Tensor:
    """The record of a stored tensor: of the weights that it holds, or of its part in those of another."""
    held = wiring.held.get(tensor.name)
    if parameter is None and part is not None and part.role in COUNTED:
        counted, counts = True, wiring.part_counts(part)
    elif parameter is not None:
        counted, counts = _is_parameter(parameter), wiring.counts(parameter)
    else:
        counted, counts = False, count_values(tensor)
    view = tensor.held()
    data = bytes_of(tensor.array() if view is None else view)
    role = wiring.roles.get(tensor.name, "other" if part is None or parameter is not None else part.role)
    return Tensor(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        n_params=counts.n_params if counted else 0,
        n_zeros=counts.n_zeros if counted else 0,
        n_nonfinite=counts.n_nonfinite,
        understood=not counted or tensor.name in wiring.roles,
        role=role,
        data=None if held else data,
        block=held.block if held else None,
        block_transposed=held.transposed if held else False,
        sha256=hashlib.sha256(data).hexdigest() if held else None,
        in_file=wiring.builder.tensors.in_file(tensor.name),
    )


def _warnings(weights: WeightFile, wire: Wire, joins: Sequence[Join]) -> tuple[str, ...]:
    if wire is Wire.NONE:
        found = ["a weight file does not say how its layers are joined: every layer stands alone"]
    else:
        found = ["the layers were joined as a chain by order and size; the file does not say so"]
        for join in joins:
            found.append(f"{printable(join.source or 'inputs')} -> {printable(join.target)}: {join.reason}")
    for entry in weights.skipped:
        found.append(f"{printable(entry.name)} was left out: {entry.reason}" if entry.name else entry.reason)
    return tuple(found)
