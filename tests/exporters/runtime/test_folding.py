"""Constants folded by onnxruntime in the child: any size, any version, any element type."""

import itertools

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from emergraph.errors import LimitError
from emergraph.exporters.export import dry_run
from emergraph.exporters.runtime.assembly import stored_array
from emergraph.exporters.runtime.derivations import Made, Step
from emergraph.exporters.runtime.folding import Folder
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import SMALL_ELEMENTS
from emergraph.exporters.runtime.quantization import dequantize_node, quantize_node
from emergraph.exporters.runtime.reference import EvaluationError

RNG = np.random.default_rng(16)


@pytest.fixture(scope="module")
def newest():
    """A folder of the newest operations."""
    with Folder({"": 25, "com.microsoft": 1}, ir_version=13) as folder:
        yield folder


def made(op, *arrays, domain="", **attributes):
    inputs = tuple(None if array is None else (lambda array=array: array) for array in arrays)
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(arrays)]
    return Made(Step(helper.make_node(op, names, ["o"], domain=domain, **attributes), inputs), 0)


def in_onnxruntime(node, arrays, opset):
    """What onnxruntime gives for one operation whose inputs are initializers, in this process."""
    tensors = []
    for name, array in zip(node.input, arrays, strict=True):
        if array is not None:
            stored = stored_array(array)
            tensors.append(
                TensorProto(
                    name=name, data_type=stored.element_type, dims=array.shape, raw_data=bytes(stored.raw)
                )
            )
    graph = helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name=node.output[0])], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=13)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run_with_ort_values([node.output[0]], {})[0]


def codes(dtype, shape):
    if "float" in np.dtype(dtype).name:
        return RNG.normal(size=shape).astype(dtype)
    info = ml_dtypes.iinfo(dtype)
    return RNG.integers(int(info.min), int(info.max), shape, endpoint=True).astype(dtype)


LAYOUTS = {"tensor": ((), {}), "axis": ((6,), {"axis": 1}), "blocks": ((4, 2), {"axis": 1, "block_size": 3})}
VERSIONS = {
    10: (np.int8, np.uint8, np.int32),
    13: (np.int8, np.uint8, np.int32),
    19: (np.int8, np.uint8, np.int32, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
    21: (np.int8, np.int16, np.uint16, np.int32, ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fnuz),
    23: (np.int8, np.uint16, ml_dtypes.uint4, ml_dtypes.float8_e5m2fnuz),
    25: (np.uint8, ml_dtypes.int4, ml_dtypes.int2, ml_dtypes.uint2),
}


@pytest.mark.parametrize("opset", VERSIONS)
def test_dequantization_in_numpy_is_that_of_onnxruntime_bit_for_bit(opset):
    with Folder({"": opset}, ir_version=13) as folder:
        for dtype, layout in itertools.product(VERSIONS[opset], LAYOUTS):
            if (layout == "blocks" and opset < 21) or (layout == "axis" and opset < 13):
                continue
            shape, attributes = LAYOUTS[layout]
            q = codes(dtype, (4, 6))
            scale = np.abs(RNG.normal(size=shape)).astype(np.float32) + np.float32(0.01)
            is_float = "float" in np.dtype(dtype).name
            zero = np.zeros(shape, dtype) if is_float else codes(dtype, shape)
            arrays = [q, scale] if dtype is np.int32 else [q, scale, zero]
            node = helper.make_node("DequantizeLinear", ["q", "s", "z"][: len(arrays)], ["y"], **attributes)
            expected = in_onnxruntime(node, arrays, opset).numpy()
            (found,) = dequantize_node(node, arrays)
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes(), (dtype, layout)
            folded = folder.values(made("DequantizeLinear", *arrays, **attributes))
            assert folded.tobytes() == expected.tobytes(), (dtype, layout)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantization_in_numpy_is_that_of_onnxruntime(newest, layout, dtype):
    shape, attributes = LAYOUTS[layout]
    x = (RNG.normal(size=(4, 6)) * 20).astype(np.float32)
    # ties and values out of range
    x[0, :4] = [0.25, 0.75, -1e9, 1e9]
    scale = np.full(shape, 0.5, np.float32)
    zero = np.ones(shape, dtype)
    (found,) = quantize_node(helper.make_node("QuantizeLinear", [], [], **attributes), [x, scale, zero])
    folded = newest.values(made("QuantizeLinear", x, scale, zero, **attributes))
    assert found.dtype == folded.dtype == np.dtype(dtype)
    assert found.astype(np.int32).tolist() == folded.astype(np.int32).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_result_has_the_type_of_the_scale(newest, dtype):
    q, scale = codes(np.int8, (4, 6)), np.asarray(0.37, dtype)
    node = made("DequantizeLinear", q, scale)
    folded = newest.values(node)
    assert folded.dtype == dtype
    assert folded.tobytes() == dequantize_node(node.step.node, [q, scale])[0].tobytes()


def test_types_without_a_kernel_follow_the_rule_in_numpy(newest):
    q = codes(ml_dtypes.float4_e2m1fn, (3, 8))
    scale = np.float32(0.5)
    folded = newest.values(made("DequantizeLinear", q, scale))
    assert folded.tolist() == (q.astype(np.float32) * scale).tolist()
    # and so does what follows, in onnxruntime again
    step = made("DequantizeLinear", q, scale)
    turned = Made(Step(helper.make_node("Transpose", ["a"], ["b"]), (step,)), 0)
    assert newest.values(turned).tolist() == folded.T.tolist()


@pytest.mark.parametrize("n", [SMALL_ELEMENTS, SMALL_ELEMENTS + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_constants_of_any_size_come_back(newest, n, dtype):
    values = np.arange(n).astype(dtype)
    assert np.array_equal(newest.values(made("Neg", values)), -values)


def test_a_constant_that_is_used_over_and_over_is_computed_once_for_each_result(newest):
    # thirty squarings of a shared tensor: a recursion without memory would compute it 2^30 times
    one = made("Neg", np.ones(SMALL_ELEMENTS + 1, np.float32))
    for _ in range(30):
        one = Made(Step(helper.make_node("Mul", ["a", "a"], ["b"]), (one, one)), 0)
    assert (newest.values(one) == 1.0).all()


def test_a_chain_of_many_operations_is_no_recursion(newest):
    one = made("Neg", np.ones(3, np.float32))
    for _ in range(3000):
        one = Made(Step(helper.make_node("Neg", ["a"], ["b"]), (one,)), 0)
    assert newest.values(one).tolist() == [-1.0, -1.0, -1.0]


def test_constants_with_names_are_found_by_them(newest):
    nodes = [
        helper.make_node("Split", ["w"], ["a", "b"], num_outputs=2),
        helper.make_node("Concat", ["b", "a"], ["c"], axis=0),
    ]
    makers = {name: node for node in nodes for name in node.output}
    read = {"w": np.arange(6.0, dtype=np.float32)}
    assert newest.named("c", makers, read.__getitem__).tolist() == [3, 4, 5, 0, 1, 2]
    assert newest.named("b", makers, read.__getitem__).tolist() == [3, 4, 5]


def test_what_nothing_can_compute_names_operation_and_reason(newest):
    with pytest.raises(
        EvaluationError, match=r"^constants cannot be computed by DequantizeLinear of version"
    ):
        newest.values(made("DequantizeLinear", codes(np.int8, (4, 6)), np.ones(5, np.float32), axis=1))


def test_the_clock_counts_what_folding_takes_in_all():
    limits = RunLimits(wall_seconds=0.001)
    with Folder({"": 17}, limits=limits) as folder, pytest.raises(LimitError, match=r"longer than 0\.001 s"):
        folder.values(made("Neg", np.ones(3, np.float32)))


def test_a_folder_that_is_dropped_ends_its_child():
    folder = Folder({"": 17})
    folder.values(made("Neg", np.ones(3, np.float32)))
    process = folder._process._process
    del folder
    assert process.poll() is not None


def quantized_file(path, opset, n, k):
    """One MatMul of a dequantized weight; returns the weight."""
    per_axis = opset >= 13
    q = RNG.integers(1, 100, (k, n), dtype=np.int8)
    scale = RNG.random(n).astype(np.float32) + np.float32(0.01) if per_axis else np.float32(0.02)
    zero = np.zeros(n if per_axis else (), np.int8)
    arrays = {"codes": q, "scale": np.asarray(scale), "zero": zero}
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["codes", "scale", "zero"], ["w"], **({"axis": 1} if per_axis else {})
        ),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, n])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return q.astype(np.float32) * scale


@pytest.mark.parametrize(
    ("opset", "n"), [(10, 256), (10, 257), (13, 257), (17, 256), (17, 257), (18, 257), (21, 257), (23, 257)]
)
def test_files_on_both_sides_of_the_size_that_stays_in_the_child(tmp_path, opset, n):
    quantized_file(tmp_path / "m.onnx", opset, n, 256)
    assert (256 * n > SMALL_ELEMENTS) == (n == 257)
    found = dry_run(tmp_path / "m.onnx").trace
    assert found.coverage == 1.0
    assert not found.opaque
    assert found.n_edges == 256 * n


@pytest.mark.parametrize("n", [8, 1100])
def test_a_file_whose_weights_onnxruntime_has_no_kernel_for_is_understood(tmp_path, n):
    q = codes(ml_dtypes.float4_e2m1fn, (64, n))
    stored = stored_array(q)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, n])],
        [
            TensorProto(name="q", data_type=stored.element_type, dims=q.shape, raw_data=bytes(stored.raw)),
            onnx.numpy_helper.from_array(np.float32(0.5), "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    onnx.save(model, tmp_path / "m.onnx")
    found = dry_run(tmp_path / "m.onnx").trace
    assert (found.coverage, found.opaque) == (1.0, ())
    assert found.n_edges == np.count_nonzero(q.astype(np.float32))
