"""Every parameter comes back bit for bit, from raw data or from the matrix of a block."""

import hashlib

import duckdb
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from storegraphs import block, finish, header

from emergraph.errors import StoreError, UsageError
from emergraph.graphstore import tensors
from emergraph.graphstore.records import MatrixKernels, Tensor, matrix_restores
from emergraph.graphstore.restore import restore_all, restore_tensor
from emergraph.graphstore.store import open_store

TYPES = [
    *(
        np.float16,
        np.float32,
        np.float64,
        np.int8,
        np.uint8,
        np.int16,
        np.int32,
        np.int64,
        np.uint64,
        np.bool_,
    ),
    *(np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4),
    *(ml_dtypes.uint4, ml_dtypes.float4_e2m1fn, ml_dtypes.float8_e8m0fnu),
]


def bits(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).tobytes()


def assert_same(restored, original):
    assert restored.dtype == original.dtype
    assert restored.shape == original.shape
    assert bits(restored) == bits(original)


def raw(name, array, **changes):
    return Tensor(
        name=name,
        dtype=array.dtype.name,
        shape=array.shape,
        n_params=array.size,
        n_zeros=0,
        data=np.ascontiguousarray(array).reshape(-1).view(np.uint8).data,
        **changes,
    )


def in_block(name, matrix, *, transposed=False, number=0, n_nonfinite=0, **changes):
    shape = matrix.shape[::-1] if transposed else matrix.shape
    return Tensor(
        name=name,
        dtype=matrix.dtype.name,
        shape=shape,
        n_params=matrix.size,
        n_zeros=0,
        n_nonfinite=n_nonfinite,
        block=number,
        block_transposed=transposed,
        **changes,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with open_store(tmp_path_factory.mktemp("store") / "net.duckdb", mode="create") as opened:
        yield opened


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4), (300, 200)], ids=str)
def test_raw_tensors(store, dtype, shape):
    values = np.random.default_rng(0).integers(0, 8, shape)
    original = values.astype(dtype)
    with store.write_graph(header()) as writer:
        writer.write_tensor(raw("before", np.arange(3)))
        writer.write_tensor(raw("w", original))
        writer.write_tensor(raw("after", np.arange(4)))
        finish(writer, [1])
    assert_same(restore_tensor(store.graph(), "w"), original)
    assert_same(restore_tensor(store.graph(), "after"), np.arange(4))


def test_raw_tensor_in_many_pieces(store, monkeypatch):
    monkeypatch.setattr(tensors, "_BATCH_BYTES", 3 * tensors.PART_BYTES)
    size = 7 * tensors.PART_BYTES + 5
    original = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    with store.write_graph(header()) as writer:
        writer.write_tensor(raw("w", original))
        finish(writer, [1])
    graph = store.graph()
    assert_same(restore_tensor(graph, "w"), original)
    parts = store.connection.execute(
        "SELECT part, octet_length(data) FROM tensor_parts WHERE graph = ?", [graph.id]
    ).fetchall()
    assert parts == [(i, tensors.PART_BYTES) for i in range(7)] + [(7, 5)]


def test_tensors_of_snapshots_lie_in_small_pieces(store):
    sizes = {"empty": 0, "one": 1, "small": 3 * tensors.SNAPSHOT_PART_BYTES, "large": tensors.PART_BYTES + 5}
    originals = {name: np.arange(size).astype(np.uint8) for name, size in sizes.items()}
    with store.write_graph(header(step=3)) as writer:
        for name, values in originals.items():
            writer.write_tensor(raw(name, values))
        finish(writer, [1])
    graph = store.graph()
    for name, values in originals.items():
        assert_same(restore_tensor(graph, name), values)
    longest = "SELECT max(octet_length(data)) FROM tensor_parts WHERE graph = ?"
    assert store.connection.execute(longest, [graph.id]).fetchall() == [(tensors.SNAPSHOT_PART_BYTES,)]


entries = st.sampled_from([0.0, -0.0, 1.5, -2.5, 1e-45, -1e-45, 3e38, 7.0])
special = st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1.0])


@settings(max_examples=25, deadline=None)
@given(
    matrix=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=entries | special
    ),
    transposed=st.booleans(),
    seed=st.integers(0, 5),
)
def test_matrix_of_a_block(store, matrix, transposed, seed):
    n_src, n_dst = matrix.shape
    random = np.random.default_rng(seed)
    src, dst = random.permutation(n_src), n_src + random.permutation(n_dst)
    n_nonfinite = int(np.count_nonzero(~np.isfinite(matrix)))
    with store.write_graph(header()) as writer:
        writer.write_tensor(in_block("w", matrix, transposed=transposed, n_nonfinite=n_nonfinite))
        writer.write_matrix(block(tensor="w"), src, dst, matrix)
        finish(writer, [n_src, n_dst])
    assert_same(restore_tensor(store.graph(), "w"), matrix.T if transposed else matrix)


def test_every_nan_and_subnormal_survives_in_a_matrix(store):
    patterns = np.array(
        [0x7FC00001, 0xFFC00000, 0x7F800001, 0xFF923456, 0x00000001, 0x807FFFFF, 0x80000000, 0x7F7FFFFF],
        dtype=np.uint32,
    )
    matrix = patterns.view(np.float32).reshape(2, 4)
    with store.write_graph(header()) as writer:
        writer.write_matrix(block(tensor="w"), np.arange(2), np.arange(2, 6), matrix)
        writer.write_tensor(in_block("w", matrix, n_nonfinite=4))
        finish(writer, [2, 4])
    assert_same(restore_tensor(store.graph(), "w"), matrix)


@pytest.mark.parametrize("dtype", [d for d in TYPES if matrix_restores(np.dtype(d).name, 0)])
def test_matrix_of_every_type_that_float32_holds(store, dtype):
    """All values of the type, as many as there are."""
    dtype = np.dtype(dtype)
    n_bits = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "bool": 1}.get(dtype.name, 8 * dtype.itemsize)
    if dtype.name == "float32":
        values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    elif dtype.name in ("int4", "uint4"):
        low = -8 if dtype.name == "int4" else 0
        values = np.arange(low, low + 16).astype(dtype)
    else:
        values = np.arange(2**n_bits).astype(f"uint{8 * dtype.itemsize}").view(dtype)
    wide = values.astype(np.float32)
    values = values[np.isfinite(wide)]
    matrix = values[: values.size // 2 * 2].reshape(2, -1)
    with store.write_graph(header()) as writer:
        n_src, n_dst = matrix.shape
        writer.write_matrix(block(tensor="w"), np.arange(n_src), np.arange(n_src, n_src + n_dst), matrix)
        writer.write_tensor(in_block("w", matrix))
        finish(writer, [n_src, n_dst])
    assert_same(restore_tensor(store.graph(), "w"), matrix)


def test_large_pruned_matrix(store):
    """Pruning by a mask makes minus zeros of negative weights; each keeps its sign."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((400, 500)).astype(np.float32) * (random.random((400, 500)) < 0.3)
    assert np.signbit(matrix[matrix == 0]).any()
    with store.write_graph(header()) as writer:
        writer.write_matrix(block(tensor="w"), np.arange(400), np.arange(400, 900), matrix)
        writer.write_tensor(in_block("w", matrix, transposed=True))
        finish(writer, [400, 500])
    assert_same(restore_tensor(store.graph(), "w"), matrix.T)


def test_all_tensors_by_name(store):
    originals = {"b": np.arange(3.0), "a": np.ones((2, 2), dtype=np.float32)}
    with store.write_graph(header()) as writer:
        writer.write_matrix(block(tensor="a"), np.arange(2), np.arange(2, 4), originals["a"])
        writer.write_tensor(raw("b", originals["b"]))
        writer.write_tensor(in_block("a", originals["a"]))
        writer.write_tensor(Tensor(name="words", dtype="string", shape=(2,), n_params=0, n_zeros=0))
        finish(writer, [2, 2])
    restored = dict(restore_all(store.graph()))
    assert list(restored) == ["a", "b"]
    for name, original in originals.items():
        assert_same(restored[name], original)
    with pytest.raises(UsageError, match="string elements are not kept"):
        restore_tensor(store.graph(), "words")
    with pytest.raises(UsageError, match="unknown tensor 'c'; available: "):
        restore_tensor(store.graph(), "c")


def test_checksums(store):
    values = np.arange(5, dtype=np.float32)
    matrix = np.array([[1, 0], [2, 3]], dtype=np.float32)
    with store.write_graph(header()) as writer:
        writer.write_tensor(raw("raw", values))
        writer.write_matrix(block(tensor="m"), np.arange(2), np.arange(2, 4), matrix)
        writer.write_tensor(
            in_block("right", matrix, transposed=True, sha256=hashlib.sha256(bits(matrix.T)).hexdigest())
        )
        writer.write_tensor(
            in_block("wrong", matrix, transposed=True, sha256=hashlib.sha256(bits(matrix)).hexdigest())
        )
        finish(writer, [2, 2])
    reader = store.graph()
    sums = dict(reader.tensors().select("name", "sha256").iter_rows())
    assert sums["raw"] == hashlib.sha256(values.tobytes()).hexdigest()
    assert_same(restore_tensor(reader, "right"), matrix.T)
    with pytest.raises(StoreError, match="the checksum differs"):
        restore_tensor(reader, "wrong")


def _tensor(**changes):
    defaults = {"name": "w", "dtype": "float32", "shape": (2, 2), "n_params": 4, "n_zeros": 0}
    return Tensor(**{**defaults, **changes})


BAD_TENSORS = {
    "both ways": (_tensor(data=b"0" * 16, block=0), "either data or block"),
    "no way": (_tensor(), "either data or block"),
    "too few bytes": (_tensor(data=b"0" * 15), "expected 16 bytes, got 15"),
    "float64 in edges": (_tensor(dtype="float64", block=0), "cannot hold float64 exactly"),
    "half-precision NaN in edges": (_tensor(dtype="float16", block=0, n_nonfinite=1), "cannot hold float16"),
    "shape": (_tensor(shape=(4, 1), block=0), r"matrix of block 0 is \(2, 2\)"),
    "no such block": (_tensor(block=9), "block 9 is not a matrix"),
    "kernels": (_tensor(block=1), "block 1 is not a matrix of single parameters"),
    "edge list": (_tensor(block=2), "block 2 is not a matrix"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_could_not_be_restored_are_refused(store, case):
    tensor, message = BAD_TENSORS[case]
    ones = np.ones((2, 2))
    src, dst = np.arange(2), np.arange(2, 4)

    def export():
        with store.write_graph(header()) as writer:
            kernels = MatrixKernels(l1=ones, l2=ones, max_abs=ones, n_params=ones.astype(np.int32))
            writer.write_matrix(block(0, tensor="w"), src, dst, ones)
            writer.write_matrix(block(1, tensor="w"), src, dst, ones, kernels)
            writer.write_edges(block(2), src, dst, np.ones(2))
            writer.write_tensor(tensor)
            finish(writer, [2, 2])

    with pytest.raises(ValueError, match=message):
        export()


def test_tensor_names_are_unique(store):
    with store.write_graph(header()) as writer:
        writer.write_tensor(raw("w", np.arange(3)))
        with pytest.raises(ValueError, match="written twice"):
            writer.write_tensor(raw("w", np.arange(3)))
        finish(writer, [1])


LIES = {
    "huge raw tensor": "UPDATE tensors SET shape = [1000000000000, 4] WHERE name = 'raw'",
    "another shape": "UPDATE tensors SET shape = [4] WHERE name = 'raw'",
    "another type": "UPDATE tensors SET dtype = 'float64' WHERE name = 'raw'",
    "negative shape": "UPDATE tensors SET shape = [-5, -1] WHERE name = 'raw'",
    "piece missing": "DELETE FROM tensor_parts",
    "piece twice": "INSERT INTO tensor_parts SELECT * FROM tensor_parts",
    "values changed": "UPDATE tensor_parts SET data = 'aaaabbbbccccddddeeee'::BLOB",
    "huge matrix": "UPDATE tensors SET shape = [1000000000000, 4] WHERE name = 'matrix'",
    "no such block": "UPDATE tensors SET block = 77 WHERE name = 'matrix'",
    "edge missing": "DELETE FROM connections WHERE src = 0",
    "edge outside": "UPDATE connections SET src = 2000000 WHERE src = 0",
    "negative unit": "UPDATE connections SET src = -1 WHERE src = 0",
    "no units": "UPDATE blocks SET src_units = []",
    "null units": "UPDATE blocks SET src_units = NULL",
    "no type": "UPDATE tensors SET dtype = 'object'",
    "signs missing": "UPDATE tensors SET zero_signs = ''::BLOB",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_store_that_lies_is_refused_without_taking_memory(tmp_path, lie):
    path = tmp_path / "net.duckdb"
    matrix = np.array([[1, -0.0], [2, 0]], dtype=np.float32)
    with open_store(path, mode="create") as store, store.write_graph(header()) as writer:
        writer.write_tensor(raw("raw", np.arange(5, dtype=np.float32)))
        writer.write_matrix(block(), np.arange(2), np.arange(2, 4), matrix)
        writer.write_tensor(in_block("matrix", matrix, sha256=hashlib.sha256(bits(matrix)).hexdigest()))
        finish(writer, [2, 2])
    with duckdb.connect(path) as connection:
        connection.execute(LIES[lie])
    with open_store(path) as store:
        reader = store.graph()
        name = "raw" if "raw" in LIES[lie] or "parts" in LIES[lie] else "matrix"
        with pytest.raises((StoreError, UsageError)) as caught:
            restore_tensor(reader, name)
    assert "\n" not in str(caught.value)
