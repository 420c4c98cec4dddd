"""Weight nulls that run the model: what runs is the drawn graph, and its activity is the model's own."""

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import helper, numpy_helper

import emergraph
from emergraph.analysis.activity.rules import activity
from emergraph.analysis.emergence.nulls import NullKind, WeightDraw, null_model
from emergraph.analysis.emergence.remeasure import ModelActivity, MovedWeights, with_noise
from emergraph.analysis.emergence.rewiring import WeightNull, randomised_graph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.sources import InMemorySource
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.store import open_store


def _masked_model() -> onnx.ModelProto:
    """Convolutions, one grouped, flattened into a dense layer; a third of the weights is zero."""
    net = Net(seed=3)
    x = net.input(1, 2, 6, 6)
    a = net.op("Relu", net.op("Conv", x, net.param(4, 2, 3, 3, zeros=0.3), net.param(4)))
    b = net.op("Relu", net.op("Conv", a, net.param(4, 2, 2, 2), group=2))
    c = net.op("Flatten", b)
    d = net.op("Relu", net.dense(c, 6, fan_in=36, zeros=0.3))
    net.output(net.dense(d, 3, fan_in=6, zeros=0.3))
    return net.model()


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    path = folder / "net.onnx"
    onnx.save(_masked_model(), path)
    graph = emergraph.export(path, folder / "net.duckdb", input_shapes={})
    graph.trace(RandomInputs(20, 1), model=path)
    return folder


def _replaced(path, tensors) -> onnx.ModelProto:
    model = onnx.load(path)
    for proto in model.graph.initializer:
        if proto.name in tensors:
            proto.CopyFrom(numpy_helper.from_array(np.asarray(tensors[proto.name]), proto.name))
    return model


def stored(path):
    """How a model's tensors are stored."""
    source = InMemorySource(onnx.load(path))
    flat = flatten(source.model)
    return StoredCodes(flat, lambda name: source.array(flat.initializers[name]))


def _edges(graph):
    found = {}
    for block, edges in graph.iter_edges(columns=("src", "dst", "weight", "l1", "n_params")):
        for src, dst, weight, l1, n in zip(
            *(edges[c] for c in ("src", "dst", "weight", "l1", "n_params")), strict=True
        ):
            found[(block.id, int(src), int(dst))] = (float(weight), float(l1), int(n))
    return found


@pytest.mark.parametrize("kind", list(WeightNull))
def test_the_model_with_drawn_weights_has_the_drawn_graph_and_its_activity(masked, tmp_path, kind):
    with open_store(masked / "net.duckdb") as store:
        reader = store.graph(None)
        graph = read_unit_graph(reader)
        moved = MovedWeights(graph, lambda name: restore_tensor(reader, name), stored(masked / "net.onnx"))
        drawn = randomised_graph(graph, kind, seed=5, draw=2, keep=moved.kept(kind))
        # Rewired edges would lead from one group of the grouped convolution into another.
        assert len(moved.kept(kind)) == (kind is WeightNull.REWIRE)
        tensors = moved.of_draw(drawn, kind)
        files = ModelFiles(model=masked / "net.onnx")
        with ModelActivity(reader, graph, files, trace=None, rule="mean", threshold=0.1) as measure:
            draw = WeightDraw(kind=NullKind(kind.value), graph=drawn, noise=None, seed=5, draw=2)
            again = measure(draw)
        wanted = _edges(drawn)
    path = tmp_path / "drawn.onnx"
    onnx.save(_replaced(masked / "net.onnx", tensors), path)
    other = emergraph.export(path, tmp_path / "drawn.duckdb")
    other.trace(RandomInputs(20, 1), model=path)
    with open_store(tmp_path / "drawn.duckdb") as store:
        reader = store.graph(None)
        graph = read_unit_graph(reader)
        found = _edges(graph)
        expected = activity("mean", graph, threshold=0.1, trace=read_unit_trace(reader))
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key] == pytest.approx(values, rel=1e-5), key
    np.testing.assert_array_equal(again.active, expected.active)


def test_noise_changes_the_activity_and_leaves_zeros(masked):
    with open_store(masked / "net.duckdb") as store:
        reader = store.graph(None)
        graph, trace = read_unit_graph(reader), read_unit_trace(reader)
        names = reader.tensors()["name"]
        values = {name: restore_tensor(reader, name) for name in names}
        codes = stored(masked / "net.onnx")
        noisy = with_noise(names, values.__getitem__, 0.5, np.random.default_rng(0), codes)
        observed = activity("majority", graph, trace=trace)
        files = ModelFiles(model=masked / "net.onnx")
        with ModelActivity(reader, graph, files, trace=None, rule="majority", threshold=None) as measure:
            found = null_model(
                graph,
                observed,
                "weight_noise",
                n_draws=5,
                noise=1.0,
                measure_activity=measure,
            )
    assert found.activity == "measured again"
    assert not found.comparison("any").degenerate
    for name, tensor in noisy.items():
        assert tensor.ndim >= 2
        np.testing.assert_array_equal(tensor == 0, values[name] == 0)
        change = (tensor - values[name])[values[name] != 0]
        assert change.std() == pytest.approx(0.5 * np.sqrt(np.mean(values[name] ** 2)), rel=0.35)


ROWS, COLUMNS = 40, 12
ZEROS = {"tensor": np.uint8(9), "axis": np.arange(5, 5 + COLUMNS).astype(np.uint8)}


@pytest.fixture(params=ZEROS)
def coded(request, tmp_path):
    """A quantized layer whose zero point is not 0, traced; a third of its weights are zero."""
    rng = np.random.default_rng(3)
    zero = ZEROS[request.param]
    codes = rng.integers(30, 200, (ROWS, COLUMNS)).astype(np.uint8)
    codes = np.where(rng.random(codes.shape) < 0.3, np.broadcast_to(zero, codes.shape), codes)
    codes[0] = 0  # no zero, though its code is
    scale = np.full(np.shape(zero), 0.02, np.float32) * (
        1 if request.param == "tensor" else rng.random(COLUMNS) + 0.5
    )
    attributes = {} if request.param == "tensor" else {"axis": 1}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    tensors = {"q": codes, "s": np.asarray(scale, np.float32), "z": zero}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", ROWS])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", COLUMNS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    emergraph.export(path, tmp_path / "net.duckdb").trace(RandomInputs(20, 1), model=path)
    return tmp_path, tensors


@pytest.mark.parametrize("kind", list(WeightNull))
def test_codes_move_as_the_weights_that_they_stand_for(coded, kind):
    folder, tensors = coded
    with open_store(folder / "net.duckdb") as store:
        reader = store.graph(None)
        graph = read_unit_graph(reader)
        moved = MovedWeights(graph, lambda name: restore_tensor(reader, name), stored(folder / "net.onnx"))
        assert moved.kept(kind) == frozenset()
        drawn = randomised_graph(graph, kind, seed=5, draw=2, keep=frozenset())
        replaced = moved.of_draw(drawn, kind)
        wanted = {(src, dst): w for (_, src, dst), (w, _, _) in _edges(drawn).items()}
    assert list(replaced) == ["q"]
    assert replaced["q"].dtype == np.uint8
    path = folder / "drawn.onnx"
    onnx.save(_replaced(folder / "net.onnx", replaced), path)
    emergraph.export(path, folder / "drawn.duckdb")
    with open_store(folder / "drawn.duckdb") as store:
        found = {(s, d): w for (_, s, d), (w, _, _) in _edges(read_unit_graph(store.graph(None))).items()}
    assert found.keys() <= wanted.keys()
    scales, zeros = (np.broadcast_to(tensors[name], COLUMNS) for name in "sz")
    for (src, dst), weight in wanted.items():
        scale, zero = float(scales[dst - ROWS]), int(zeros[dst - ROWS])
        held = np.clip(weight, -zero * scale, (255 - zero) * scale)
        near = 1e-5 if np.ndim(tensors["z"]) == 0 else 0.51 * scale
        assert found.get((src, dst), 0.0) == pytest.approx(held, abs=near)


def test_codes_get_noise_as_the_weights_that_they_stand_for(coded):
    folder, tensors = coded
    codes = stored(folder / "net.onnx")
    noisy = with_noise(tensors, tensors.__getitem__, 0.1, np.random.default_rng(0), codes)
    assert list(noisy) == ["q"]
    assert noisy["q"].dtype == np.uint8
    zero = np.broadcast_to(tensors["z"], noisy["q"].shape)
    assert np.array_equal(noisy["q"][tensors["q"] == zero], zero[tensors["q"] == zero])
    assert (noisy["q"][0] != 0).any()
    weights = codes.weights("q", tensors["q"])
    change = (codes.weights("q", noisy["q"]) - weights)[1:][weights[1:] != 0]
    assert change.std() == pytest.approx(0.1 * np.sqrt(np.mean(weights**2)), rel=0.2)
    with pytest.raises(UsageError, match="takes noise"):
        with_noise(["q"], tensors.__getitem__, 1e-6, np.random.default_rng(0), codes)


def test_other_inputs_than_the_traces_are_refused(masked):
    other = {"x": np.ones((20, 2, 6, 6), np.float32)}
    name = onnx.load(masked / "net.onnx").graph.input[0].name
    with open_store(masked / "net.duckdb") as store:
        reader = store.graph(None)
        files = ModelFiles(model=masked / "net.onnx", inputs={name: other["x"]})
        with pytest.raises(InvalidInputError, match="does not give trace"):
            ModelActivity(reader, read_unit_graph(reader), files, trace=None, rule="mean", threshold=None)
