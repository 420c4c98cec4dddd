"""Counts between positions: equal to the matrix form on the graph unrolled by probing every operation."""

import numpy as np
import onnx
import onnxruntime
import pytest
from nets import Net
from onnx import helper, numpy_helper

import emergraph
from emergraph.analysis.emergence.positionops import Tensors
from emergraph.analysis.emergence.positionrun import by_form, neuron_tensors, position_count, position_report
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.errors import UsageError
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.store import open_store

WEIGHTED = {"Conv", "Gemm", "MatMul"}


def _random_cnn(seed: int) -> onnx.ModelProto:
    """A small network: convolutions of random geometry, pooling, junctions, concatenations, dense layers."""
    rng = np.random.default_rng(seed)
    net = Net(seed=seed)
    channels, side = int(rng.integers(1, 4)), int(rng.integers(5, 9))
    x = net.input(1, channels, side, side)
    zeros = float(rng.choice([0.0, 0.4]))
    for _ in range(int(rng.integers(1, 4))):
        kind = rng.choice(["conv", "grouped", "pool", "residual", "concat", "one-d"])
        if kind in ("conv", "grouped", "concat"):
            group = channels if kind == "grouped" else 1
            wide = channels * int(rng.integers(1, 3)) if kind == "grouped" else int(rng.integers(1, 4))
            kernel = [int(rng.integers(1, 4)) for _ in range(2)]
            pads = [int(rng.integers(0, k)) for k in kernel] + [int(rng.integers(0, k)) for k in kernel]
            strides = [int(rng.integers(1, 3)) for _ in range(2)]
            dilations = [int(rng.integers(1, 3)) if side > 4 else 1 for _ in range(2)]
            if any((k - 1) * d + 1 > side + min(pads) for k, d in zip(kernel, dilations, strict=True)):
                continue
            weights = net.param(wide, channels // group, *kernel, zeros=zeros)
            y = net.op(
                "Conv",
                x,
                weights,
                net.param(wide),
                group=group,
                pads=pads,
                strides=strides,
                dilations=dilations,
            )
            y = net.op("Relu", y)
            if kind == "concat":
                other = net.op(
                    "Conv",
                    x,
                    net.param(2, channels, *kernel),
                    pads=pads,
                    strides=strides,
                    dilations=dilations,
                )
                y, wide = net.op("Concat", y, other, axis=1), wide + 2
            x, channels = y, wide
            side = min(_sizes(net, x)[2:])
        elif kind == "pool" and side >= 3:
            name = str(rng.choice(["MaxPool", "AveragePool"]))
            x = net.op(
                name, x, kernel_shape=[3, 2], strides=[int(rng.integers(1, 3)), 2], pads=[1, 0, 1, 1],
                ceil_mode=int(rng.integers(0, 2)),
            )  # fmt: skip
            side = min(_sizes(net, x)[2:])
        elif kind == "residual":
            y = net.op("Conv", x, net.param(channels, channels, 3, 3, zeros=zeros), pads=[1, 1, 1, 1])
            x = net.op("Relu", net.op("Add", x, y))
    head = rng.choice(["flatten", "global"])
    x = net.op("GlobalAveragePool", x) if head == "global" else x
    x = net.op("Flatten", x)
    width = _sizes(net, x)[1]
    hidden = net.op("Relu", net.op("Gemm", x, net.param(4, width, zeros=zeros), net.param(4), transB=1))
    net.output(net.dense(hidden, 2, fan_in=4))
    return net.model()


def _sizes(net: Net, name: str) -> list[int]:
    graph = helper.make_graph(net.nodes, "n", net.inputs, [onnx.ValueInfoProto(name=name)], net.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    shape = [d.dim_value for d in net.inputs[0].type.tensor_type.shape.dim]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return list(session.run(None, {net.inputs[0].name: np.zeros(shape, np.float32)})[0].shape)


def _all_values(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output]
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(shown.SerializeToString())
    feed = model.graph.input[0].name
    return {feed: x, **dict(zip(names, session.run(names, {feed: x}), strict=True))}


def _probed(node: onnx.NodeProto, source: str, values, weights) -> np.ndarray:
    """(n_source, n_output) 0/1: what a one at each source element changes when the operation runs."""
    inputs, held = [], []
    for name in node.input:
        if name in weights:
            array = (weights[name] != 0).astype(np.float32)
            # Biases would change everything; the pattern of ones has none.
            array = (
                np.zeros_like(array)
                if node.op_type in ("Conv", "Gemm") and name == list(node.input)[-1] and len(node.input) == 3
                else array
            )
            held.append(
                numpy_helper.from_array(array if node.op_type in WEIGHTED else np.zeros_like(array), name)
            )
        elif name not in inputs:
            inputs.append(name)
    infos = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, values[n].shape) for n in inputs]
    graph = helper.make_graph([node], "probe", infos, [onnx.ValueInfoProto(name=node.output[0])], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rows = []
    for k in range(values[source].size):
        feeds = {n: np.zeros(values[n].shape, np.float32) for n in inputs}
        feeds[source].ravel()[k] = 1
        rows.append(session.run(None, feeds)[0].ravel() != 0)
    return np.array(rows, dtype=float)


def _brute_force(model: onnx.ModelProto, active) -> tuple[float, float]:
    """The matrix form on the unrolled graph; elements that are no neurons are transparent."""
    weights = {p.name: numpy_helper.to_array(p) for p in model.graph.initializer}
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    values = _all_values(model, np.zeros(shape, np.float32))
    starts, total = {}, 0
    for name, array in values.items():
        starts[name], total = total, total + array.size
    adjacency = np.zeros((total, total))
    for node in model.graph.node:
        for source in dict.fromkeys(node.input):
            if source in values:
                block = _probed(node, source, values, weights)
                out = starts[node.output[0]]
                adjacency[starts[source] : starts[source] + len(block), out : out + block.shape[1]] += block
    h, counts = np.zeros(total), np.zeros(total)
    for name, on in active.items():
        at = slice(starts[name], starts[name] + on.size)
        h[at], counts[at] = on.ravel(), 1
    found = []
    for interior in ("active", "any"):
        # Paths run through active or transparent elements; they end at active neurons.
        open_ = np.where(counts == 1, h if interior == "active" else 1, 1)
        through = adjacency * open_[None, :]
        ends = np.linalg.solve(np.eye(total) - through, np.eye(total))  # sum of all powers
        reach = adjacency @ (open_[:, None] * ends if interior == "active" else ends)
        found.append(float((counts * (1 - h)) @ reach @ (h * counts)))
    return found[0], found[1]


def _known(model: onnx.ModelProto) -> Tensors:
    weights = {p.name: numpy_helper.to_array(p) for p in model.graph.initializer}
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    values = _all_values(model, np.zeros(shape, np.float32))
    shapes = {name: array.shape for name, array in {**weights, **values}.items()}
    return Tensors(shape=shapes.__getitem__, constant=weights.get, opset=17)


@pytest.mark.parametrize("seed", range(36))
def test_counts_are_those_of_the_unrolled_graph(seed):
    model = _random_cnn(seed)
    tensors = _known(model)
    neurons = neuron_tensors(model.graph.node, [model.graph.input[0].name], tensors)
    rng = np.random.default_rng(seed)
    active = {n.name: rng.random(tensors.shape(n.name)) < 0.5 for n in neurons}
    found = position_count(model.graph.node, neurons, active, tensors)
    expected = _brute_force(model, active)
    assert [found.active.value, found.any.value] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("op", ["Relu", "Sin", "Shrink", "Round", "Neg", "Softsign", "Sinh", "Reciprocal"])
def test_every_element_wise_operation_is_passed(op):
    counted = []
    for name in ("Relu", op):
        net = Net(seed=3)
        x = net.input(1, 1, 5, 5)
        a = net.op(name, net.op("Conv", x, net.param(2, 1, 3, 3, zeros=0.3), net.param(2)))
        net.output(net.op("Gemm", net.op("Flatten", a), net.param(3, 18, zeros=0.3), transB=1))
        model = net.model()
        tensors = _known(model)
        neurons = neuron_tensors(model.graph.node, [x], tensors)
        assert neurons[1].activation == a
        rng = np.random.default_rng(3)
        active = {n.name: rng.random(tensors.shape(n.name)) < 0.5 for n in neurons}
        counted.append(position_count(model.graph.node, neurons, active, tensors).any)
    assert counted[0] == counted[1]


@pytest.mark.parametrize(("op", "read_at"), [("LRN", 2), ("Neg", 2), ("Relu", 1), ("Softmax", 1)])
def test_activity_is_read_behind_what_only_scales(op, read_at):
    net = Net(seed=0)
    x = net.input(1, 1, 4, 4)
    made = net.op("Conv", x, net.param(2, 1, 2, 2))
    first = net.op(op, made, **({"size": 1} if op == "LRN" else {}))
    names = [made, first, net.op("Tanh", first)]
    net.output(net.op("Gemm", net.op("Flatten", names[-1]), net.param(3, 18), transB=1))
    neurons = neuron_tensors(net.model().graph.node, [x], _known(net.model()))
    assert neurons[1].activation == names[read_at]


def test_activity_is_read_after_the_nonlinearity_and_taken_by_position(tmp_path):
    net = Net(seed=0)
    x = net.input(1, 1, 4, 4)
    a = net.op("Relu", net.op("Conv", x, net.param(2, 1, 2, 2), strides=[2, 2]))
    net.output(net.op("Gemm", net.op("Flatten", a), net.param(3, 8), transB=1))
    path = tmp_path / "net.onnx"
    onnx.save(net.model(), path)
    graph = emergraph.export(path, tmp_path / "net.duckdb")
    graph.trace(RandomInputs(9, 4), model=path)
    with open_store(tmp_path / "net.duckdb") as store:
        report = position_report(store.graph(None), ModelFiles(model=path), threshold=0.1)
        with pytest.raises(UsageError, match="positions are active by"):
            position_report(store.graph(None), ModelFiles(model=path), rule="contribution")
    rows = {(row["form"], row["interior"]): row for row in by_form(report)}
    assert rows["positions", "any"]["n_units"] == 16 + 8 + 3
    assert rows["channels", "any"]["n_units"] == 1 + 2 + 3
    assert ("filters, as printed", "-") in rows
    tensors = [row["tensor"] for row in report.positions.layers.to_dicts()]
    assert tensors[1] == a


def test_an_operation_that_positions_cannot_pass_is_named(tmp_path):
    net = Net(seed=0)
    x = net.input(1, 3, 4)
    a = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    net.output(net.dense(a, 2, fan_in=3))
    model = net.model()
    tensors = _known(model)
    neurons = neuron_tensors(model.graph.node, [x], tensors)
    active = {n.name: np.zeros(tensors.shape(n.name), bool) for n in neurons}
    with pytest.raises(UsageError, match="MatMul"):
        position_count(model.graph.node, neurons, active, tensors)
