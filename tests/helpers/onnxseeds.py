"""Sound little models that together use every corner of the format; the fuzzing spoils them."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_node = helper.make_node


@dataclass(frozen=True)
class Seed:
    """A sound model and the files beside it."""

    name: str
    content: bytes
    beside: dict[str, bytes] = field(default_factory=dict)


def own_seeds() -> list[Seed]:
    """Return the models made here."""
    models = {
        "dense": _dense(),
        "control-flow": _control_flow(),
        "functions": _functions(),
        "sparse": _sparse(),
        "quantized": _quantized(),
        "types": _types(),
        "recurrent": _recurrent(),
        "convolution": _convolution(),
    }
    seeds = [Seed(name, model.SerializeToString()) for name, model in models.items()]
    outside, values = _external()
    return [*seeds, Seed("external", outside.SerializeToString(), {"w.bin": values, "sub/v.bin": values})]


def real_seeds(largest: int = 3_500_000) -> list[Seed]:
    """Return the third-party models that are there and not larger than `largest` bytes."""
    folder = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache/emergraph/models"))
    paths = [path for path in sorted(folder.glob("*/**/*.onnx")) if path.stat().st_size <= largest]
    return [Seed(path.stem, path.read_bytes()) for path in paths]


def _values(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _tensor(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(_values(*shape), name)


def _model(nodes, tensors=(), functions=(), shape=(1, 16), domains=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(tensors),
        value_info=[helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 16])],
    )
    imports = [helper.make_opsetid("", 21), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions), producer_name="seeds")
    model.metadata_props.add(key="author", value="nobody")
    return model


def _dense() -> onnx.ModelProto:
    nodes = [
        _node("Gemm", ["x", "w1", "b1"], ["h"], name="fc1", transB=1),
        _node("Relu", ["h"], ["r"], name="relu"),
        _node("MatMul", ["r", "w2"], ["y"], name="fc2"),
    ]
    return _model(nodes, [_tensor("w1", 24, 16), _tensor("b1", 24), _tensor("w2", 24, 20)])


def _branch(weight: str) -> onnx.GraphProto:
    constant = _node("Constant", [], [weight], value=_tensor(weight, 16, 20))
    outputs = [helper.make_tensor_value_info(f"o_{weight}", TensorProto.FLOAT, None)]
    return helper.make_graph([constant, _node("MatMul", ["x", weight], [f"o_{weight}"])], weight, [], outputs)


def _control_flow() -> onnx.ModelProto:
    nodes = [
        _node("ReduceSum", ["x"], ["s"], keepdims=0),
        _node("Constant", [], ["zero"], value_float=0.0),
        _node("Greater", ["s", "zero"], ["condition"]),
        _node("If", ["condition"], ["y"], then_branch=_branch("a"), else_branch=_branch("b")),
    ]
    return _model(nodes)


def _functions() -> onnx.ModelProto:
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "Inner", ["p"], ["q"], [_node("Relu", ["p"], ["q"])], imports)
    body = [
        _node("Constant", [], ["w"], value=_tensor("w", 16, 20)),
        _node("MatMul", ["p", "w"], ["m"]),
        _node("Inner", ["m"], ["q"], domain="own"),
    ]
    outer = helper.make_function("own", "Outer", ["p"], ["q"], body, imports)
    return _model([_node("Outer", ["x"], ["y"], domain="own")], functions=[outer, inner], domains=["own"])


def _sparse() -> onnx.ModelProto:
    model = _model([_node("MatMul", ["x", "s"], ["y"])])
    sparse = model.graph.sparse_initializer.add(dims=[16, 20])
    sparse.values.CopyFrom(_tensor("s", 200))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(200, dtype=np.int64), "i"))
    return model


def _quantized() -> onnx.ModelProto:
    tensors = [
        numpy_helper.from_array(np.arange(16 * 80).astype(np.int8).reshape(16, 80), "q"),
        numpy_helper.from_array(np.full(80, 0.1, np.float32), "scale"),
        numpy_helper.from_array(np.zeros(80, np.int8), "zero"),
    ]
    nodes = [
        _node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=1),
        _node("MatMul", ["x", "w"], ["y"]),
    ]
    return _model(nodes, tensors)


def _types() -> onnx.ModelProto:
    tensors = []
    for code in sorted(set(TensorProto.DataType.values()) - {0, TensorProto.STRING}):
        values = np.zeros(1100).astype(helper.tensor_dtype_to_np_dtype(code))
        tensors.append(numpy_helper.from_array(values, f"t{code}"))
    tensors.append(helper.make_tensor("ints", TensorProto.INT32, [600], range(-300, 300)))
    tensors.append(helper.make_tensor("halves", TensorProto.FLOAT16, [600], np.zeros(600, np.float16)))
    tensors.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"b"]))
    return _model([_node("MatMul", ["x", "w"], ["y"])], [*tensors, _tensor("w", 16, 20)])


def _recurrent() -> onnx.ModelProto:
    nodes = [
        _node("LSTM", ["x", "w", "r"], ["", "h_last"], hidden_size=4, name="lstm"),
        _node("Squeeze", ["h_last", "axis"], ["y"]),
    ]
    axis = numpy_helper.from_array(np.array([0]), "axis")
    return _model(nodes, [_tensor("w", 1, 16, 6), _tensor("r", 1, 16, 4), axis], shape=(5, 1, 6))


def _convolution() -> onnx.ModelProto:
    nodes = [
        _node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        _node("Relu", ["c"], ["r"]),
        _node("GlobalAveragePool", ["r"], ["p"]),
        _node("Flatten", ["p"], ["f"]),
        _node("Gemm", ["f", "w"], ["y"]),
    ]
    return _model(nodes, [_tensor("k", 6, 3, 3, 3), _tensor("w", 6, 10)], shape=(1, 3, 8, 8))


def _external() -> tuple[onnx.ModelProto, bytes]:
    values = _values(16, 20)
    tensors = []
    for name, location in (("w", "w.bin"), ("v", "sub/v.bin")):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape, data_location=1)
        for key, value in {"location": location, "offset": "0", "length": str(values.nbytes)}.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    nodes = [_node("Add", ["w", "v"], ["sum"]), _node("MatMul", ["x", "sum"], ["y"])]
    return _model(nodes, tensors), values.tobytes()
