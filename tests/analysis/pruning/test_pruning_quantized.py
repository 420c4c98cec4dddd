"""Pruning quantized models: a removed weight is a code equal to its zero point, at every level."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import emergraph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.exporters.runtime.assembly import stored_array
from emergraph.exporters.runtime.quantization import dequantize

LEVELS = (0.0, 0.3, 0.6, 0.9)
SHAPES = ((8, 6), (6, 4))
KINDS = {
    "opset 10, one zero point": (10, np.uint8, "tensor"),
    "opset 13, zero points of columns": (13, np.uint8, "axis"),
    "opset 21, blocks": (21, np.uint8, "blocks"),
    "opset 21, blocks of 4 bits": (21, ml_dtypes.uint4, "blocks"),
}


def initializer(name, array):
    stored = stored_array(array)
    return TensorProto(name=name, data_type=stored.element_type, dims=array.shape, raw_data=bytes(stored.raw))


def quantized(path, opset, dtype, layout):
    """Two layers of dequantized weights; returns codes, scales, zero points and attributes by layer."""
    rng = np.random.default_rng(opset)
    top = 15 if dtype is ml_dtypes.uint4 else 120
    nodes, tensors, found, previous = [], [initializer("xs", np.float32(0.02))], [], "x"
    tensors.append(initializer("xz", np.int8(0)))
    for i, (k, n) in enumerate(SHAPES):
        shape = {"tensor": (), "axis": (n,), "blocks": (k // 2, n)}[layout]
        attributes = {"tensor": {}, "axis": {"axis": 1}, "blocks": {"axis": 0, "block_size": 2}}[layout]
        codes = rng.integers(0, top, (k, n)).astype(dtype)
        scale = (rng.random(shape) * 0.02 + 0.01).astype(np.float32)
        zero = rng.integers(5, 10, shape).astype(dtype)
        tensors += [
            initializer(f"{t}{i}", np.asarray(v)) for t, v in zip("qsz", (codes, scale, zero), strict=True)
        ]
        nodes += [
            helper.make_node("QuantizeLinear", [previous, "xs", "xz"], [f"xq{i}"]),
            helper.make_node("DequantizeLinear", [f"xq{i}", "xs", "xz"], [f"xd{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", f"s{i}", f"z{i}"], [f"w{i}"], **attributes),
            helper.make_node("MatMul", [f"xd{i}", f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        previous = f"r{i}"
        found.append((codes, scale, zero, attributes))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info(previous, TensorProto.FLOAT, ["N", 4])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return found


def weights_in(path, coding):
    model = onnx.load(path)
    by_name = {t.name: np.asarray(numpy_helper.to_array(t)) for t in model.graph.initializer}
    return [
        dequantize(by_name[f"q{i}"], scale, zero, **({"axis": 1} | attributes))
        for i, (_, scale, zero, attributes) in enumerate(coding)
    ]


def output_of(path, inputs):
    options = ort.SessionOptions()
    # its fusions do not know blocks
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options).run(None, inputs)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_removed_weights_are_codes_at_the_zero_point(tmp_path, kind):
    path = tmp_path / "q.onnx"
    coding = quantized(path, *KINDS[kind])
    before = weights_in(path, coding)
    graph = emergraph.export(path, tmp_path / "s.duckdb")
    assert graph.layers["n_params"].to_list() == [0, 48, 24]
    assert graph.layers["n_zeros"].to_list() == [0, *(int((w == 0).sum()) for w in before)]
    inputs = {"x": np.random.default_rng(1).normal(size=(12, 8)).astype(np.float32)}
    rows = graph.prune(PruningOptions(levels=LEVELS), files=ModelFiles(model=path, inputs=inputs)).frame
    expected = output_of(path, inputs)
    assert rows["relative_mse"][0] == 0
    assert rows["relative_mse"].is_sorted()
    present = sum(int((w != 0).sum()) for w in before)
    for level, error in list(zip(rows["level"], rows["relative_mse"], strict=True))[1::2]:
        out = tmp_path / f"{level}.onnx"
        files = ModelFiles(model=path)
        graph.prune(PruningOptions(levels=(level,)), files=files, write=out, smaller=False)
        after = weights_in(out, coding)
        left = sum(int((w != 0).sum()) for w in after)
        assert abs(left - present * (1 - level)) <= 1
        assert all(((a == b) | (a == 0)).all() for a, b in zip(after, before, strict=True))
        found = output_of(out, inputs)
        measured = float(((expected - found) ** 2).sum() / (expected**2).sum())
        assert error == pytest.approx(measured, rel=1e-4, abs=1e-9)


def test_removed_units_of_quantized_layers_lose_their_bias(tmp_path):
    rng = np.random.default_rng(3)
    tensors = [
        initializer("q", rng.integers(-90, 90, (6, 8), dtype=np.int8)),
        initializer("s", (rng.random(6) * 0.01 + 0.01).astype(np.float32)),
        initializer("z", np.zeros(6, np.int8)),
        initializer("bq", rng.integers(100, 900, 6, dtype=np.int32)),
        initializer("bs", np.full(6, 0.001, np.float32)),
        initializer("w", rng.normal(size=(6, 3)).astype(np.float32)),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["bq", "bs"], ["bf"], axis=0),
        helper.make_node("Gemm", ["x", "wf", "bf"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        tensors,
    )
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), path)
    stored = emergraph.export(path, tmp_path / "s.duckdb")
    result = stored.prune(
        PruningOptions(criterion="l2", levels=(0.5,)),
        files=ModelFiles(model=path),
        write=out,
        smaller=False,
    )
    removal, level = result.mask(0)
    after = {t.name: numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    first = stored.layers.filter(stored.layers["n_params"] == 54)["first_unit"][0]
    gone = removal.units[first : first + 6] <= level
    assert gone.any()
    assert not gone.all()
    assert (after["q"] == 0).all(axis=1).tolist() == gone.tolist()
    assert (after["bq"] == 0).tolist() == gone.tolist()
