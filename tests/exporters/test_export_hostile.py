"""Files that can be read but not run or traced in full: one line says why, and the store stays away."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.graphstore.store import open_store

WEIGHT = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
FIRST = helper.make_node("MatMul", ["x", "w"], ["h"])


def info(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def write(folder, nodes, constants, *, shape=(1, 4), weight=WEIGHT, **options):
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in {"w": weight, **constants}.items()]
    tensors += options.pop("tensors", [])
    graph = helper.make_graph(
        nodes, "g", [info("x", list(shape))], [onnx.ValueInfoProto(name="y")], tensors, **options
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = Path(folder, "m.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def exported(path):
    options = ExportOptions(run_limits=RunLimits(wall_seconds=60, memory_bytes=2 << 30))
    store_path = path.with_name("s.duckdb")
    try:
        with open_store(store_path, mode="create") as store:
            export_onnx(path, store, options=options)
            return store.graph().edges(), store.graph().summary
    except BaseException:
        assert not store_path.exists()
        raise


HUGE = {
    "ConstantOfShape": [
        FIRST,
        helper.make_node("ConstantOfShape", ["sizes"], ["big"]),
        helper.make_node("MatMul", ["h", "big"], ["y"]),
    ],
    "Expand": [
        FIRST,
        helper.make_node("Expand", ["h", "sizes"], ["wide"]),
        helper.make_node("ReduceSum", ["wide"], ["y"]),
    ],
}


@pytest.mark.parametrize("op", HUGE)
def test_case_25_a_huge_tensor_from_a_small_file_hits_the_limit(op, tmp_path):
    sizes = {"ConstantOfShape": [1 << 20, 4, 1 << 18], "Expand": [1 << 20, 1 << 18, 4]}[op]
    path = write(tmp_path, HUGE[op], {"sizes": np.array(sizes)})
    with pytest.raises(LimitError, match="more than 2 GiB of memory"):
        exported(path)


def test_case_26_a_sparse_tensor_of_huge_dimensions_is_not_made_dense(tmp_path):
    values = helper.make_tensor("s", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 5])
    sparse = helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 20])
    nodes = [helper.make_node("MatMul", ["x", "s"], ["y"])]
    path = write(tmp_path, nodes, {}, shape=(1, 1 << 20), sparse_initializer=[sparse])
    with pytest.raises(LimitError, match="densely"):
        exported(path)


def test_an_input_of_huge_dimensions_gets_no_values(tmp_path):
    path = write(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {}, shape=(1 << 31, 4))
    with pytest.raises(LimitError, match="--input-shape x="):
        exported(path)


def test_case_27_weights_that_are_no_numbers_are_edges(tmp_path):
    weight = WEIGHT.copy()
    weight[0, 0], weight[1, 1], weight[2, 2] = np.nan, np.inf, 1e-44
    edges, _ = exported(write(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {}, weight=weight))
    assert np.array_equal(np.sort(edges["weight"].to_numpy()), np.sort(weight.ravel()), equal_nan=True)


def test_case_27_a_model_of_zeros_has_no_graph(tmp_path):
    path = write(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {}, weight=0 * WEIGHT)
    with pytest.raises(InvalidInputError, match="all weights of its operations are zero"):
        exported(path)


SMALL = (
    "FLOAT16",
    "BFLOAT16",
    "FLOAT8E4M3FN",
    "FLOAT8E5M2",
    "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2FNUZ",
    "INT4",
    "UINT4",
)


@pytest.mark.parametrize("name", SMALL)
def test_case_28_weights_of_small_types_that_are_cast(name, tmp_path):
    values = np.tile([0, 1, 3, 2], 4)
    tensor = helper.make_tensor("q", getattr(TensorProto, name), [4, 4], values.tolist())
    nodes = [helper.make_node("Cast", ["q"], ["c"], to=1), helper.make_node("MatMul", ["x", "c"], ["y"])]
    edges, _ = exported(write(tmp_path, nodes, {}, tensors=[tensor]))
    assert sorted(edges["weight"].to_list()) == sorted(values[values != 0].tolist())


def test_case_30_a_chain_of_operations_takes_linear_time(tmp_path):
    """Two thousand operations in a row; 200 000 are read in test_hostile_structure."""
    names = ["h", *(f"t{k}" for k in range(2000)), "y"]
    chain = [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    edges, summary = exported(write(tmp_path, [FIRST, *chain], {}))
    assert len(edges) == 16
    assert summary["n_operations"] == 2002


def test_case_31_hostile_names_reach_the_store_as_they_are(tmp_path):
    evil = 'a"; DROP TABLE edges; -- <script>\x1b[31m\u202e=cmd|../../x'
    nodes = [helper.make_node("MatMul", ["x", evil], ["y"], name=evil)]
    exported(write(tmp_path, nodes, {evil: WEIGHT}))
    with open_store(tmp_path / "s.duckdb") as store:
        assert evil in store.graph().tensors()["name"].to_list()


def test_a_file_of_which_nothing_is_understood_is_refused_with_operation_and_reason(tmp_path):
    node = helper.make_node(
        "MatMulNBits",
        ["x", "packed", "scales", "", "order"],
        ["y"],
        domain="com.microsoft",
        K=16,
        N=2,
        bits=4,
        block_size=16,
    )
    constants = {
        "packed": np.zeros((2, 1, 8), np.uint8),
        "scales": np.ones(2, np.float32),
        "order": np.zeros(16, np.int32),
    }
    path = write(tmp_path, [node], constants, shape=(1, 16))
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    with pytest.raises(
        InvalidInputError, match=r"not understood: MatMulNBits \(MatMulNBits with weights"
    ) as e:
        exported(path)
    assert "neural networks" not in str(e.value)
