"""Small networks of four families, in which tests plant faults."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.analysis.audit.audit import audit_model
from emergraph.analysis.audit.kinds import Section
from emergraph.analysis.audit.result import AuditResult

Info = tuple[str, list[int | str], int]


@dataclass
class Net:
    """An ONNX model that can still be changed."""

    family: str
    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]
    inputs: list[Info]
    outputs: list[Info]
    samples: dict[str, np.ndarray]
    """Inputs that mean something to it, samples first."""
    opset: int = 17
    metadata: dict[str, str] = field(default_factory=dict)

    def node(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.nodes if node.name == name)

    def put_after(self, name: str, node: onnx.NodeProto) -> None:
        """Put an operation on the first output of another one; what read that reads the new one."""
        index = next(i for i, one in enumerate(self.nodes) if one.name == name)
        old, new = self.nodes[index].output[0], node.output[0]
        for other in self.nodes[index + 1 :]:
            for position, read in enumerate(other.input):
                if read == old:
                    other.input[position] = new
        node.input.insert(0, old)
        self.nodes.insert(index + 1, node)

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(
            self.nodes,
            self.family,
            [helper.make_tensor_value_info(n, kind, shape) for n, shape, kind in self.inputs],
            [helper.make_tensor_value_info(n, kind, shape) for n, shape, kind in self.outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 9
        for key, value in self.metadata.items():
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, path)
        return path


def _draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 4
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def _bias(rng: np.random.Generator, n: int) -> np.ndarray:
    return (0.1 * rng.standard_normal(n)).astype(np.float32)


def node(op: str, inputs: Sequence[str], output: str, **attributes: object) -> onnx.NodeProto:
    """An operation that is named like what it makes."""
    return helper.make_node(op, list(inputs), [output], name=output, **attributes)


def cnn(width: int = 12, seed: int = 0) -> Net:
    """Two convolutions, the first with a batch normalisation, and two dense layers."""
    rng = np.random.default_rng(seed)
    w = {
        "w1": _draw(rng, width, 3, 3, 3),
        "b1": _bias(rng, width),
        "scale": (1 + 0.1 * rng.standard_normal(width)).astype(np.float32),
        "shift": _bias(rng, width),
        "mean": _bias(rng, width),
        "var": (0.5 + rng.random(width)).astype(np.float32),
        "w2": _draw(rng, width, width, 3, 3),
        "b2": _bias(rng, width),
        "w3": _draw(rng, width, width),
        "b3": _bias(rng, width),
        "w4": _draw(rng, 5, width),
        "b4": _bias(rng, 5),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], "conv1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["conv1", "scale", "shift", "mean", "var"], "norm1"),
        node("Relu", ["norm1"], "relu1"),
        node("Conv", ["relu1", "w2", "b2"], "conv2"),
        node("Relu", ["conv2"], "relu2"),
        node("GlobalAveragePool", ["relu2"], "pool"),
        node("Flatten", ["pool"], "flat"),
        node("Gemm", ["flat", "w3", "b3"], "dense3", transB=1),
        node("Relu", ["dense3"], "relu3"),
        node("Gemm", ["relu3", "w4", "b4"], "y", transB=1),
    ]
    samples = {"x": rng.standard_normal((12, 3, 8, 8)).astype(np.float32)}
    floats = TensorProto.FLOAT
    return Net("cnn", nodes, w, [("x", ["N", 3, 8, 8], floats)], [("y", ["N", 5], floats)], samples)


def transformer(width: int = 12, seed: int = 1) -> Net:
    """One block of attention with one head, a normalisation and two dense layers, and a head."""
    rng = np.random.default_rng(seed)
    w = {name: _draw(rng, width, width).T.copy() for name in ("wq", "wk", "wv", "wo")}
    w |= {
        "gamma": (1 + 0.1 * rng.standard_normal(width)).astype(np.float32),
        "beta": _bias(rng, width),
        "w1": _draw(rng, 2 * width, width).T.copy(),
        "b1": _bias(rng, 2 * width),
        "w2": _draw(rng, width, 2 * width).T.copy(),
        "b2": _bias(rng, width),
        "w3": _draw(rng, 4, width),
        "b3": _bias(rng, 4),
    }
    nodes = [
        *(node("MatMul", ["x", f"w{p}"], p) for p in "qkv"),
        node("Transpose", ["k"], "kt", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], "scores"),
        node("Softmax", ["scores"], "probs", axis=-1),
        node("MatMul", ["probs", "v"], "context"),
        node("MatMul", ["context", "wo"], "mixed"),
        node("Add", ["x", "mixed"], "sum1"),
        node("LayerNormalization", ["sum1", "gamma", "beta"], "norm"),
        node("MatMul", ["norm", "w1"], "dense1"),
        node("Add", ["dense1", "b1"], "biased1"),
        node("Relu", ["biased1"], "relu1"),
        node("MatMul", ["relu1", "w2"], "dense2"),
        node("Add", ["dense2", "b2"], "biased2"),
        node("Add", ["norm", "biased2"], "sum2"),
        node("ReduceMean", ["sum2"], "pooled", axes=[1], keepdims=0),
        node("Gemm", ["pooled", "w3", "b3"], "y", transB=1),
    ]
    samples = {"x": rng.standard_normal((12, 4, width)).astype(np.float32)}
    floats = TensorProto.FLOAT
    inputs: list[Info] = [("x", ["N", 4, width], floats)]
    return Net("transformer", nodes, w, inputs, [("y", ["N", 4], floats)], samples)


def recurrent(width: int = 10, seed: int = 2) -> Net:
    """An LSTM, of which the last step goes through two dense layers."""
    rng = np.random.default_rng(seed)
    w = {
        "wi": _draw(rng, 1, 4 * width, 6) * 2,
        "wr": _draw(rng, 1, 4 * width, width) * 2,
        "bi": np.concatenate([_bias(rng, 4 * width), np.zeros(4 * width, np.float32)])[None],
        "last": np.array(-1, np.int64),
        "w1": _draw(rng, width, width),
        "b1": _bias(rng, width),
        "w2": _draw(rng, 6, width),
        "b2": _bias(rng, 6),
        "axis": np.array([1], np.int64),
    }
    lstm = helper.make_node(
        "LSTM", ["steps_first", "wi", "wr", "bi"], ["steps"], name="lstm", hidden_size=width
    )
    nodes = [
        node("Transpose", ["x"], "steps_first", perm=[1, 0, 2]),
        lstm,
        node("Squeeze", ["steps", "axis"], "squeezed"),
        node("Gather", ["squeezed", "last"], "final", axis=0),
        node("Gemm", ["final", "w1", "b1"], "dense1", transB=1),
        node("Relu", ["dense1"], "relu1"),
        node("Gemm", ["relu1", "w2", "b2"], "y", transB=1),
    ]
    samples = {"x": rng.standard_normal((12, 5, 6)).astype(np.float32)}
    floats = TensorProto.FLOAT
    return Net("recurrent", nodes, w, [("x", ["N", 5, 6], floats)], [("y", ["N", 6], floats)], samples)


def quantized(width: int = 16, seed: int = 3, *, coded: bool = True) -> Net:
    """Three dense layers whose weights are stored as int8 with a scale per unit; or the same in float."""
    rng = np.random.default_rng(seed)
    sizes = [8, width, width, 8]
    nodes, w, previous = [], {}, "x"
    for k, (n_in, n_out) in enumerate(itertools.pairwise(sizes), start=1):
        codes = np.round(_draw(rng, n_out, n_in) / 0.5 * 127 / 2).clip(-127, 127)
        scale = np.full(n_out, 0.01, np.float32)
        if coded:
            w[f"w{k}_q"] = codes.astype(np.int8)
            w[f"s{k}"], w[f"z{k}"] = scale, np.zeros(n_out, np.int8)
            nodes.append(node("DequantizeLinear", [f"w{k}_q", f"s{k}", f"z{k}"], f"w{k}", axis=0))
        else:
            w[f"w{k}"] = (codes * scale[:, None]).astype(np.float32)
        w[f"b{k}"] = _bias(rng, n_out)
        last = k == len(sizes) - 1
        nodes.append(node("Gemm", [previous, f"w{k}", f"b{k}"], "y" if last else f"dense{k}", transB=1))
        if not last:
            nodes.append(node("Relu", [f"dense{k}"], f"relu{k}"))
        previous = f"relu{k}"
    samples = {"x": rng.standard_normal((12, 8)).astype(np.float32)}
    floats = TensorProto.FLOAT
    family = "quantized" if coded else "dense"
    return Net(family, nodes, w, [("x", ["N", 8], floats)], [("y", ["N", 8], floats)], samples)


FAMILIES: dict[str, Callable[[], Net]] = {
    "cnn": cnn,
    "transformer": transformer,
    "recurrent": recurrent,
    "quantized": quantized,
}


STRENGTHS = (1, 2, 3)


def planted_cases() -> list[object]:
    """Every family at every strength: one strength of each, the others in `make test-models`."""
    return [
        pytest.param(family, n, marks=() if n == place % 3 + 1 else pytest.mark.families)
        for place, family in enumerate(FAMILIES)
        for n in STRENGTHS
    ]


def audited_fast(model: Path, *given: object, **choices: object) -> AuditResult:
    """An audit without the section that runs many pruned models."""
    sections = [section for section in Section if section is not Section.PRUNABLE]
    return audit_model(model, *given, only=sections, **choices)
