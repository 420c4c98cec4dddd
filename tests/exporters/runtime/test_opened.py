"""Recurrent operations as loops give what the operations give, and say where they cannot be opened."""

from itertools import product

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper as oh
from onnx import numpy_helper

from emergraph.exporters.runtime.concrete import TensorValue
from emergraph.exporters.runtime.flat_model import FlatModel, flat_input
from emergraph.exporters.runtime.opened import opened
from emergraph.exporters.runtime.replacing import following, replacing

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
HIDDEN, READ, STEPS, BATCH = 3, 4, 5, 2


def rows(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


class Case:
    """One operation with random weights, whole and as a loop."""

    def __init__(self, kind, *, opset=17, initial=False, lengths=None, **settings):
        rng = np.random.default_rng(1)
        n, both = GATES[kind] * HIDDEN, 1 + (settings.get("direction") == "bidirectional")
        layout = settings.get("layout", 0)
        weights = {
            "w": rows(rng, both, n, READ),
            "r": rows(rng, both, n, HIDDEN),
            "b": rows(rng, both, 2 * n),
        }
        if kind == "LSTM":
            weights["p"] = rows(rng, both, 3 * HIDDEN)
        if lengths is not None:
            weights["lengths"] = np.array(lengths, np.int32)
        self.feeds = {"x": rows(rng, *((BATCH, STEPS) if layout else (STEPS, BATCH)), READ)}
        names = ["h0", "c0"][: 1 + (kind == "LSTM")] if initial else []
        for name in names:
            self.feeds[name] = rows(rng, *((BATCH, both) if layout else (both, BATCH)), HIDDEN)
        inputs = ["x", "w", "r", "b", "lengths" if lengths is not None else "", *(names or [""])]
        if kind == "LSTM":
            inputs += [*([""] if not names else []), "p"]
        self.outputs = ["y", "yh", *(["yc"] if kind == "LSTM" else [])]
        node = oh.make_node(kind, inputs, self.outputs, name="rnn", hidden_size=HIDDEN, **settings)
        self.initializers = [numpy_helper.from_array(a, name) for name, a in weights.items()]
        self.inputs = [oh.make_tensor_value_info(name, 1, a.shape) for name, a in self.feeds.items()]
        self.opset = opset
        self.flat = FlatModel(
            (node,),
            {one.name: one for one in self.initializers},
            tuple(map(flat_input, self.inputs)),
            tuple(self.outputs),
            {"": opset},
            8,
            {},
        )
        self.values = {name: TensorValue(a.shape, a.dtype) for name, a in self.feeds.items()}
        self.values |= {name: TensorValue(a.shape, a.dtype, a) for name, a in weights.items()}
        self.expected = self.run(self.flat, self.outputs)
        self.opened = opened(self.flat, ["rnn"], self.values)

    def run(self, flat, outputs, **feeds):
        inputs = [
            oh.make_tensor_value_info(one.name, one.element_type, [None] * len(one.shape))
            for one in flat.inputs
        ]
        ends = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = oh.make_graph(list(flat.nodes), "g", inputs, ends, self.initializers)
        model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", self.opset)], ir_version=8)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options)
        given = {one.name: {**self.feeds, **feeds}[one.name] for one in flat.inputs}
        return dict(zip(outputs, session.run(outputs, given), strict=True))


CASES = [
    *(
        (kind, {"direction": way, "initial": initial, **more})
        for kind, way, initial, more in product(
            GATES, ("forward", "reverse", "bidirectional"), (False, True), ({}, {"clip": 0.5})
        )
    ),
    *(("GRU", {"linear_before_reset": 1, "direction": way}) for way in ("forward", "bidirectional")),
    *((kind, {"opset": opset, "initial": True}) for kind in GATES for opset in (9, 12, 13)),
    ("RNN", {"activations": ["Relu", "Sigmoid"], "direction": "bidirectional"}),
    ("LSTM", {"activations": ["hardsigmoid", "Softsign", "Tanh"]}),
    ("GRU", {"lengths": [STEPS, STEPS]}),
]


def test_a_loop_gives_what_the_operation_gives():
    for kind, settings in CASES:
        case = Case(kind, **settings)
        assert case.opened.refused == {}, (kind, settings)
        layers = case.opened.tensors["rnn"]
        found = case.run(case.opened.flat, [*case.outputs, *layers])
        for name in case.outputs:
            np.testing.assert_allclose(
                found[name], case.expected[name], atol=1e-5, err_msg=f"{kind} {settings}"
            )
        for name in layers:
            assert case.opened.values[name].shape == found[name].shape
        states = np.moveaxis(case.expected["y"], 1, 2).reshape(STEPS, BATCH, -1)
        np.testing.assert_allclose(found[layers[-1]], states, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("GRU", {"lengths": [STEPS, STEPS - 1]}, "its samples have different lengths"),
        ("LSTM", {"input_forget": 1}, "its input and forget gates are coupled"),
        ("RNN", {"activations": ["ThresholdedRelu"]}, "its nonlinearity ThresholdedRelu is not written out"),
        (
            "RNN",
            {"activations": ["HardSigmoid"], "activation_alpha": [0.3]},
            "its nonlinearities have parameters of their own",
        ),
    ],
)
def test_what_is_not_written_out_says_why(kind, settings, why, monkeypatch):
    monkeypatch.setattr(Case, "run", lambda *_: {})  # onnxruntime may refuse it as well
    case = Case(kind, **settings)
    assert case.opened.refused == {"rnn": why}
    assert case.opened.flat.nodes == case.flat.nodes


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_hand(case, *, forget=None, cell=None):
    """The LSTM in numpy, step by step, with a forget gate or a cell that is what it is told to be."""
    w, r, b, p = (numpy_helper.to_array(one)[0].astype(np.float64) for one in case.initializers)
    h = c = np.zeros((BATCH, HIDDEN))
    steps = []
    for x in case.feeds["x"].astype(np.float64):
        i, o, f, g = np.split(x @ w.T + h @ r.T + b[: len(w)] + b[len(w) :], 4, axis=1)
        peep_i, peep_o, peep_f = np.split(p, 3)
        i, f = sigmoid(i + peep_i * c), sigmoid(f + peep_f * c)
        if forget is not None:
            f[:, forget[0]] = forget[1]
        c = f * c + i * np.tanh(g)
        if cell is not None:
            c[:, cell[0]] = cell[1]
        h = sigmoid(o + peep_o * c) * np.tanh(c)
        steps.append(h)
    return np.stack(steps)[:, None]


@pytest.mark.parametrize(("layer", "unit", "edit"), [(0, 2 * HIDDEN + 1, "forget"), (1, 2, "cell")])
def test_what_replaces_a_gate_or_a_cell_goes_on_inside(layer, unit, edit):
    case = Case("LSTM")
    np.testing.assert_allclose(by_hand(case), case.expected["y"], atol=1e-5)
    tensor = case.opened.tensors["rnn"][layer]
    values = {**case.values, **case.opened.values}
    changed, names = replacing(case.opened.flat, [tensor], values)
    mask = np.ones((1, 1, values[tensor].shape[2]), bool)
    mask[..., unit] = False
    put = {names[tensor].mask: mask, names[tensor].value: np.full(mask.shape, 0.3, np.float32)}
    expected = by_hand(case, **{edit: (unit % HIDDEN, 0.3)})
    assert np.abs(expected - case.expected["y"]).max() > 0.01
    found = case.run(changed, ["y"], **put)["y"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    rest = following(changed, list(put), ["y"], values)
    assert set(rest.reads) == {"x"}
    np.testing.assert_allclose(case.run(rest.flat, ["y"], **put)["y"], expected, atol=1e-5)
