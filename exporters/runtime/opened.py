"""LSTM, GRU and RNN as loops of plain operations, in which gates and states can be replaced.

Each layer of such an operation becomes a tensor (steps, batch, units) of the model, with a mask and a value
that `replacing` makes inputs: inside of the loop, what reads the layer reads what replaces it, the next step
included.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from emergraph.exporters.nodes import attributes, input_name
from emergraph.exporters.onnxfile.dtypes import element_type_of
from emergraph.exporters.operations import (
    ADD,
    GATHER,
    GRU,
    IDENTITY,
    LSTM,
    MUL,
    RELU,
    RNN,
    SIGMOID,
    SUB,
    TANH,
)
from emergraph.exporters.runtime.concrete import TensorValue
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.replacing import inputs_of

USUAL = {LSTM: (SIGMOID, TANH, TANH), GRU: (SIGMOID, TANH), RNN: (TANH,)}
"""Nonlinearities where an operation names none."""
_CURVES = {name.lower(): name for name in (SIGMOID, TANH, RELU, "HardSigmoid", "Softsign")}


class NotOpened(Exception):  # noqa: N818 - a reason that is told, not an error
    """Why an operation stays as it is."""


@dataclass(frozen=True)
class Opened:
    """A model with some recurrent operations as loops."""

    flat: FlatModel
    values: Mapping[str, TensorValue]
    """Of the tensors of their layers."""
    tensors: Mapping[str, tuple[str, ...]]
    """By name of the operation: (steps, batch, units) of its layers, in the order of the graph's."""
    refused: Mapping[str, str]
    """Operations that stay as they are, by name, and why."""


def opened(flat: FlatModel, names: Iterable[str], values: Mapping[str, TensorValue]) -> Opened:
    """Write recurrent operations of a model out.

    Args:
        flat: The model, of version 9 of the standard operations or later.
        names: Of operations at its top level.
        values: What a run of the model gave.
    """
    wanted, nodes = set(names), []
    tensors: dict[str, tuple[str, ...]] = {}
    made: dict[str, TensorValue] = {}
    refused: dict[str, str] = {}
    for node in flat.nodes:
        if node.name in wanted:
            try:
                loop = _Loop(node, values, flat.opsets.get("", 0))
                nodes += loop.nodes()
            except NotOpened as reason:
                refused[node.name] = str(reason)
            else:
                tensors[node.name] = tuple(loop.part(name) for name, _ in loop.parts)
                made |= loop.values()
                continue
        nodes.append(node)
    return Opened(replace(flat, nodes=tuple(nodes)), made, tensors, refused)


class _Loop:
    """One operation as loops, one for each direction."""

    def __init__(self, node: onnx.NodeProto, values: Mapping[str, TensorValue], opset: int) -> None:
        self._node, self._opset, self._given = node, opset, attributes(node)
        if node.domain or node.op_type not in USUAL:
            raise NotOpened(f"{node.op_type} is not written out")
        x, r = values.get(node.input[0]), values.get(node.input[2])
        shapes = [None if one is None else one.shape for one in (x, r)]
        if x is None or x.dtype is None or shapes[0] is None:
            raise NotOpened("the model does not show what it reads")
        self._type, self._dtype = element_type_of(x.dtype) or 0, x.dtype
        self._batch_first = self._given.get("layout", 0) == 1
        self._steps, self._batch = shapes[0][:2][:: -1 if self._batch_first else 1]
        hidden = self._given.get("hidden_size")
        if not isinstance(hidden, int):
            raise NotOpened("it does not say how many units it has")
        self._hidden = hidden
        self._directions = 2 if self._direction == "bidirectional" else 1
        self._curves = self._nonlinearities()
        self._check(values)
        self._base = next(name for name in node.output if name)
        self._top: list[onnx.NodeProto] = []
        self._count = 0
        self._into = self._top

    @property
    def _direction(self) -> str:
        found = self._given.get("direction", b"forward")
        return found.decode() if isinstance(found, bytes) else str(found)

    @property
    def _after(self) -> bool:
        """Whether a GRU resets what its recurrent weights give, and not the state that they read."""
        return bool(self._given.get("linear_before_reset", 0))

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Its layers, and how many units of each belong to one cell."""
        kind = self._node.op_type
        if kind == LSTM:
            return ("gates", 4), ("cell", 1), ("state", 1)
        if kind == GRU:
            reset = () if self._after else (("reset", 1),)
            return ("gates", 2), *reset, ("candidate", 1), ("state", 1)
        return (("state", 1),)

    def part(self, name: str) -> str:
        """The tensor of one of its layers."""
        return f"{self._base}\0{name}"

    def values(self) -> dict[str, TensorValue]:
        """Shapes and types of those tensors."""
        width = self._directions * self._hidden
        return {
            self.part(name): TensorValue((self._steps, self._batch, n * width), self._dtype)
            for name, n in self.parts
        }

    def _check(self, values: Mapping[str, TensorValue]) -> None:
        given = self._given
        lengths = values.get(input_name(self._node, 4) or "")
        if input_name(self._node, 4):
            known = None if lengths is None else lengths.value
            if known is None or (np.asarray(known) != self._steps).any():
                raise NotOpened("its samples have different lengths")
        if given.get("activation_alpha") or given.get("activation_beta"):
            raise NotOpened("its nonlinearities have parameters of their own")
        if given.get("input_forget"):
            raise NotOpened("its input and forget gates are coupled")

    def _nonlinearities(self) -> list[str]:
        usual = list(USUAL[self._node.op_type])
        named = self._given.get("activations") or ()
        assert isinstance(named, list | tuple)  # noqa: S101 - by the schema
        names = [one.decode() if isinstance(one, bytes) else str(one) for one in named]
        names = names or usual * self._directions
        unknown = [name for name in names if name.lower() not in _CURVES]
        if unknown:
            raise NotOpened(f"its nonlinearity {unknown[0]} is not written out")
        return [_CURVES[name.lower()] for name in names]

    # Nodes

    def _name(self) -> str:
        self._count += 1
        return f"{self._base}\0{self._count}"

    def _op(self, kind: str, *inputs: str, out: str | None = None, **settings: Any) -> str:  # noqa: ANN401
        out = out or self._name()
        self._into.append(oh.make_node(kind, list(inputs), [out], name=f"{out}\0op", **settings))
        return out

    def _constant(self, values: object, out: str | None = None) -> str:
        """A constant outside of the loop."""
        tensor = numpy_helper.from_array(np.asarray(values))
        out = out or self._name()
        self._top.append(oh.make_node("Constant", [], [out], name=f"{out}\0op", value=tensor))
        return out

    def _scalar(self, value: float) -> str:
        return self._constant(np.asarray(value, self._dtype))

    def _columns(self, name: str, start: int, n: int, axis: int = 1) -> str:
        return self._op(GATHER, name, self._constant(np.arange(start, start + n)), axis=axis)

    def _unsqueezed(self, name: str, axis: int) -> str:
        if self._opset >= 13:
            return self._op("Unsqueeze", name, self._constant([axis]))
        return self._op("Unsqueeze", name, axes=[axis])

    def nodes(self) -> list[onnx.NodeProto]:
        """Everything, in order."""
        x = self._node.input[0]
        x = self._op("Transpose", x, perm=[1, 0, 2]) if self._batch_first else x
        shape = self._op("Shape", x)
        self._batch_size = self._op(GATHER, shape, self._constant([1]), axis=0)
        steps = self._op(GATHER, shape, self._constant([0]), axis=0)
        spread = self._op("Concat", steps, self._constant([1, 1]), axis=0)
        masks = {name: self._masks(name, spread) for name, _ in self.parts}
        found = [self._one_direction(d, x, masks) for d in range(self._directions)]
        for k, (name, _) in enumerate(self.parts):
            self._op("Concat", *(one[0][k] for one in found), axis=2, out=self.part(name))
        outputs = [*self._node.output, "", "", ""][:3]
        if outputs[0]:
            each = [self._unsqueezed(one[1], 1) for one in found]
            self._give(each, 1, [2, 0, 1, 3], outputs[0])
        for k in (1, 2):
            if outputs[k]:
                each = [self._unsqueezed(one[2][k - 1], 0) for one in found]
                self._give(each, 0, [1, 0, 2], outputs[k])
        return self._top

    def _give(self, each: Sequence[str], axis: int, perm: Sequence[int], out: str) -> None:
        if self._batch_first:
            self._op("Transpose", self._op("Concat", *each, axis=axis), perm=list(perm), out=out)
        else:
            self._op("Concat", *each, axis=axis, out=out)

    def _masks(self, name: str, spread: str) -> tuple[str, str]:
        """Mask and value of a layer at every step: at first constants, which replace nothing."""
        own = inputs_of(self.part(name))
        width = dict(self.parts)[name] * self._directions * self._hidden
        true, zero = np.ones((1, 1, width), bool), np.zeros((1, 1, width), self._dtype)
        self._constant(true, own.mask)
        self._constant(zero, own.value)
        return self._op("Expand", own.mask, spread), self._op("Expand", own.value, spread)

    def _picked(self, position: int, direction: int) -> str:
        """What an input of the operation gives to a direction."""
        return self._op(GATHER, self._node.input[position], self._constant(direction), axis=0)

    def _initial(self, position: int, direction: int) -> str:
        if name := input_name(self._node, position):
            axis = 1 if self._batch_first else 0
            return self._op(GATHER, name, self._constant(direction), axis=axis)
        shape = self._op("Concat", self._batch_size, self._constant([self._hidden]), axis=0)
        zero = oh.make_tensor("zero", self._type, [1], [0.0])
        return self._op("ConstantOfShape", shape, value=zero)

    def _one_direction(
        self, d: int, x: str, masks: Mapping[str, tuple[str, str]]
    ) -> tuple[list[str], str, list[str]]:
        """A loop; gives the tensors of layers, the states as they are read, and the last state and cell."""
        n = self._hidden
        self._w = self._op("Transpose", self._picked(1, d), perm=[1, 0])
        self._r = self._op("Transpose", self._picked(2, d), perm=[1, 0])
        rows = {LSTM: 4, GRU: 3, RNN: 1}[self._node.op_type] * n
        if input_name(self._node, 3):
            both = self._picked(3, d)
            self._bias = [self._columns(both, k * rows, rows, axis=0) for k in (0, 1)]
        else:
            zeros = self._constant(np.zeros(rows, self._dtype))
            self._bias = [zeros, zeros]
        self._peep = self._picked(7, d) if input_name(self._node, 7) else None
        self._own_curves = self._curves[d * len(USUAL[self._node.op_type]) :]
        has_cell = self._node.op_type == LSTM
        before = [self._initial(5, d), *([self._initial(6, d)] if has_cell else [])]
        scanned = [x]
        for name, width in self.parts:
            scanned += [self._columns(one, d * width * n, width * n, axis=2) for one in masks[name]]
        body, last, stacked = self._body(has_cell=has_cell)
        backward = self._direction == "reverse" or d == 1
        ways = [int(backward)]
        self._top.append(
            oh.make_node(
                "Scan",
                [*before, *scanned],
                [*last, *stacked],
                name=self._name(),
                body=body,
                num_scan_inputs=len(scanned),
                scan_input_directions=ways * len(scanned),
                scan_output_directions=ways * len(stacked),
            )
        )
        return stacked[:-1], stacked[-1], last

    def _body(self, *, has_cell: bool) -> tuple[onnx.GraphProto, list[str], list[str]]:
        """One step; and names for the last states and for what the steps give."""
        nodes: list[onnx.NodeProto] = []
        self._into = nodes
        states = [self._name() for _ in range(1 + has_cell)]
        x = self._name()
        masks = {name: (self._name(), self._name()) for name, _ in self.parts}
        step = {LSTM: self._lstm, GRU: self._gru, RNN: self._rnn}[self._node.op_type]
        given, after = step(x, states, masks)
        after = [self._op(IDENTITY, one) for one in after]
        given = [self._op(IDENTITY, one) for one in (*given, after[0])]
        self._into = self._top
        inputs = [oh.make_tensor_value_info(name, self._type, None) for name in (*states, x)]
        for mask, value in masks.values():
            inputs.append(oh.make_tensor_value_info(mask, onnx.TensorProto.BOOL, None))
            inputs.append(oh.make_tensor_value_info(value, self._type, None))
        outputs = [oh.make_tensor_value_info(name, self._type, None) for name in (*after, *given)]
        body = oh.make_graph(nodes, "step", inputs, outputs)
        return body, [self._name() for _ in after], [self._name() for _ in given]

    # Inside of a step

    def _bent(self, name: str, curve: int) -> str:
        clip = self._given.get("clip")
        if clip is not None:
            most = float(str(clip))
            name = self._op("Min", name, self._scalar(most))
            name = self._op("Max", name, self._scalar(-most))
        return self._op(self._own_curves[curve], name)

    def _summed(self, x: str, h: str, start: int, n: int) -> str:
        """Columns of W x + R h + both biases."""
        w, r, input_bias, state_bias = self._weights(start, n)
        parts = [self._op("MatMul", one, weights) for one, weights in ((x, w), (h, r))]
        return self._op(ADD, self._op(ADD, *parts), self._op(ADD, input_bias, state_bias))

    def _weights(self, start: int, n: int) -> list[str]:
        """Columns of W, R and both biases, picked outside of the loop."""
        inside, self._into = self._into, self._top
        found = [self._columns(one, start, n) for one in (self._w, self._r)]
        found += [self._columns(one, start, n, axis=0) for one in self._bias]
        self._into = inside
        return found

    def _kept(self, name: str, masks: tuple[str, str], start: int = 0) -> str:
        """A layer's own values, or what replaces them."""
        mask, value = (self._columns(one, start, self._hidden) for one in masks)
        return self._op("Where", mask, name, value)

    def _lstm(
        self, x: str, states: Sequence[str], masks: Mapping[str, tuple[str, str]]
    ) -> tuple[list[str], list[str]]:
        """Gates i, o, f, c: c' = f c + i g, h' = o tanh(c')."""
        n, (h, c) = self._hidden, states

        def gate(k: int, curve: int, cell: str | None) -> tuple[str, str]:
            z = self._summed(x, h, k * n, n)
            if cell is not None and self._peep is not None:
                own = self._columns(self._peep, k * n, n, axis=0)
                z = self._op(ADD, z, self._op(MUL, own, cell))
            own = self._bent(z, curve)
            return own, self._kept(own, masks["gates"], k * n)

        (i, i_read), (f, f_read), (g, g_read) = gate(0, 0, c), gate(2, 0, c), gate(3, 1, None)
        memory = self._op(ADD, self._op(MUL, f_read, c), self._op(MUL, i_read, g_read))
        cell = self._kept(memory, masks["cell"])
        o, o_read = gate(1, 0, cell)
        state = self._op(MUL, o_read, self._op(self._own_curves[2], cell))
        gates = self._op("Concat", i, o, f, g, axis=1)
        return [gates, memory, state], [self._kept(state, masks["state"]), cell]

    def _gru(
        self, x: str, states: Sequence[str], masks: Mapping[str, tuple[str, str]]
    ) -> tuple[list[str], list[str]]:
        """Gates z, r and candidate n: h' = (1 - z) n + z h."""
        n, h = self._hidden, states[0]
        z, r = (self._bent(self._summed(x, h, k * n, n), 0) for k in (0, 1))
        z_read, r_read = (self._kept(one, masks["gates"], k * n) for k, one in enumerate((z, r)))
        given = [self._op("Concat", z, r, axis=1)]
        w, weights, input_bias, state_bias = self._weights(2 * n, n)
        if self._after:
            product = self._op(ADD, self._op("MatMul", h, weights), state_bias)
            inner = self._op(MUL, r_read, product)
        else:
            reset = self._op(MUL, r_read, h)
            given.append(reset)
            read = self._kept(reset, masks["reset"])
            inner = self._op(ADD, self._op("MatMul", read, weights), state_bias)
        own = self._op(ADD, self._op("MatMul", x, w), input_bias)
        new = self._bent(self._op(ADD, own, inner), 1)
        new_read = self._kept(new, masks["candidate"])
        fresh = self._op(MUL, self._op(SUB, self._scalar(1.0), z_read), new_read)
        state = self._op(ADD, fresh, self._op(MUL, z_read, h))
        return [*given, new, state], [self._kept(state, masks["state"])]

    def _rnn(
        self, x: str, states: Sequence[str], masks: Mapping[str, tuple[str, str]]
    ) -> tuple[list[str], list[str]]:
        """H' = f(W x + R h + b)."""
        state = self._bent(self._summed(x, states[0], 0, self._hidden), 0)
        return [state], [self._kept(state, masks["state"])]
