"""`emergraph lineage` on files and stores: what is said, kept and drawn."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from emergraph.errors import ExitCode
from emergraph.graphstore.store import open_store


def changed(source, target, change):
    """A model with other numbers in its matrices; vectors are those of units and follow them."""
    model = onnx.load(source)
    arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(change(arrays[tensor.name]), tensor.name))
    onnx.save(model, target)
    return target


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("lineage")
    rng = np.random.default_rng(0)

    def net(seed, path):
        draw = np.random.default_rng(seed)
        sizes = (12, 20, 20, 6)
        nodes, tensors, last = [], [], "x"
        for i in range(3):
            weight = draw.standard_normal((sizes[i + 1], sizes[i])).astype(np.float32)
            tensors.append(numpy_helper.from_array(weight, f"w{i}"))
            nodes.append(helper.make_node("Gemm", [last, f"w{i}"], [f"h{i}"], transB=1))
            last = f"h{i}"
            if i < 2:
                nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
                last = f"r{i}"
        shapes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12])]
        out = [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 6])]
        graph = helper.make_graph(nodes, "net", shapes, out, tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path

    base = net(1, folder / "base.onnx")
    changed(
        base,
        folder / "pruned.onnx",
        lambda w: np.where(np.abs(w) < np.quantile(np.abs(w), 0.5), 0, w).astype(np.float32),
    )
    changed(
        base, folder / "tuned.onnx", lambda w: (w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32)
    )
    net(2, folder / "other.onnx")
    return folder


def test_relations_are_told_and_kept(files, run, tmp_path):
    names = ("base", "pruned", "tuned", "other")
    store = tmp_path / "kept.duckdb"
    paths = [files / f"{name}.onnx" for name in names]
    told = run("lineage", *paths, "--store", store, "--format", "json")
    assert told.code == ExitCode.OK
    found = json.loads(told.out)
    assert found["finding"].startswith("1 family among 4 models")
    assert "pruned.onnx is base.onnx pruned" in found["finding"]
    assert found["finding"].endswith("nothing else is related.")
    kinds = {(one["a"], one["b"]): one["kind"] for one in found["relations"]}
    assert kinds["base.onnx", "pruned.onnx"] == "pruned"
    assert kinds["base.onnx", "tuned.onnx"] == "fine-tuned"
    assert kinds["base.onnx", "other.onnx"] == "independent"
    assert found["families"][0]["root"] == "base.onnx"
    with open_store(store) as kept:
        rows = kept.connection.execute("SELECT a, b, kind, parent FROM relations WHERE related").fetchall()
    assert ("base.onnx", "pruned.onnx", "pruned", "base.onnx") in rows


def test_a_page_has_the_tree_and_what_was_left_out(files, run, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    page = tmp_path / "lineage.html"
    told = run("lineage", files / "base.onnx", files / "pruned.onnx", broken, "--out", page)
    assert told.code == ExitCode.OK, told.err
    text = page.read_text()
    assert "Finding" in text
    assert "1 more could not be read" in text
    assert "<svg" in text
    assert "broken.onnx" in text


def test_one_model_has_no_relations(files, run):
    told = run("lineage", files / "base.onnx")
    assert told.code == ExitCode.USAGE
    assert "two or more models" in told.err


def test_of_two_files_both_must_be_readable(files, run, tmp_path):
    told = run("lineage", files / "base.onnx", tmp_path / "nothing.onnx")
    assert told.code == ExitCode.INVALID_INPUT
    assert "nothing.onnx" in told.err


def test_models_are_run_where_samples_are_given(files, run, tmp_path):
    paths = [files / "base.onnx", files / "other.onnx"]
    (row,) = json.loads(run("lineage", *paths, "--random", 5, "--format", "json").out)["relations"]
    assert (row["kind"], row["outputs"]) == ("independent", "undecided")
    assert row["evidence"].endswith("outputs undecided: 0 other networks of this task, 8 are needed")
    missing = run("lineage", *paths, "--inputs", tmp_path / "missing.npz")
    assert (missing.code, missing.err.count("\n")) == (ExitCode.INVALID_INPUT, 1)
    both = run("lineage", *paths, "--inputs", tmp_path / "missing.npz", "--random", 5)
    assert both.code == ExitCode.USAGE
