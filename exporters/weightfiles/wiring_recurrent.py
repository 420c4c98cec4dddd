"""LSTM, GRU and RNN modules of torch, expanded into their gates (torch packs i, f, g, o and r, z, n)."""

import numpy as np

from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.values import Track
from emergraph.exporters.tracing.weights import KernelMatrix
from emergraph.exporters.weightfiles.wiring_blocks import IntArray, Wiring
from emergraph.exporters.weightfiles.wiring_modules import Module, ModuleKind
from emergraph.graphstore.records import EdgeKind, LayerKind


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
