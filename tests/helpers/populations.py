"""Folders of tiny model files, for surveys."""

import os
import pickle
from pathlib import Path

import numpy as np
import onnx
from inplacemodels import write_safetensors
from onnx import TensorProto, helper, numpy_helper


class Calls:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("true",)


def tiny_weights(path: Path, seed: int) -> Path:
    """A safetensors file with two dense layers."""
    rng = np.random.default_rng(seed)
    shapes = {"fc0.weight": (4 + seed % 5, 3), "fc1.weight": (2, 4 + seed % 5)}
    return write_safetensors(path, {name: rng.normal(size=s).astype("float32") for name, s in shapes.items()})


def tiny_onnx(path: Path, seed: int) -> Path:
    """An ONNX file with two dense layers."""
    rng = np.random.default_rng(seed)
    width = 3 + seed % 4
    weights = {"w0": rng.normal(size=(2, width)), "w1": rng.normal(size=(width, 2))}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(values.astype("float32"), name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def population(folder: Path, n: int, *, onnx_files: int = 0) -> Path:
    """A folder with `n` models: weights, ONNX files, a copy, damage, a pickle with code, a Keras file."""
    folder.mkdir()
    inner = folder / "inner"
    inner.mkdir()
    tiny_weights(folder / "net0.safetensors", 0)
    (inner / "copy.bin").write_bytes((folder / "net0.safetensors").read_bytes())
    (folder / "damaged.onnx").write_bytes(tiny_onnx(folder / "damaged.onnx", 0).read_bytes()[:40])
    (folder / "code.pkl").write_bytes(pickle.dumps(Calls()))
    (folder / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (folder / "notes.txt").write_text("no model\n")
    for k in range(1, n - 4):
        place = inner if k % 3 == 0 else folder
        if k <= onnx_files:
            tiny_onnx(place / f"net{k}.onnx", k)
        else:
            tiny_weights(place / f"net{k}.safetensors", k)
    return folder
