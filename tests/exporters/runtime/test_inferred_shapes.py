"""Shapes that follow without the weights, and values that follow from shapes."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.sources import InMemorySource


def model(nodes, output="y", weights=(("w", (4, 6)),), **shapes):
    """A model on x (2, 4); weights have no values at all."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in shapes.items()],
    )
    for name, dims in weights:
        proto = graph.initializer.add(
            name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL
        )
        proto.external_data.add(key="location", value="nowhere")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(built):
    return concrete_run(InMemorySource(built), withheld=frozenset({"w"}))


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def test_what_depends_on_weights_has_a_shape_and_no_value():
    found = run(model([node("MatMul", "x w", "y"), node("Relu", "x", "z")])).values
    assert (found["y"].shape, found["y"].dtype, found["y"].value) == ((2, 6), np.float32, None)
    assert found["z"].value is not None


def test_sizes_of_what_is_not_there_are_values():
    """A reshape to the size of a weight, by way of arithmetic on sizes."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("Shape", "w", "s", start=1),
        node("Size", "h", "n"),
        node("Div", "n s", "rest"),
        node("Concat", "s rest", "target", axis=0),
        node("Reshape", "h target", "y"),
    ]
    found = run(model(nodes)).values
    assert found["s"].value.tolist() == [6]
    assert found["n"].value == 12
    assert found["target"].value.tolist() == [6, 2]
    assert found["y"].shape == (6, 2)


def test_a_sequence_of_parts_has_no_shape_and_its_parts_have():
    nodes = [
        node("MatMul", "x w", "h"),
        node("SplitToSequence", "h three", "parts", axis=1),
        node("SequenceAt", "parts one", "y"),
    ]
    built = model(nodes, three=3, one=1)
    built.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3]))
    found = run(built).values
    assert found["parts"].shape is None
    assert found["y"].shape == (2, 3)


def test_a_shape_that_does_not_follow_is_an_error():
    """Places where weights are not zero."""
    with pytest.raises(InvalidInputError, match="the shape of 'y', which NonZero makes, does not follow"):
        run(model([node("NonZero", "w", "y")]))


@pytest.mark.parametrize(("n", "computed"), [(1024, True), (1025, False)])
def test_what_follows_from_sizes_is_computed_up_to_a_bound(n, computed):
    seven = numpy_helper.from_array(np.array([7], np.int64))
    nodes = [node("Shape", "w", "s"), node("ConstantOfShape", "s", "y", value=seven)]
    found = run(model(nodes, weights=[("w", (n,))])).values["y"]
    assert found.shape == (n,)
    assert (found.value is not None) is computed
