"""LSTM, GRU and RNN, expanded into their gates: a fused operation equals one written out.

Weights from the input are `weight` edges; weights from the hidden state are `recurrent` edges (previous time
step); a carried state is a `recurrent` edge without a weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import TraceContext, rule
from emergraph.exporters.tracing.labels import channel_labels
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.values import Value
from emergraph.exporters.tracing.weights import KernelMatrix, main_root, write_block
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class RecurrentWeights:
    """Weights of a recurrent operation, dequantized if need be."""

    w: Constant
    """(directions, gates * H, I)."""
    r: Constant
    """(directions, gates * H, H)."""
    b: Constant | None
    """(directions, 2 * gates * H): input biases, then recurrent biases."""
    p: Constant | None = None
    """(directions, 3 * H): peepholes of the gates i, o, f."""


@dataclass(frozen=True)
class _Cell:
    """What all three operations share: sizes, weights as arrays, labels of the input and the states."""

    ctx: TraceContext
    weights: RecurrentWeights
    w: FloatArray
    r: FloatArray
    bias: NDArray[np.float64]
    """(directions, gates * H): both biases added."""
    x: Value
    directions: int
    hidden: int

    def layer(self, suffix: str, kind: LayerKind, gates: int, activation: str | None = None) -> LayerDraft:
        """A layer of `gates` units per cell and direction, ordered (direction, gate, cell)."""
        own = self.ctx.layer_name(main_root(self.weights.w, self.ctx))
        name = f"{own}:{suffix}" if suffix else own
        layer = self.ctx.builder.add_layer(name, self.ctx.op, kind, self.directions * gates * self.hidden)
        layer.raw = Track(None, None, activation=activation)
        return layer

    def units(self, layer: LayerDraft, direction: int, gate: int = 0, gates: int = 1) -> NDArray[np.int64]:
        """Units of one gate in one direction."""
        start = layer.first + (direction * gates + gate) * self.hidden
        return np.arange(start, start + self.hidden)

    def set_bias(self, layer: LayerDraft, rows: slice, activation: str | None = None) -> None:
        """Store the summed biases of some gate rows, and the nonlinearity, on the layer's units."""
        bias = None if self.weights.b is None else self.bias[:, rows].ravel()
        layer.raw = Track(None, None, bias=bias, activation=activation)

    def from_input(
        self, layer: LayerDraft, targets: NDArray[np.int64], rows: FloatArray, direction: int
    ) -> None:
        """`weight` edges of rows (targets, I) from the input's units."""
        features, labels = channel_labels(np.moveaxis(self.x.carried, -1, 0)[None])
        write_block(
            self.ctx,
            layer,
            labels,
            targets,
            KernelMatrix(rows.T[features]),
            tensor=main_root(self.weights.w, self.ctx),
            note=f"direction {direction}" if self.directions > 1 else None,
        )

    def from_state(
        self,
        layer: LayerDraft,
        targets: NDArray[np.int64],
        rows: FloatArray,
        state: NDArray[np.int64],
        direction: int,
    ) -> None:
        """`recurrent` edges of rows (targets, H) from the previous step's state."""
        write_block(
            self.ctx,
            layer,
            state,
            targets,
            KernelMatrix(rows.T),
            kind=EdgeKind.RECURRENT,
            tensor=main_root(self.weights.r, self.ctx),
            note=f"direction {direction}" if self.directions > 1 else None,
        )

    def gate(
        self, layer: LayerDraft, sources: Sequence[NDArray[np.int64]], targets: NDArray[np.int64]
    ) -> None:
        """`gate` edges from each source to the same target, unit by unit."""
        self.link(layer, np.concatenate(sources), np.tile(targets, len(sources)), EdgeKind.GATE)

    def link(self, layer: LayerDraft, src: NDArray[np.int64], dst: NDArray[np.int64], kind: EdgeKind) -> None:
        """Structural edges without weights."""
        self.ctx.builder.edges(layer, name=self.ctx.name, op=self.ctx.op, kind=kind, src=src, dst=dst)

    def summed(self, *layers: LayerDraft) -> None:
        """Tell what the operation sums up: X, W, R, B, P, and the lengths and initial states it is given."""
        own = self.weights
        made = (own.w, own.r, own.b, own.p)
        given = (self.ctx.input(k) for k in (4, 5, 6))
        values = [self.x, *(_value(one) for one in made), *(one or _value(None) for one in given)]
        self.ctx.summed(layers[0], values, layers=tuple(layer.id for layer in layers))

    def initial(self, position: int, layer: LayerDraft, direction: int) -> None:
        """A given initial state is the state's previous value: `recurrent` edges without weights."""
        state = self.ctx.input(position)
        if state is None:
            return
        self.ctx.use(state.constant, "initial state")
        if state.labels is None:
            return
        self.ctx.read(state)
        batch_first = self.ctx.attr_int("layout", 0) == 1
        labels = state.labels[:, direction] if batch_first else state.labels[direction]
        cells, units = channel_labels(np.moveaxis(labels, -1, 0)[None])
        pairs = np.unique(np.stack([units, self.units(layer, direction)[cells]], axis=1), axis=0)
        self.link(layer, pairs[:, 0], pairs[:, 1], EdgeKind.RECURRENT)


def _value(constant: Constant | None) -> Value:
    return Value(() if constant is None else constant.shape, constant=constant)


def _cell(ctx: TraceContext, weights: RecurrentWeights, gates: int) -> _Cell:
    x = ctx.read(ctx.value(ctx.node.input[0]))
    ctx.use(weights.w, "weight")
    ctx.use(weights.r, "weight")
    ctx.use(weights.b, "bias")
    ctx.use(weights.p, "weight")
    w, r = weights.w.floats(), weights.r.floats()
    directions, hidden = r.shape[0], r.shape[2]
    bias = np.zeros((directions, gates * hidden))
    if weights.b is not None:
        both = weights.b.load().astype(np.float64).reshape(directions, 2, gates * hidden)
        bias = both.sum(axis=1)
    return _Cell(ctx, weights, w, r, bias, x, directions, hidden)


def _outputs(cell: _Cell, state: LayerDraft, carried: LayerDraft | None) -> None:
    """Y (T, dir, B, H) or, batch first, (B, T, dir, H); Y_h and Y_c (dir, B, H) or (B, dir, H)."""
    ctx = cell.ctx
    batch_first = ctx.attr_int("layout", 0) == 1
    bias, activation = (state.raw.bias, state.raw.activation) if state.raw is not None else (None, None)
    state.raw = None
    for position, layer in ((0, state), (1, state), (2, carried)):
        if layer is None or position >= len(ctx.node.output) or not ctx.node.output[position]:
            continue
        grid = layer.units.reshape(cell.directions, cell.hidden)
        labels: NDArray[np.int64]
        if position == 0:
            labels = grid[None, None] if batch_first else grid[None, :, None, :]
        else:
            labels = grid[None] if batch_first else grid[:, None, :]
        if layer is not state:
            layer.raw = None
        spread = np.broadcast_to(labels, ctx.out_shape(position))
        ctx.new_layer_output(position, layer, spread, bias=bias, activation=activation)
    if state.raw is None:
        state.raw = Track(None, None, bias=bias, activation=activation)
    ctx.did(TracedAs.RECURRENT)


def trace_lstm(ctx: TraceContext, weights: RecurrentWeights) -> None:
    """Gates i, o, f, c; c' = f c + i g; h' = o tanh(c')."""
    cell = _cell(ctx, weights, 4)
    gates = cell.layer("gates", LayerKind.RNN_GATE, 4)
    memory = cell.layer("cell", LayerKind.RNN_CELL, 1)
    state = cell.layer("", LayerKind.RNN_HIDDEN, 1)
    for constant in (weights.w, weights.r, weights.b, weights.p):
        ctx.count_params(gates, constant)
    cell.set_bias(gates, slice(None))
    coupled = ctx.attr_int("input_forget", 0) != 0
    for d in range(cell.directions):
        own = np.arange(gates.first + d * 4 * cell.hidden, gates.first + (d + 1) * 4 * cell.hidden)
        i, o, f, g = (cell.units(gates, d, k, 4) for k in range(4))
        c, h = cell.units(memory, d), cell.units(state, d)
        # With coupled gates f is 1 - i, and its own rows do nothing.
        rows = np.concatenate([i, o, g]) if coupled else own
        chosen = rows - own[0]
        cell.from_input(gates, rows, cell.w[d][chosen], d)
        cell.from_state(gates, rows, cell.r[d][chosen], h, d)
        if weights.p is not None:
            _peepholes(cell, gates, weights.p.floats()[d], c, np.concatenate([i, o, f]), coupled=coupled)
        cell.gate(memory, [i, g] if coupled else [i, f, g], c)
        cell.link(memory, c, c, EdgeKind.RECURRENT)
        cell.initial(6, memory, d)
        cell.gate(state, [o, c], h)
        cell.initial(5, state, d)
    _outputs(cell, state, memory)
    cell.summed(gates, memory, state)


def _peepholes(
    cell: _Cell,
    gates: LayerDraft,
    values: FloatArray,
    memory: NDArray[np.int64],
    targets: NDArray[np.int64],
    *,
    coupled: bool,
) -> None:
    nonzero = values != 0
    if coupled:
        nonzero[2 * cell.hidden :] = False
    cell.ctx.builder.edges(
        gates,
        name=cell.ctx.name,
        op=cell.ctx.op,
        kind=EdgeKind.RECURRENT,
        src=np.tile(memory, 3)[nonzero],
        dst=targets[nonzero],
        weight=values[nonzero],
        tensor=None if cell.weights.p is None else main_root(cell.weights.p, cell.ctx),
        note="peephole",
    )


def trace_gru(ctx: TraceContext, weights: RecurrentWeights) -> None:
    """Gates z, r and candidate n; h' = (1 - z) n + z h."""
    cell = _cell(ctx, weights, 3)
    n = cell.hidden
    gates = cell.layer("gates", LayerKind.RNN_GATE, 2)
    linear_before_reset = ctx.attr_int("linear_before_reset", 0) != 0
    reset = None if linear_before_reset else cell.layer("reset", LayerKind.GATE, 1)
    candidate = cell.layer("candidate", LayerKind.RNN_GATE, 1)
    state = cell.layer("", LayerKind.RNN_HIDDEN, 1)
    for constant in (weights.w, weights.r, weights.b):
        ctx.count_params(gates, constant)
    cell.set_bias(gates, slice(0, 2 * n))
    cell.set_bias(candidate, slice(2 * n, 3 * n))
    for d in range(cell.directions):
        own = np.arange(gates.first + d * 2 * n, gates.first + (d + 1) * 2 * n)
        z, r = cell.units(gates, d, 0, 2), cell.units(gates, d, 1, 2)
        new, h = cell.units(candidate, d), cell.units(state, d)
        cell.from_input(gates, own, cell.w[d, : 2 * n], d)
        cell.from_state(gates, own, cell.r[d, : 2 * n], h, d)
        cell.from_input(candidate, new, cell.w[d, 2 * n :], d)
        if reset is None:
            cell.from_state(candidate, new, cell.r[d, 2 * n :], h, d)
            cell.gate(candidate, [r], new)
        else:
            product = cell.units(reset, d)
            cell.gate(reset, [r], product)
            cell.link(reset, h, product, EdgeKind.RECURRENT)
            cell.from_state(candidate, new, cell.r[d, 2 * n :], product, d)
        cell.gate(state, [z, new], h)
        cell.link(state, h, h, EdgeKind.RECURRENT)
        cell.initial(5, state, d)
    _outputs(cell, state, None)
    cell.summed(gates, *([] if reset is None else [reset]), candidate, state)


def trace_rnn(ctx: TraceContext, weights: RecurrentWeights) -> None:
    """H' = f(W x + R h + b)."""
    cell = _cell(ctx, weights, 1)
    state = cell.layer("", LayerKind.RNN_HIDDEN, 1)
    for constant in (weights.w, weights.r, weights.b):
        ctx.count_params(state, constant)
    activations = ctx.attrs.get("activations")
    name = (
        str(activations[0], "utf-8", "replace") if isinstance(activations, list) and activations else "Tanh"
    )
    cell.set_bias(state, slice(None), name)
    for d in range(cell.directions):
        h = cell.units(state, d)
        cell.from_input(state, h, cell.w[d], d)
        cell.from_state(state, h, cell.r[d], h, d)
        cell.initial(5, state, d)
    _outputs(cell, state, None)
    cell.summed(state)


@rule("LSTM", "GRU", "RNN")
def recurrent(ctx: TraceContext) -> None:
    """A fused recurrent operation with constant weights."""
    w, r, b = ctx.input(1), ctx.input(2), ctx.input(3)
    p = ctx.input(7) if ctx.node.op_type == "LSTM" else None
    x = ctx.value(ctx.node.input[0])
    needed = [None if v is None else v.constant for v in (w, r)]
    extra = [None if v is None else v.constant for v in (b, p)]
    lost = any(v is not None and v.constant is None for v in (b, p))
    if x.labels is None or needed[0] is None or needed[1] is None or lost:
        ctx.make_opaque(f"{ctx.op} whose weights depend on activations")
        return
    weights = RecurrentWeights(needed[0], needed[1], extra[0], extra[1])
    {"LSTM": trace_lstm, "GRU": trace_gru, "RNN": trace_rnn}[ctx.node.op_type](ctx, weights)
