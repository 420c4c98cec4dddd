"""Landscapes in half and double precision: the losses of the float32 model, and a note that says so."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from emergraph.analysis.landscape.engine_ort import OrtEvaluator
from emergraph.analysis.landscape.reweight import reweightable
from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import InMemorySource


def evaluator(dtype, broken=None):
    """An evaluator of a small net whose numbers every type holds."""
    rng = np.random.default_rng(0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = [np.round(rng.standard_normal(shape) * 8) / 16 for shape in ((6, 8), (8, 3))]
    if broken is not None:
        weights[0][0, 0] = broken
    x = (np.round(rng.standard_normal((16, 6)) * 4) / 8).astype(dtype)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "A"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("MatMul", ["r", "B"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 6])],
        [helper.make_tensor_value_info("y", kind, ["N", 3])],
        [numpy_helper.from_array(w.astype(dtype), n) for w, n in zip(weights, "AB", strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    source = InMemorySource(onnx.ModelProto.FromString(model.SerializeToString()))
    run = concrete_run(source, inputs={"x": x}, limits=RunLimits(wall_seconds=60, threads=1))
    return OrtEvaluator(reweightable(run, source), [{"x": x}], threads=1)


@pytest.mark.parametrize(
    ("dtype", "note", "tolerance"),
    [
        (np.float16, "weights of float16 move in float32 and are rounded to float16 for each run", 2e-2),
        (ml_dtypes.bfloat16, "the model is of bfloat16; it runs in float32", 5e-2),
        (np.float64, "weights of float64 move in float32", 1e-5),
    ],
    ids=["float16", "bfloat16", "float64"],
)
def test_other_types_give_the_losses_of_float32(dtype, note, tolerance):
    single, other = evaluator(np.float32), evaluator(dtype)
    assert single.notes == ()
    assert other.notes == (note,)
    np.testing.assert_array_equal(single.base, other.base)
    moved = single.base + np.random.default_rng(1).standard_normal(single.n_params).astype(np.float32) * 0.2
    assert single.loss(moved) > 1e-3
    assert other.loss(moved) == pytest.approx(single.loss(moved), rel=tolerance)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value):
    with pytest.raises(InvalidInputError, match="1 weights of A are NaN or infinite"):
        evaluator(np.float32, broken=value)


def single_source(dtype, nodes, shape, initializers):
    """A model of one type."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(w.astype(dtype), n) for n, w in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return InMemorySource(onnx.ModelProto.FromString(model.SerializeToString()))


def test_double_convolutions_have_no_kernel_and_run_in_float32():
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["x", "A"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    weights = {"A": rng.standard_normal((2, 3, 3, 3)).astype(np.float32)}
    found = []
    for dtype in (np.float32, np.float64):
        source = single_source(dtype, nodes, ["N", 3, 5, 5], weights)
        x = np.ones((2, 3, 5, 5), dtype)
        run = concrete_run(source, inputs={"x": x}, limits=RunLimits(wall_seconds=60, threads=1))
        found.append(OrtEvaluator(reweightable(run, source), [{"x": x}], threads=1))
    assert found[1].notes == (
        "the model is of float64, of which onnxruntime lacks operations; it runs in float32",
    )
    moved = found[0].base + 0.25
    assert found[1].loss(moved) == found[0].loss(moved) > 0


@pytest.mark.parametrize("n", [512, 513])  # the bytes of the constant that is not perturbed: 1024 and 1026
def test_constants_that_are_not_perturbed_are_of_the_type_too(n):
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "A"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
    weights = {"A": np.round(rng.standard_normal((3, n)) * 8) / 16, "b": np.arange(n) % 7}
    source = single_source(ml_dtypes.bfloat16, nodes, ["N", 3], weights)
    x = np.ones((2, 3), ml_dtypes.bfloat16)
    run = concrete_run(source, inputs={"x": x}, limits=RunLimits(wall_seconds=60, threads=1))
    found = OrtEvaluator(reweightable(run, source), [{"x": x}], threads=1)
    moved = found.base + np.float32(0.5)
    assert found.loss(moved) == pytest.approx(1.5**2, rel=1e-5)
