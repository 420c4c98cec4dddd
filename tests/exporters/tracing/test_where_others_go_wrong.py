"""Layouts that a tracer of coupled indices gets wrong: which input of which consumer reads a unit."""

from typing import Any

import numpy as np
import onnx
import pytest
from edgesink import EdgeSink
from nets import Net, initializer
from onnx import numpy_helper
from tracedmodel import Runner, Traced, run_all, trace_model

from emergraph.graphstore.records import EdgeKind, LayerKind


def fed_by(sink: EdgeSink, unit: int, layer: str) -> dict[int, float]:
    """Target index within a layer -> weight, for the edges that leave a unit."""
    first = sink.layer(layer).first_unit
    return {
        int(d) - first: float(w)
        for block in sink.into(layer)
        for s, d, w in zip(block.src, block.dst, block.weight, strict=True)
        if s == unit
    }


def with_zeros(model: onnx.ModelProto, name: str, where: Any) -> onnx.ModelProto:
    """A copy of a model with a slice of an initializer set to zero."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(t for t in copy.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[where] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy


def outputs(model: onnx.ModelProto, traced: Traced) -> list[np.ndarray]:
    found = Runner(model).run(traced.feeds)
    return [found[o.name] for o in model.graph.output]


def assert_same_pruning(
    model: onnx.ModelProto, traced: Traced, producer: tuple[str, Any], consumer: tuple[str, Any]
) -> None:
    """Zeroing a unit where it is made equals zeroing what reads it, and changes something."""
    made = outputs(with_zeros(model, *producer), traced)
    read = outputs(with_zeros(model, *consumer), traced)
    for a, b, untouched in zip(made, read, outputs(model, traced), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        assert not np.allclose(a, untouched)


def shuffled() -> Net:
    net = Net(seed=1)
    h = net.op("Conv", net.input(1, 2, 3, 3), net.param(4, 2, 1, 1, name="maker"), name="maker")
    parts = net.op("Reshape", h, net.ints(1, 2, 2, 3, 3))
    mixed = net.op("Reshape", net.op("Transpose", parts, perm=[0, 2, 1, 3, 4]), net.ints(1, 4, 3, 3))
    net.output(net.op("Conv", mixed, net.param(3, 4, 1, 1, name="reader"), name="reader"))
    return net


def test_channel_shuffle_moves_source_1_to_input_2():
    model = shuffled().model()
    traced = trace_model(model)
    unit = traced.sink.layer("maker").first_unit + 1
    weights = initializer(model, "reader")[:, 2, 0, 0]
    assert fed_by(traced.sink, unit, "reader") == dict(enumerate(weights.tolist()))
    assert_same_pruning(model, traced, ("maker", (1,)), ("reader", (slice(None), 2)))


def test_nhwc_flatten_sends_channel_1_to_rows_1_5_9_13():
    net = Net(seed=2)
    h = net.op("Conv", net.input(1, 2, 2, 2), net.param(4, 2, 1, 1, name="maker"), name="maker")
    flat = net.op("Flatten", net.op("Transpose", h, perm=[0, 2, 3, 1]))
    net.output(net.op("MatMul", flat, net.param(16, 3, name="reader"), name="reader"))
    model = net.model()
    traced = trace_model(model)
    rows = [1, 5, 9, 13]
    unit = traced.sink.layer("maker").first_unit + 1
    weights = initializer(model, "reader")[rows].astype(np.float64)
    found = fed_by(traced.sink, unit, "reader")
    np.testing.assert_allclose([found[k] for k in range(3)], weights.sum(axis=0), rtol=1e-6)
    block = traced.sink.into("reader")[0]
    np.testing.assert_allclose(block.l1[block.src == unit], np.abs(weights).sum(axis=0), rtol=1e-6)
    assert (block.n_params == 4).all()
    assert_same_pruning(model, traced, ("maker", (1,)), ("reader", (rows,)))


def test_picked_channels_feed_the_inputs_they_are_picked_for():
    net = Net(seed=3)
    h = net.op("Conv", net.input(1, 2, 2, 2), net.param(4, 2, 1, 1, name="maker"), name="maker")
    picked = net.op("Gather", h, net.ints(3, 1), axis=1)
    net.output(net.op("Conv", picked, net.param(2, 2, 1, 1, name="reader"), name="reader"))
    model = net.model()
    traced = trace_model(model)
    first = traced.sink.layer("maker").first_unit
    weights = initializer(model, "reader")[:, :, 0, 0]
    assert fed_by(traced.sink, first + 1, "reader") == dict(enumerate(weights[:, 1].tolist()))
    assert fed_by(traced.sink, first + 3, "reader") == dict(enumerate(weights[:, 0].tolist()))
    assert not fed_by(traced.sink, first, "reader")
    assert not fed_by(traced.sink, first + 2, "reader")
    assert_same_pruning(model, traced, ("maker", (1,)), ("reader", (slice(None), 1)))


def test_a_query_is_coupled_with_the_key_of_its_head_alone():
    net = Net(seed=4)
    x = net.input(1, 3, 4)
    heads = []
    for name in ("q", "k", "v"):
        h = net.op("MatMul", x, net.param(4, 4, name=name), name=name)
        heads.append(net.op("Transpose", net.op("Reshape", h, net.ints(1, 3, 2, 2)), perm=[0, 2, 1, 3]))
    scores = net.op("MatMul", heads[0], net.op("Transpose", heads[1], perm=[0, 1, 3, 2]))
    net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), heads[2], name="context"))
    traced = trace_model(net.model())
    sink = traced.sink
    scored = next(layer for layer in sink.layers if layer.kind is LayerKind.SCORE)
    assert scored.n_units == 2
    assert sink.layer("context").kind is LayerKind.CONTEXT
    q, k, v, context = (sink.layer(n).first_unit for n in ("q", "k", "v", "context"))
    score = scored.first_unit
    graph = sink.digraph()
    assert set(graph.successors(q + 1)) == {score}
    assert set(graph.predecessors(score)) == {q, q + 1, k, k + 1}
    assert set(graph.predecessors(context + 1)) == {score, v + 1}
    assert set(graph.predecessors(context + 2)) == {score + 1, v + 2}


@pytest.mark.parametrize("groups", [2, 4])
def test_a_grouped_convolution_reads_one_index_per_group(groups):
    net = Net(seed=5)
    h = net.op("Conv", net.input(1, 2, 2, 2), net.param(4, 2, 1, 1, name="maker"), name="maker")
    width = 4 // groups
    net.output(net.op("Conv", h, net.param(8, width, 1, 1, name="reader"), group=groups, name="reader"))
    model = net.model()
    traced = trace_model(model)
    first = traced.sink.layer("maker").first_unit
    weights = initializer(model, "reader")[:, :, 0, 0]
    for channel in range(4):
        group, within = divmod(channel, width)
        targets = range(group * 8 // groups, (group + 1) * 8 // groups)
        assert fed_by(traced.sink, first + channel, "reader") == {
            o: float(weights[o, within]) for o in targets
        }
    per_group = slice(0, 8 // groups)
    assert_same_pruning(model, traced, ("maker", (0,)), ("reader", (per_group, 0)))


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_hidden_unit_has_its_gate_rows_and_one_recurrent_column(op, gates):
    net = Net(seed=6)
    hidden = 3
    w, r = net.param(1, gates * hidden, 2, name="W"), net.param(1, gates * hidden, hidden, name="R")
    net.output(net.ops(op, 2, net.input(4, 1, 2), w, r, hidden_size=hidden, name="rnn")[0])
    model = net.model()
    sink = trace_model(model).sink
    by_weight = {b.block.kind: b for b in sink.blocks if b.block.tensor == "R"}
    assert set(by_weight) == {EdgeKind.RECURRENT}
    state = sink.layer("rnn")
    recurrent = [b for b in sink.of_kind(EdgeKind.RECURRENT) if b.block.tensor == "R"]
    for unit in range(hidden):
        source = state.first_unit + unit
        column = initializer(model, "R")[0, :, unit]
        leaving = np.concatenate([b.weight[b.src == source] for b in recurrent])
        through_reset = 0
        if op == "GRU":  # the candidate reads r * h, which is a unit of its own
            product = sink.layer("rnn:reset").first_unit + unit
            through_reset = sum(int((b.src == product).sum()) for b in recurrent)
            leaving = np.concatenate([leaving, *(b.weight[b.src == product] for b in recurrent)])
        assert sorted(leaving) == sorted(column.astype(np.float64))
        assert leaving.size == gates * hidden
        assert through_reset in (0, hidden)
    reading = [b for b in sink.blocks if b.block.tensor == "W"]
    assert sum(b.src.size for b in reading) == gates * hidden * 2


def _written_out(net: Net, x: str, w: np.ndarray, r: np.ndarray, steps: int) -> list[str]:
    """An LSTM in plain operations, one cell per step, gates in the order i, o, f, c."""
    hidden = r.shape[1]
    weight, recurrent = net.value(w.T), net.value(r.T)
    h, c = net.value(np.zeros((1, hidden), np.float32)), net.value(np.zeros((1, hidden), np.float32))
    states = []
    for step in range(steps):
        now = net.op("Gather", x, net.value(np.asarray(step, np.int64)), axis=0)
        total = net.op("Add", net.op("MatMul", now, weight), net.op("MatMul", h, recurrent))
        i, o, f, g = net.ops("Split", 4, total, net.ints(hidden, hidden, hidden, hidden), axis=-1)
        i, o, f = (net.op("Sigmoid", gate) for gate in (i, o, f))
        c = net.op("Add", net.op("Mul", f, c), net.op("Mul", i, net.op("Tanh", g)))
        h = net.op("Mul", o, net.op("Tanh", c))
        states.append(h)
    return states


def test_a_fused_lstm_has_the_weights_of_one_written_out():
    steps, hidden = 3, 3
    build: dict[str, Any] = {
        "fused": lambda net, x, w, r: net.ops(
            "LSTM", 2, x, net.value(w[None], name="W"), net.value(r[None], name="R"), hidden_size=hidden
        )[1],
        "plain": lambda net, x, w, r: _written_out(net, x, w, r, steps)[-1],
    }
    found = {}
    for name, make in build.items():
        net = Net(seed=7)
        w, r = net.random(4 * hidden, 2, zeros=0.3), net.random(4 * hidden, hidden, zeros=0.3)
        net.output(make(net, net.input(steps, 1, 2, name="x"), w, r))
        found[name] = trace_model(net.model())
    a, b = (run_all(t.model, {"x": found["fused"].feeds["x"]})[t.outputs[0]] for t in found.values())
    np.testing.assert_allclose(a.ravel(), b.ravel(), atol=1e-6)
    fused, plain = (found[k].sink for k in ("fused", "plain"))
    once = np.concatenate([x.weight for x in fused.blocks if x.block.tensor])
    per_step: list[np.ndarray] = []
    for tensor in {x.block.tensor for x in plain.blocks if x.block.tensor}:
        uses = [x.weight for x in plain.blocks if x.block.tensor == tensor]
        assert all(np.array_equal(np.sort(u), np.sort(uses[0])) for u in uses)
        per_step.append(uses[0])
    assert np.array_equal(np.sort(once), np.sort(np.concatenate(per_step)))
