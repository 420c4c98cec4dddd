"""The branches of an If: the one that a run takes, or both on request; the graph names them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.errors import InvalidInputError
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.graphstore.store import open_store

RNG = np.random.default_rng(0)


def branch(weight: str, kind: str) -> onnx.GraphProto:
    made = helper.make_tensor_value_info(f"{weight}.y", TensorProto.FLOAT, [2, 3])
    nodes = [helper.make_node("MatMul", ["x", weight], [f"{weight}.h"])]
    nodes.append(
        helper.make_node(kind, [f"{weight}.h"], [f"{weight}.y"], domain="" if kind == "Relu" else "lab")
    )
    return helper.make_graph(nodes, weight, [], [made])


@pytest.fixture
def path(tmp_path):
    return save(tmp_path, "Relu")


def save(folder, kind):
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["y"],
            name="choice",
            then_branch=branch("first", "Relu"),
            else_branch=branch("second", kind),
        ),
    ]
    tensors = [
        numpy_helper.from_array(RNG.normal(size=(4, 3)).astype(np.float32), name)
        for name in ("first", "second")
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [*tensors, numpy_helper.from_array(np.float32(0), "zero")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("lab", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


def exported(path, *, sign, all_branches):
    options = ExportOptions(inputs={"x": np.full((2, 4), sign, np.float32)}, all_branches=all_branches)
    with open_store(path.with_name("s.duckdb"), mode="create") as store:
        summary = export_onnx(path, store, options=options)
        stored = store.graph().summary["branches"]
        return summary, stored


@pytest.mark.parametrize(("sign", "taken"), [(1, "then"), (-1, "else")])
def test_the_branch_taken_is_named(path, sign, taken):
    summary, stored = exported(path, sign=sign, all_branches=False)
    assert list(stored) == list(summary.branches) == [f"choice:{taken}"]
    assert summary.trace.n_weight_edges == 12


def test_both_branches_are_named_on_request(path):
    summary, stored = exported(path, sign=1, all_branches=True)
    assert sorted(stored) == ["choice:else", "choice:then"]
    assert summary.trace.n_weight_edges == 24
    assert not summary.trace.opaque


def test_a_branch_that_does_not_run_is_not_named(tmp_path):
    summary, stored = exported(save(tmp_path, "Unknown"), sign=1, all_branches=True)
    assert "choice:then" in stored
    if "choice:else" in stored:
        assert summary.trace.opaque
    else:
        assert summary.trace.warnings


def test_an_if_without_a_branch_is_refused(path):
    model = onnx.load(path)
    choice = next(node for node in model.graph.node if node.op_type == "If")
    del choice.attribute[1:]
    onnx.save(model, path)
    with pytest.raises(InvalidInputError, match="_branch"):
        exported(path, sign=-1, all_branches=False)


@pytest.mark.parametrize("all_branches", [False, True])
@pytest.mark.parametrize("n_values", [12, 4000])
def test_sparse_weights_are_read_with_all_branches_too(tmp_path, n_values, all_branches):
    """Values of large tensors stay in the file until they are asked for."""
    rng = np.random.default_rng(0)
    values = numpy_helper.from_array(rng.normal(size=n_values).astype(np.float32), "w")
    places = numpy_helper.from_array(np.sort(rng.choice(10_000, n_values, replace=False)), "places")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 100])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 100])],
        sparse_initializer=[onnx.SparseTensorProto(values=values, indices=places, dims=[100, 100])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        summary = export_onnx(tmp_path / "m.onnx", store, options=ExportOptions(all_branches=all_branches))
    assert summary.trace.n_weight_edges == n_values
