"""A transformer of any size with random weights, written to an ONNX file on the fly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def transformer(path: Path, *, layers: int, width: int, heads: int, hidden: int, seed: int = 0) -> int:
    """Write a pre-norm encoder without embeddings; return its number of weights in matrices."""
    rng = np.random.default_rng(seed)
    initializers: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    weights = 0

    def parameter(name: str, *shape: int) -> str:
        values = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
        initializers.append(
            TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, raw_data=values.tobytes())
        )
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    for name, shape in (("heads", [0, 0, heads, width // heads]), ("flat", [0, 0, width])):
        values = np.asarray(shape, np.int64)
        initializers.append(
            TensorProto(name=name, data_type=TensorProto.INT64, dims=[len(shape)], raw_data=values.tobytes())
        )
    current = "x"
    for k in range(layers):
        current = _block(f"{k}", current, width, hidden, parameter, node)
        weights += 4 * width * width + 2 * width * hidden
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "positions", width])],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, ["batch", "positions", width])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return weights


Maker = Callable[..., str]


def _block(k: str, x: str, width: int, hidden: int, parameter: Maker, node: Maker) -> str:
    def norm(tag: str, source: str) -> str:
        gamma, beta = parameter(f"{k}.{tag}.gamma", width), parameter(f"{k}.{tag}.beta", width)
        return node("LayerNormalization", [source, gamma, beta], f"{k}.{tag}", axis=-1)

    def dense(tag: str, source: str, n_in: int, n_out: int) -> str:
        product = node("MatMul", [source, parameter(f"{k}.{tag}.weight", n_in, n_out)], f"{k}.{tag}.product")
        return node("Add", [product, parameter(f"{k}.{tag}.bias", n_out)], f"{k}.{tag}")

    h = norm("norm1", x)
    parts = {}
    for tag in ("q", "k", "v"):
        shaped = node("Reshape", [dense(tag, h, width, width), "heads"], f"{k}.{tag}.heads")
        parts[tag] = node(
            "Transpose", [shaped], f"{k}.{tag}.split", perm=[0, 2, 3, 1] if tag == "k" else [0, 2, 1, 3]
        )
    scores = node(
        "Softmax", [node("MatMul", [parts["q"], parts["k"]], f"{k}.scores")], f"{k}.attention", axis=-1
    )
    context = node("MatMul", [scores, parts["v"]], f"{k}.context")
    merged = node(
        "Reshape", [node("Transpose", [context], f"{k}.merged", perm=[0, 2, 1, 3]), "flat"], f"{k}.flat"
    )
    attended = node("Add", [x, dense("o", merged, width, width)], f"{k}.residual1")
    inner = node("Relu", [dense("up", norm("norm2", attended), width, hidden)], f"{k}.relu")
    return node("Add", [attended, dense("down", inner, hidden, width)], f"{k}.residual2")
