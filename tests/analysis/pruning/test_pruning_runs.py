"""Running and writing pruned models, against onnxruntime on the written file."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from clifiles import DEMO
from onnx import numpy_helper

import emergraph
from emergraph.analysis.labels import class_labels
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.modelruns import compare
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.errors import InvalidInputError, UsageError

PIXELS = {"pixels": np.load(DEMO / "digits.npz")["pixels"][:40]}
LABELS = np.load(DEMO / "labels.npz")["labels"][:40].astype(np.int64)


def exported(tmp_path, name):
    return emergraph.export(DEMO / f"{name}.onnx", tmp_path / "net.duckdb"), DEMO / f"{name}.onnx"


def outputs(path):
    session = ort.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: PIXELS["pixels"]})


@pytest.mark.parametrize("name", ["digits_conv", "digits_dense"])
@pytest.mark.parametrize(
    "options",
    [
        {"levels": (0.6,)},
        {"unit": "edge", "levels": (0.5,)},
        {"criterion": "l2", "levels": (0.4,)},
        {"criterion": "1:2"},
    ],
    ids=["parameters", "edges", "units", "n_of_m"],
)
def test_written_model_is_the_one_that_was_run(tmp_path, name, options):
    graph, model = exported(tmp_path, name)
    out = tmp_path / "pruned.onnx"
    files = ModelFiles(model=model, inputs=PIXELS, labels=LABELS)
    result = graph.prune(PruningOptions(**options), files=files, write=out)
    row = result.frame.row(0, named=True)
    onnx.checker.check_model(onnx.load(out))
    expected = compare(outputs(model), outputs(out), class_labels(LABELS, 10))
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, rel=1e-3, abs=1e-6)
    assert row["relative_mse"] > 0


@pytest.mark.parametrize("name", ["digits_conv", "digits_dense"])
def test_the_graph_of_the_written_model_is_the_masked_graph(tmp_path, name):
    graph, model = exported(tmp_path, name)
    out = tmp_path / "pruned.onnx"
    result = graph.prune(PruningOptions(levels=(0.7,)), files=ModelFiles(model=model), write=out)
    again = emergraph.export(out, tmp_path / "pruned.duckdb")
    row = again.prune(PruningOptions(levels=(0.0,))).frame.row(0, named=True)
    pruned = result.frame.row(0, named=True)
    for column in (
        "kept_edges",
        "effective_sparsity",
        "log10_path_norm_l1",
        "log10_path_norm_l2",
        "dead_units",
    ):
        assert row[column] == pytest.approx(pruned[column], rel=1e-6)
    assert row["bottleneck_width"] == pruned["bottleneck_width"]


def test_removed_units_are_silent_with_their_bias(tmp_path):
    graph, model = exported(tmp_path, "digits_dense")
    out = tmp_path / "pruned.onnx"
    result = graph.prune(
        PruningOptions(criterion="l2", levels=(0.5,)),
        files=ModelFiles(model=model),
        write=out,
        smaller=False,
    )
    removal, level = result.mask(0)
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    biases = sum(int((values == 0).sum()) for values in tensors.values() if values.ndim == 1)
    assert biases >= (removal.units <= level).sum()


def test_no_pruning_changes_nothing(tmp_path):
    graph, model = exported(tmp_path, "digits_conv")
    files = ModelFiles(model=model, inputs=PIXELS, labels=LABELS)
    row = graph.prune(PruningOptions(levels=(0.0,)), files=files).frame.row(0, named=True)
    assert (row["relative_mse"], row["divergence_kl"], row["argmax_agreement"]) == (0, 0, 1)
    assert row["accuracy"] == row["base_accuracy"] > 0.5


def test_compare_by_hand():
    base, pruned = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[0.25, 0.75], [0.75, 0.25]])
    row = compare([base], [pruned], class_labels(np.array([1, 1]), base.shape[-1]))
    kl = np.mean([0.5 * np.log(2) + 0.5 * np.log(2 / 3), 0.25 * np.log(1 / 3) + 0.75 * np.log(3)])
    assert row["divergence_kl"] == pytest.approx(kl)
    assert row["relative_mse"] == pytest.approx((2 * 0.0625 + 2 * 0.25) / (0.25 * 2 + 0.0625 + 0.5625))
    assert (row["argmax_agreement"], row["accuracy"], row["base_accuracy"]) == (0.0, 0.5, 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_have_no_distance(value):
    base = np.array([[value, 0.5], [0.25, 0.75]])
    row = compare([base], [base.copy()], class_labels(np.array([1, 1]), 2))
    assert row["relative_mse"] is row["divergence_kl"] is None
    assert row["argmax_agreement"] == 1


def test_what_cannot_be_run_or_written_is_refused(tmp_path):
    graph, model = exported(tmp_path, "digits_dense")
    one = PruningOptions(levels=(0.5,))
    with pytest.raises(UsageError, match="one model"):
        graph.prune(
            PruningOptions(levels=(0.1, 0.5)), files=ModelFiles(model=model), write=tmp_path / "x.onnx"
        )
    with pytest.raises(UsageError, match="needs --model FILE"):
        graph.prune(one, write=tmp_path / "x.onnx")
    with pytest.raises(InvalidInputError, match="SHA-256"):
        graph.prune(one, files=ModelFiles(model=DEMO / "digits_conv.onnx", inputs=PIXELS))
    with pytest.raises(UsageError, match="labels"):
        graph.prune(one, files=ModelFiles(model=model, inputs=PIXELS, labels=LABELS[:3]))
    assert not (tmp_path / "x.onnx").exists()
