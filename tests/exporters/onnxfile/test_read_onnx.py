"""The reader on files that are in order: nothing lost, nothing copied, nothing reordered."""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.onnxfile.traverse import bodies, body_tensors

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache/emergraph/models"))


def dense_model(weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_large_values_stay_in_the_file(tmp_path):
    weight = np.arange(1200, dtype=np.float32).reshape(30, 40)
    path = tmp_path / "m.onnx"
    onnx.save(dense_model(weight), path)
    file = read_onnx(path)
    assert file.model.ByteSize() < 500
    assert not file.model.graph.initializer[0].HasField("raw_data")
    tensor = file.tensors["w"]
    assert (tensor.dtype, tensor.shape, tensor.n_elements, tensor.n_bytes) == (
        "float32",
        (30, 40),
        1200,
        4800,
    )
    np.testing.assert_array_equal(tensor.array(), weight)
    assert bytes(tensor.raw()) == weight.tobytes()


@pytest.mark.models
@pytest.mark.parametrize("path", sorted(MODELS.glob("*/**/*.onnx")), ids=lambda path: path.stem)
def test_real_models_lose_nothing(path):
    file, full = read_onnx(path, limits=ReadLimits(inline_bytes=16)), onnx.load(path)
    mine = [proto for body in bodies(file.model) for proto in body_tensors(body)]
    theirs = [proto for body in bodies(full) for proto in body_tensors(body)]
    assert len(mine) == len(theirs)
    for light, proto in zip(mine, theirs, strict=True):
        if proto.data_type != TensorProto.STRING:
            values = numpy_helper.to_array(proto)
            tensor = file.tensor_of(light)
            assert (tensor.name, tensor.shape, tensor.array().dtype) == (
                proto.name,
                values.shape,
                values.dtype,
            )
            assert tensor.array().tobytes() == values.tobytes()


def test_identity_of_a_file_and_of_its_values_outside(tmp_path):
    weight = np.arange(1200, dtype=np.float32).reshape(30, 40)
    onnx.save(dense_model(weight), tmp_path / "one.onnx")
    assert read_onnx(tmp_path / "one.onnx").sha256 == sha256((tmp_path / "one.onnx").read_bytes()).hexdigest()
    onnx.save(
        dense_model(weight), tmp_path / "two.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    first = read_onnx(tmp_path / "two.onnx")
    model, values = (sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("two.onnx", "w"))
    assert first.sha256 == sha256(f"{model}  \n{values}  w\n".encode()).hexdigest()
    (tmp_path / "w").write_bytes((weight + 1).tobytes())
    assert read_onnx(tmp_path / "two.onnx").sha256 != first.sha256
