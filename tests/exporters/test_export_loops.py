"""Loop and Scan bodies are traced once, with their carried state as recurrent edges."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.exporters.export import export_onnx
from emergraph.graphstore.store import open_store

RNG = np.random.default_rng(0)
STEP, STATE, HEAD = (RNG.normal(size=s).astype(np.float32) for s in ((3, 4), (4, 4), (4, 2)))


def info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def cell():
    """s' = tanh(x U + s W), from the tensors xi and s."""
    return [
        helper.make_node("MatMul", ["xi", "U"], ["xu"]),
        helper.make_node("MatMul", ["s", "W"], ["sw"]),
        helper.make_node("Add", ["xu", "sw"], ["pre"]),
        helper.make_node("Tanh", ["pre"], ["s2"]),
        helper.make_node("Identity", ["s2"], ["out"]),
    ]


def loop():
    nodes = [helper.make_node("Gather", ["x", "i"], ["xi"], axis=1), *cell()]
    body = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["go"], ["go2"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("s", [1, 4])],
        [info("go2", [], TensorProto.BOOL), info("s2", [1, 4]), info("out", [1, 4])],
    )
    return helper.make_node("Loop", ["n", "true", "s0"], ["last", "all"], body=body)


def scan():
    body = helper.make_graph(
        cell(), "body", [info("s", [1, 4]), info("xi", [1, 3])], [info("s2", [1, 4]), info("out", [1, 4])]
    )
    return helper.make_node(
        "Scan", ["s0", "x"], ["last", "all"], body=body, num_scan_inputs=1, scan_input_axes=[1]
    )


@pytest.mark.parametrize("repeated", [loop, scan])
def test_a_written_out_recurrence_is_an_rnn(repeated, tmp_path):
    constants = {
        "U": STEP,
        "W": STATE,
        "V": HEAD,
        "n": np.asarray(5, np.int64),
        "true": np.asarray(True),
        "s0": np.zeros((1, 4), np.float32),
    }
    graph = helper.make_graph(
        [repeated(), helper.make_node("MatMul", ["last", "V"], ["y"])],
        "g",
        [info("x", [1, 5, 3])],
        [info("y", [1, 2]), info("all", None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        summary = export_onnx(path, store)
        edges = store.graph().edges()
        layers = store.graph().layers()
    assert summary.trace is not None
    assert summary.trace.coverage == 1.0
    assert not summary.trace.opaque
    assert layers.filter(layers["op"] == "Input")["n_units"].to_list() == [3]
    weights = edges.filter(edges["kind"] == "weight")["weight"].to_list()
    expected = np.concatenate([STEP.ravel(), STATE.ravel(), HEAD.ravel()])
    assert sorted(weights) == sorted(expected.tolist())
    carried = edges.filter(edges["kind"] == "recurrent")
    assert len(carried) == 4
    assert carried["weight"].null_count() == 4
