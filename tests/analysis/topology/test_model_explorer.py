"""Layers for Model Explorer; `tests/interop` loads them by its package."""

import json

import pytest

import emergraph


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What is written for a graph of two layers with weights, traced."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = {"w": np.array([[1, 0], [2, 0], [0, 0]], np.float32), "v": np.ones((2, 1), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="body/first"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["y"], name="head"),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "two.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "x.npz", x=np.eye(3, dtype=np.float32)[:, None, :].reshape(3, 3))
    made = emergraph.export(tmp_path / "two.onnx", tmp_path / "two.duckdb")
    made.trace(tmp_path / "x.npz", model=tmp_path / "two.onnx")
    assert made.convert(tmp_path / "layers", "model-explorer") == 4
    return tmp_path / "layers"


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_layers_are_nodes_in_their_namespaces_with_their_sources(folder):
    (graph,) = read(folder, "graph.json")
    assert graph["id"] == "two"
    nodes = {node["label"]: node for node in graph["nodes"]}
    assert set(nodes) == {"x", "first", "head"}
    assert nodes["first"]["namespace"] == "body"
    assert nodes["head"]["incomingEdges"] == [{"sourceNodeId": nodes["first"]["id"]}]
    assert {"key": "n_units", "value": "2"} in nodes["first"]["attrs"]


def test_data_are_by_the_tensor_that_shows_a_layer(folder):
    (graph,) = read(folder, "graph.json")
    tensors = {node["outputsMetadata"][0]["attrs"][0]["value"] for node in graph["nodes"]}
    assert tensors == {"x", "r", "y"}
    zeros = read(folder, "data-share-of-zeros.json")["two"]
    assert zeros["results"] == {"r": {"value": pytest.approx(4 / 6)}, "y": {"value": 0}}
    silent = read(folder, "data-share-of-silent-units.json")["two"]["results"]
    assert silent["r"]["value"] == 0.5
    assert silent["x"]["value"] == 0
