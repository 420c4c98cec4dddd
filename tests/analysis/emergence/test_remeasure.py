"""Weight nulls that run the model: what runs is the drawn graph, and its activity is the model's own."""

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import numpy_helper

import emergraph
from emergraph.analysis.activity.rules import activity
from emergraph.analysis.emergence.nulls import NullKind, WeightDraw, null_model
from emergraph.analysis.emergence.remeasure import ModelActivity
from emergraph.analysis.emergence.resampled_weights import MovedWeights, with_noise
from emergraph.analysis.emergence.rewiring import WeightNull, randomised_graph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.errors import InvalidInputError, UsageError
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
        moved = MovedWeights(graph, lambda name: restore_tensor(reader, name))
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
        noisy = with_noise(names, values.__getitem__, 0.5, np.random.default_rng(0))
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


def test_quantized_weights_take_noise_in_steps():
    values = {"q": np.array([[0, 10, -20], [127, -128, 3]], dtype=np.int8), "b": np.ones(3, np.float32)}
    noisy = with_noise(values, values.__getitem__, 0.5, np.random.default_rng(0))
    assert list(noisy) == ["q"]
    assert noisy["q"].dtype == np.int8
    assert noisy["q"][0, 0] == 0
    with pytest.raises(UsageError, match="takes noise"):
        with_noise(["q"], values.__getitem__, 1e-6, np.random.default_rng(0))


def test_other_inputs_than_the_traces_are_refused(masked):
    other = {"x": np.ones((20, 2, 6, 6), np.float32)}
    name = onnx.load(masked / "net.onnx").graph.input[0].name
    with open_store(masked / "net.duckdb") as store:
        reader = store.graph(None)
        files = ModelFiles(model=masked / "net.onnx", inputs={name: other["x"]})
        with pytest.raises(InvalidInputError, match="does not give trace"):
            ModelActivity(reader, read_unit_graph(reader), files, trace=None, rule="mean", threshold=None)
