"""Small models whose graphs are made twice: with rows for edges, and with edges that stay in the file."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emergraph.exporters.export import ExportOptions
from emergraph.exporters.placements import EdgePlacement
from emergraph.exporters.sources import export_any
from emergraph.graphstore.store import open_store

Array = NDArray[np.generic]
_SAFETENSORS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64"}


def sparse_weights(shape: Sequence[int], *, seed: int, dtype: str = "float32", zeros: float = 0.3) -> Array:
    """Random weights, some of them exactly zero, a few of those negative zeros."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    values[rng.random(shape) < zeros] = 0.0
    values[rng.random(shape) < zeros / 10] = -0.0
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    return values.astype(kind)


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> Path:
    """Write a safetensors file."""
    header, parts, end = {}, [], 0
    for name, values in tensors.items():
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).tobytes()
        shape, kind = list(values.shape), _SAFETENSORS[values.dtype.name]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + len(data)]}
        parts.append(data)
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return path


def write_shards(folder: Path, tensors: Mapping[str, Array], n_shards: int) -> Path:
    """Write a folder of shards with an index; return the folder."""
    folder.mkdir()
    placed = {}
    names = list(tensors)
    for k in range(n_shards):
        file = f"model-{k + 1:05}-of-{n_shards:05}.safetensors"
        own = {name: tensors[name] for name in names[k::n_shards]}
        write_safetensors(folder / file, own)
        placed |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def mlp(
    sizes: Sequence[int], *, seed: int = 0, dtype: str = "float32", zeros: float = 0.3
) -> dict[str, Array]:
    """Tensors of dense layers, as torch names them."""
    tensors: dict[str, Array] = {}
    for k, (n_in, n_out) in enumerate(pairwise(sizes)):
        tensors[f"fc{k}.weight"] = sparse_weights((n_out, n_in), seed=seed + k, dtype=dtype, zeros=zeros)
        tensors[f"fc{k}.bias"] = sparse_weights((n_out,), seed=seed + 100 + k, dtype=dtype, zeros=0)
    return tensors


def dense_onnx(path: Path, weights: Sequence[Array]) -> Path:
    """An ONNX file of dense layers, (sources, targets) each, with a ReLU between two."""
    nodes, at = [], "x"
    for k in range(len(weights)):
        nodes.append(helper.make_node("MatMul", [at, f"w{k}"], [f"a{k}"], name=f"fc{k}"))
        nodes.append(helper.make_node("Relu", [f"a{k}"], [f"b{k}"]))
        at = f"b{k}"
    kind = helper.np_dtype_to_tensor_dtype(weights[0].dtype)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, [1, len(weights[0])])],
        [helper.make_tensor_value_info(at, kind, [1, weights[-1].shape[1]])],
        [numpy_helper.from_array(values, f"w{k}") for k, values in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def residual_onnx(
    path: Path, *, width: int = 24, external: bool = False, decimals: int | None = None
) -> Path:
    """A net with a Gemm, a transposed MatMul, a residual sum, a packed weight that is split, and a Conv."""
    rng_weights = {
        "w0": sparse_weights((width, width), seed=1),
        "w1": sparse_weights((width, width), seed=2),
        "w2": sparse_weights((width, 3 * width), seed=3),
        "k": sparse_weights((4, 1, 3), seed=4, zeros=0.1),
    }
    if decimals is not None:
        rng_weights = {name: np.round(values, decimals) for name, values in rng_weights.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["a"], transB=1, name="fc0"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Transpose", ["w1"], ["w1t"], perm=[1, 0]),
        helper.make_node("MatMul", ["b", "w1t"], ["c"], name="fc1"),
        helper.make_node("Add", ["c", "b"], ["d"], name="sum"),
        helper.make_node("MatMul", ["d", "w2"], ["e"], name="packed"),
        helper.make_node("Unsqueeze", ["e", "axis"], ["f"]),
        helper.make_node("Conv", ["f", "k"], ["y"], name="conv"),
    ]
    initializers = [numpy_helper.from_array(values, name) for name, values in rng_weights.items()]
    initializers.append(numpy_helper.from_array(np.array([1]), "axis"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0
    )
    return path


def export_twice(model: Path, folder: Path) -> tuple[Path, Path]:
    """Return two stores of a model: with its edges stored, and in place."""
    folder.mkdir(exist_ok=True)
    found = []
    for placement in (EdgePlacement.STORED, EdgePlacement.IN_PLACE):
        path = folder / f"{placement.value}.duckdb"
        with open_store(path, mode="create") as store:
            export_any(model, store, options=ExportOptions(edges=placement))
        found.append(path)
    return found[0], found[1]
