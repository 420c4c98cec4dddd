"""Cases 15 to 18 and 30: graphs that are disconnected, too deep, or long."""

import time
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.reader import read_onnx

node = helper.make_node


def info(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def test_case_15_cycle_is_named(make, refused):
    nodes = [
        node("Add", ["x", "c"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="second"),
        node("Neg", ["b"], ["c"], name="third"),
        node("Neg", ["c"], ["y"], name="after"),
    ]
    message = refused(make.with_nodes(nodes), "ONNX-GRAPH-CYCLE")
    assert "Add 'first' -> Relu 'second' -> Neg 'third' -> Add 'first'" in message
    assert "after" not in message


def test_case_15_self_loop(make, refused):
    message = refused(make.with_nodes([node("Add", ["x", "y"], ["y"], name="me")]), "ONNX-GRAPH-CYCLE")
    assert "Add 'me' -> Add 'me'" in message


def test_case_15_long_cycle_is_cut(make, refused):
    nodes = [node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(500)]
    nodes += [node("Add", ["x", "t500"], ["t0"]), node("Relu", ["t0"], ["y"])]
    assert "more" in refused(make.with_nodes(nodes), "ONNX-GRAPH-CYCLE")


def test_case_15_cycle_through_a_subgraph(make, refused):
    body = helper.make_graph([node("Neg", ["y"], ["z"])], "b", [], [info("z")])
    nodes = [node("If", ["x"], ["a"], then_branch=body, else_branch=body), node("Relu", ["a"], ["y"])]
    refused(make.with_nodes(nodes), "ONNX-GRAPH-CYCLE")


def test_case_16_unsorted_operations_are_sorted(make, accepted):
    nodes = [node("Relu", ["b"], ["y"]), node("Neg", ["x"], ["a"]), node("Abs", ["a"], ["b"])]
    file = accepted(make.with_nodes(nodes), "ONNX-GRAPH-UNSORTED")
    assert [n.op_type for n in file.model.graph.node] == ["Neg", "Abs", "Relu"]
    assert [finding.id for finding in file.warnings] == ["ONNX-GRAPH-UNSORTED"]


def test_case_16_unsorted_inside_and_around_a_subgraph(make, accepted):
    weight = numpy_helper.from_array(np.arange(900, dtype=np.float32), "w")
    body = helper.make_graph(
        [
            node("Add", ["k", "outer"], ["z"]),
            node("Constant", [], ["k"], value=weight),
        ],
        "b",
        [],
        [info("z")],
    )
    nodes = [
        node("If", ["x"], ["y"], then_branch=body, else_branch=body),
        node("Neg", ["x"], ["outer"]),
    ]
    file = accepted(make.with_nodes(nodes), "ONNX-GRAPH-UNSORTED")
    assert [n.op_type for n in file.model.graph.node] == ["Neg", "If"]
    for attribute in file.model.graph.node[1].attribute:
        assert [n.op_type for n in attribute.g.node] == ["Constant", "Add"]
        values = file.tensor_of(attribute.g.node[0].attribute[0].t).array()
        np.testing.assert_array_equal(values, np.arange(900, dtype=np.float32))


def test_case_16_sorted_operations_keep_their_order(make, save):
    nodes = [node("Neg", ["x"], ["b"]), node("Abs", ["x"], ["a"]), node("Add", ["a", "b"], ["y"])]
    file = read_onnx(save(make.with_nodes(nodes)))
    assert [n.op_type for n in file.model.graph.node] == ["Neg", "Abs", "Add"]
    assert file.warnings == ()


@pytest.mark.parametrize(
    ("nodes", "initializers", "finding"),
    [
        ([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], "", "ONNX-GRAPH-DUPLICATE"),
        ([node("Split", ["x"], ["y", "y"])], "", "ONNX-GRAPH-DUPLICATE"),
        ([node("Relu", ["x"], ["y"]), node("Relu", ["y"], ["x"])], "", "ONNX-GRAPH-DUPLICATE"),
        ([node("MatMul", ["x", "w"], ["y"])], "ww", "ONNX-GRAPH-DUPLICATE"),
        ([node("MatMul", ["x", "w"], ["y"]), node("Relu", ["x"], ["w"])], "w", "ONNX-GRAPH-DUPLICATE"),
        ([node("MatMul", ["x", "nothing"], ["y"])], "", "ONNX-GRAPH-MISSING"),
        ([node("Relu", ["x"], ["other"])], "", "ONNX-GRAPH-MISSING"),
        ([], "", "ONNX-GRAPH-MISSING"),
    ],
)
def test_case_17_names_produced_twice_or_never(make, refused, nodes, initializers, finding):
    tensors = [numpy_helper.from_array(np.ones((30, 2), np.float32), name) for name in initializers]
    refused(make.with_nodes(nodes, tensors), finding)


def test_case_17_two_inputs_of_one_name(make, refused):
    model = make.with_nodes([node("Relu", ["x"], ["y"])])
    model.graph.input.append(model.graph.input[0])
    refused(model, "ONNX-GRAPH-DUPLICATE")


def test_case_17_missing_inside_a_subgraph_or_a_function(make, refused):
    body = helper.make_graph([node("Neg", ["nowhere"], ["z"])], "b", [], [info("z")])
    nodes = [node("If", ["x"], ["y"], then_branch=body, else_branch=body)]
    assert "nowhere" in refused(make.with_nodes(nodes), "ONNX-GRAPH-MISSING")
    function = helper.make_function(
        "f", "F", ["a"], ["b"], [node("Add", ["a", "x"], ["b"])], [helper.make_opsetid("", 21)]
    )
    model = make.with_nodes([node("F", ["x"], ["y"], domain="f")], functions=[function], domains=["f"])
    assert "'x'" in refused(model, "ONNX-GRAPH-MISSING")


def test_case_17_initializers_that_are_also_inputs_are_fine(make, save):
    model = make.dense()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [30, 40]))
    model.ir_version = 3
    assert check_onnx(save(model)) == []


def test_optional_inputs_and_outputs_may_be_empty_more_than_once(make, save):
    nodes = [node("Clip", ["x", "", ""], ["a"]), node("LSTM", ["a", "a", "a", "", "", ""], ["", "y", ""])]
    read_onnx(save(make.with_nodes(nodes)))


def test_shadowing_is_reported(make, accepted):
    body = helper.make_graph([node("Neg", ["x"], ["t"]), node("Abs", ["t"], ["z"])], "b", [], [info("z")])
    nodes = [node("Neg", ["x"], ["t"]), node("If", ["t"], ["y"], then_branch=body, else_branch=body)]
    accepted(make.with_nodes(nodes), "ONNX-GRAPH-SHADOWING")


def nested_if(depth, innermost=b""):
    """A model of `depth` levels of If, as bytes; `innermost` is the content of the last graph."""
    parts, size = [innermost], len(innermost)
    fields = {
        6: AttributeProto(name="then_branch", type="GRAPH").SerializeToString(),  # attribute.g
        5: onnx.NodeProto(op_type="If").SerializeToString(),  # node.attribute
        1: b"",  # graph.node
    }
    for _ in range(depth):
        for field, rest in fields.items():
            header = header_of(field, size)
            parts += [header, rest]
            size += len(header) + len(rest)
    return b"\x08\x0a" + header_of(7, size) + b"".join(reversed(parts))


def header_of(field, size):
    out = bytearray([field << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size])


def test_case_18_deep_nesting(accepted, refused):
    weight = np.arange(900, dtype=np.float32)
    constant = node("Constant", [], ["deep"], value=numpy_helper.from_array(weight, "w")).SerializeToString()
    constant = header_of(1, len(constant)) + constant
    for depth in (2, 30, 31, 32):
        file = accepted(nested_if(depth, constant), "ONNX-CONTROL-FLOW")
        body = file.model.graph
        for _ in range(depth):
            body = body.node[0].attribute[0].g
        np.testing.assert_array_equal(file.tensor_of(body.node[0].attribute[0].t).array(), weight)
    accepted(nested_if(33))
    for content in (nested_if(33, constant), nested_if(34), nested_if(40)):
        refused(content, "ONNX-WIRE-DEPTH")
        with pytest.raises(Exception, match="MaxDepth"):  # not even protobuf reads it
            onnx.ModelProto.FromString(content)


def test_case_18_a_hundred_thousand_levels(refused):
    refused(nested_if(100_000), "ONNX-WIRE-DEPTH")


def test_case_30_a_chain_of_200_000_operations(make, save):
    n = 200_000
    names = ["x", *(f"t{i}" for i in range(n - 1)), "y"]
    model = make.with_nodes([node("Relu", [a], [b]) for a, b in pairwise(names)])
    path = save(model)
    start = time.monotonic()
    file = read_onnx(path)
    assert time.monotonic() - start < 60
    assert len(file.model.graph.node) == n


def test_case_30_a_reversed_chain(make, save):
    n = 20_000
    names = ["x", *(f"t{i}" for i in range(n - 1)), "y"]
    model = make.with_nodes([node("Relu", [a], [b]) for a, b in pairwise(names)][::-1])
    file = read_onnx(save(model))
    assert file.model.graph.node[0].input[0] == "x"
    assert file.model.graph.node[n - 1].output[0] == "y"


def test_training_graphs_are_left_out(make, accepted):
    model = make.dense()
    model.training_info.add().initialization.CopyFrom(model.graph)
    file = accepted(model, "ONNX-TRAINING-INFO")
    assert not file.model.training_info


def test_all_errors_of_a_file_are_listed(make, save):
    model = make.dense(dims=[-1], raw_data=b"")
    model.graph.node.append(node("Relu", ["nothing"], ["y"]))
    found = {finding.id for finding in check_onnx(save(model))}
    assert {"ONNX-TENSOR-SHAPE", "ONNX-GRAPH-MISSING", "ONNX-GRAPH-DUPLICATE"} <= found


def test_findings_of_one_id_are_capped(make, save):
    nodes = [node("Relu", [f"missing{i}"], [f"t{i}"]) for i in range(100)] + [node("Relu", ["x"], ["y"])]
    found = [f for f in check_onnx(save(make.with_nodes(nodes))) if f.id == "ONNX-GRAPH-MISSING"]
    assert len(found) == 21
    assert found[-1].message == "80 more like this"


def test_read_raises_the_first_error_only(make, save):
    with pytest.raises(InvalidInputError):
        read_onnx(save(make.with_nodes([node("Relu", ["q"], ["y"])])))
