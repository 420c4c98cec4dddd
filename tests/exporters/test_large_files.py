"""ONNX files that are too large to be run: the graph is the same as of a run with the weights."""

import numpy as np
import onnx
import pytest
import torch
from clifiles import DEMO
from graphcontents import graph_of
from onnx import TensorProto, helper, numpy_helper

import emergraph
from emergraph.exporters import export


@pytest.fixture
def encoder(tmp_path):
    """A transformer encoder with free sizes, as torch exports it."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    emergraph.export(
        layer.eval(),
        tmp_path / "e.duckdb",
        args=(torch.zeros(2, 5, 16),),
        keep_onnx=tmp_path / "encoder.onnx",
    )
    return tmp_path / "encoder.onnx"


@pytest.mark.parametrize("name", ["digits_dense", "digits_conv", "encoder"])
def test_the_graph_of_a_large_file_is_that_of_a_small_one(name, tmp_path, monkeypatch, encoder):
    """The demo's networks and a transformer, once with the weights and once without."""
    path = encoder if name == "encoder" else DEMO / f"{name}.onnx"
    emergraph.export(path, tmp_path / "a.duckdb")
    withheld = []
    true = export.concrete_run

    def seen(*args, **options):
        withheld.append(options["withheld"])
        return true(*args, **options)

    monkeypatch.setattr(export, "LARGE_BYTES", 0)
    monkeypatch.setattr(export, "_MATRIX", 100)
    monkeypatch.setattr(export, "concrete_run", seen)
    emergraph.export(path, tmp_path / "b.duckdb")
    assert [bool(names) for names in withheld] == [True]
    assert graph_of(tmp_path / "a.duckdb") == graph_of(tmp_path / "b.duckdb")


def test_a_file_whose_shapes_do_not_follow_is_run_with_its_weights(tmp_path, monkeypatch):
    """Places where weights are not zero, which only their values tell."""
    w = np.ones((4, 6), np.float32)
    nodes = [
        helper.make_node("NonZero", ["w"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["total"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "total"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])],
        [numpy_helper.from_array(w, "w")],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(built, tmp_path / "m.onnx")
    monkeypatch.setattr(export, "LARGE_BYTES", 0)
    monkeypatch.setattr(export, "_MATRIX", 1)
    assert emergraph.export(tmp_path / "m.onnx", tmp_path / "a.duckdb").layers.height > 1


@pytest.mark.parametrize(("above", "n"), [(-1, 1), (0, 0)])
def test_a_file_is_large_above_a_bound(monkeypatch, above, n):
    from emergraph.exporters.onnxfile.reader import read_onnx

    file = read_onnx(DEMO / "digits_dense.onnx")
    total = sum(tensor.n_bytes for tensor in file.tensors.values())
    monkeypatch.setattr(export, "LARGE_BYTES", total + above)
    monkeypatch.setattr(export, "_MATRIX", 100)
    assert bool(export._large_matrices(file)) is bool(n)
