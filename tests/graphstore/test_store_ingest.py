"""Matrices and edge lists into the store: every non-zero entry is an edge, however the array lies."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from storegraphs import block, finish, header, single_block_edges

from emergraph.graphstore import ingest
from emergraph.graphstore.arrays import as_float32
from emergraph.graphstore.ingest import EdgeLoader
from emergraph.graphstore.records import EdgeKind, Kernels, MatrixKernels
from emergraph.graphstore.store import open_store

MANY = settings(max_examples=25, deadline=None)
ALL_COLUMNS = ("src", "dst", "weight", "l1", "l2", "max_abs", "n_params")


def naive_edges(src_units, dst_units, weights):
    """The twin of the bulk path: one entry after the other."""
    edges = []
    for i, src in enumerate(src_units):
        for j, dst in enumerate(dst_units):
            value = np.asarray(weights)[i, j]
            if value != 0:
                edges.append((int(src), int(dst), np.float32(value)))
    return edges


def assert_stored_edges(path, expected, src_units, dst_units):
    with open_store(path) as store:
        assert_edges(store.graph(), expected, src_units, dst_units)


def write_one(path, src_units, dst_units, weights, kernels=None, **changes):
    path.unlink(missing_ok=True)
    n_src, n_dst = len(src_units), len(dst_units)
    with open_store(path, mode="create") as store, store.write_graph(header()) as writer:
        written = writer.write_matrix(block(**changes), src_units, dst_units, weights, kernels)
        finish(writer, [n_src, n_dst])
    return written


def assert_edges(reader, expected, src_units, dst_units):
    info = reader.blocks_info()[0]
    edges = reader.block_edges(info, columns=("src", "dst", "weight"))
    assert edges["src"].tolist() == [edge[0] for edge in expected]
    assert edges["dst"].tolist() == [edge[1] for edge in expected]
    np.testing.assert_array_equal(edges["weight"], np.array([edge[2] for edge in expected], dtype=np.float32))
    assert info.n_edges == len(expected)
    assert info.dense == (0 < len(expected) == len(src_units) * len(dst_units))
    assert info.src_units.tolist() == list(src_units)
    assert info.dst_units.tolist() == list(dst_units)


@pytest.fixture
def tiny_chunks(monkeypatch):
    """Send even small matrices through the bulk path, a few rows at a time."""
    monkeypatch.setattr(ingest, "SMALL_BLOCK", -1)
    monkeypatch.setattr(ingest, "ROW_GROUP", 3)
    monkeypatch.setattr(ingest, "CHUNK_ROWS", 7)


entries = st.sampled_from([0.0, -0.0, 1.0, -2.5, float("nan"), float("inf"), -float("inf"), 1e-45, 3e38])
matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=entries)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    with open_store(tmp_path_factory.mktemp("shared") / "net.duckdb", mode="create") as store:
        yield store


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "gathered"])
@pytest.mark.parametrize("permuted", [True, False], ids=["permuted units", "unit ranges"])
@MANY
@given(weights=matrices, seed=st.integers(0, 9))
def test_edges_are_the_nonzero_entries(shared_store, bulk, permuted, weights, seed):
    n_src, n_dst = weights.shape
    src_units, dst_units = np.arange(n_src), np.arange(n_src, n_src + n_dst)
    if permuted:
        random = np.random.default_rng(seed)
        src_units, dst_units = random.permutation(src_units), random.permutation(dst_units)
    with pytest.MonkeyPatch.context() as patch:
        if bulk:
            patch.setattr(ingest, "SMALL_BLOCK", -1)
            patch.setattr(ingest, "CHUNK_ROWS", 7)
            patch.setattr(ingest, "ROW_GROUP", 3)
        with shared_store.write_graph(header()) as writer:
            written = writer.write_matrix(block(), src_units, dst_units, weights)
            graph = finish(writer, [n_src, n_dst])
    expected = naive_edges(src_units, dst_units, weights)
    assert written == len(expected)
    assert_edges(shared_store.graph(graph), expected, src_units, dst_units)


LAYOUTS = {
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "big endian": lambda a: a.astype(">f4"),
    "read-only": lambda a: np.frombuffer(a.tobytes(), dtype=np.float32).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_the_array(tmp_path, tiny_chunks, layout):
    weights = np.random.default_rng(0).integers(-1, 2, (6, 5)).astype(np.float32)
    array = LAYOUTS[layout](weights)
    write_one(tmp_path / "net.duckdb", np.arange(6), np.arange(6, 11), array)
    assert_stored_edges(
        tmp_path / "net.duckdb",
        naive_edges(range(6), range(6, 11), weights),
        range(6),
        range(6, 11),
    )


TYPES = [
    np.float16,
    np.float64,
    np.int8,
    np.uint8,
    np.int32,
    np.bool_,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.int4,
]


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "gathered"])
@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_any_real_element_type(tmp_path, monkeypatch, dtype, bulk):
    if bulk:
        monkeypatch.setattr(ingest, "SMALL_BLOCK", -1)
    weights = np.array([[0, 1, 2], [3, 0, 1]]).astype(dtype)
    write_one(tmp_path / "net.duckdb", np.arange(2), np.arange(2, 5), weights)
    assert_stored_edges(
        tmp_path / "net.duckdb", naive_edges(range(2), range(2, 5), weights), range(2), range(2, 5)
    )


def test_large_matrix_takes_the_bulk_path_and_equals_numpy(tmp_path):
    random = np.random.default_rng(3)
    weights = random.standard_normal((500, 600)).astype(np.float32)
    weights[random.random(weights.shape) < 0.3] = 0
    assert weights.size > ingest.SMALL_BLOCK
    write_one(tmp_path / "net.duckdb", np.arange(500), np.arange(500, 1100), weights)
    edges = single_block_edges(tmp_path / "net.duckdb", ("src", "dst", "weight"))
    rows, columns = np.nonzero(weights)
    np.testing.assert_array_equal(edges["src"], rows)
    np.testing.assert_array_equal(edges["dst"], columns + 500)
    np.testing.assert_array_equal(edges["weight"], weights[rows, columns])


@MANY
@given(
    values=hnp.arrays(
        np.float64, st.integers(0, 20), elements=st.floats(allow_nan=True, allow_infinity=True, width=64)
    )
)
def test_float32_never_turns_a_weight_into_zero(values):
    converted = as_float32(values)
    np.testing.assert_array_equal(converted == 0, values == 0)
    kept = np.isfinite(values) & (np.abs(values) > 1e-37) & (np.abs(values) < 1e38)
    np.testing.assert_allclose(converted[kept], values[kept], rtol=1e-7)
    nan = np.isnan(values)
    np.testing.assert_array_equal(np.signbit(converted[~nan]), np.signbit(values[~nan]))


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "gathered"])
def test_kernels_are_edges_where_a_parameter_is_not_zero(tmp_path, monkeypatch, bulk):
    if bulk:
        monkeypatch.setattr(ingest, "SMALL_BLOCK", -1)
    kernel = np.random.default_rng(0).integers(-2, 3, (3, 2, 3, 3)).astype(np.float64)
    kernel[0, 0] = 0
    kernel[1, 1] = np.array([[1, -1, 0]] * 3)  # sums to zero, and is an edge
    flat = kernel.reshape(3, 2, 9)
    kernels = MatrixKernels(
        l1=np.abs(flat).sum(2),
        l2=np.sqrt((flat**2).sum(2)),
        max_abs=np.abs(flat).max(2),
        n_params=(flat != 0).sum(2).astype(np.int32),
    )
    written = write_one(tmp_path / "net.duckdb", np.arange(3), np.arange(3, 5), flat.sum(2), kernels)
    rows, columns = np.nonzero(kernels.n_params)
    assert written == rows.size == 5
    edges = single_block_edges(tmp_path / "net.duckdb", ALL_COLUMNS)
    np.testing.assert_array_equal(edges["src"], rows)
    np.testing.assert_array_equal(edges["dst"], columns + 3)
    np.testing.assert_array_equal(edges["weight"], flat.sum(2)[rows, columns].astype(np.float32))
    for name in ("l1", "l2", "max_abs", "n_params"):
        np.testing.assert_array_equal(edges[name], getattr(kernels, name)[rows, columns])


@pytest.mark.parametrize("small_block", [ingest.SMALL_BLOCK, -1], ids=["gathered", "bulk"])
@pytest.mark.parametrize("with_weight", [True, False], ids=["weights", "no weights"])
def test_listed_edges_are_kept_as_they_are(tmp_path, monkeypatch, small_block, with_weight):
    monkeypatch.setattr(ingest, "SMALL_BLOCK", small_block)
    src, dst = np.array([2, 0, 1]), np.array([4, 3, 3])
    weight = np.array([0.0, np.nan, 2.0]) if with_weight else None
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store, store.write_graph(header()) as writer:
        assert writer.write_edges(block(kind=EdgeKind.GATE), src, dst, weight) == 3
        finish(writer, [3, 2])
    edges = single_block_edges(path, ("src", "dst", "weight"))
    assert edges["src"].tolist() == [2, 0, 1]
    assert edges["dst"].tolist() == [4, 3, 3]
    with open_store(path) as store:
        stored = store.connection.execute("SELECT weight FROM connections").fetchall()
    if with_weight:
        np.testing.assert_array_equal(edges["weight"], weight.astype(np.float32))
        assert stored[0] == (0.0,)
    else:
        assert np.isnan(edges["weight"]).all()
        assert stored == [(None,)] * 3


def test_listed_kernels(tmp_path):
    path = tmp_path / "net.duckdb"
    kernels = Kernels(
        l1=np.array([3.0, 4.0]),
        l2=np.array([2.0, 3.0]),
        max_abs=np.array([2.0, 3.0]),
        n_params=np.array([2, 5], dtype=np.int32),
    )
    with open_store(path, mode="create") as store, store.write_graph(header()) as writer:
        writer.write_edges(block(), np.array([0, 1]), np.array([2, 2]), np.array([1.0, 0.0]), kernels)
        finish(writer, [2, 1])
    edges = single_block_edges(path, ALL_COLUMNS)
    assert edges["n_params"].tolist() == [2, 5]
    assert edges["l1"].tolist() == [3, 4]
    assert edges["weight"].tolist() == [1, 0]


def test_order_of_blocks_survives_gathering(tmp_path, monkeypatch):
    """Small blocks before a large one must not end up behind it."""
    monkeypatch.setattr(ingest, "SMALL_BLOCK", 8)
    monkeypatch.setattr(ingest, "ROW_GROUP", 3)
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store, store.write_graph(header()) as writer:
        writer.write_matrix(block(0), np.arange(2), np.arange(4, 6), np.ones((2, 2)))
        writer.write_matrix(block(1), np.arange(4), np.arange(4, 8), np.ones((4, 4)))
        writer.write_edges(block(2, kind=EdgeKind.GATE), np.arange(4), np.arange(4, 8))
        src, dst = np.repeat(np.arange(4), 3), np.tile(np.arange(4, 7), 4)
        writer.write_edges(block(3, kind=EdgeKind.GATE), src, dst)
        finish(writer, [4, 4])
    with open_store(path) as store:
        blocks = [row[0] for row in store.connection.execute("SELECT block FROM connections").fetchall()]
    assert blocks == [0] * 4 + [1] * 16 + [2] * 4 + [3] * 12


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7), st.booleans()), min_size=1, max_size=8),
    zeros=st.floats(0, 0.9),
)
def test_every_insert_but_the_last_holds_whole_row_groups(shared_store, shapes, zeros):
    random, calls, expected = np.random.default_rng(0), [], []
    append = ingest.append

    def counting_append(connection, rows, *arguments):
        before = connection.execute("SELECT count(*) FROM connections").fetchall()[0][0]
        append(connection, rows, *arguments)
        calls.append(connection.execute("SELECT count(*) FROM connections").fetchall()[0][0] - before)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"append": counting_append, "SMALL_BLOCK": 6, "ROW_GROUP": 4}.items():
            patch.setattr(ingest, name, value)
        patch.setattr(ingest, "GATHERED_ROWS", 8)
        with shared_store.write_graph(header()) as writer:
            for i, (n_src, n_dst, listed) in enumerate(shapes):
                weights = np.where(random.random((n_src, n_dst)) < zeros, 0, 1.5 + i)
                src, dst = np.nonzero(weights)
                if listed:
                    writer.write_edges(block(i), src, dst + 5, weights[src, dst])
                else:
                    writer.write_matrix(block(i), np.arange(n_src), np.arange(5, 5 + n_dst), weights)
                expected.append([(int(a), int(b) + 5, 1.5 + i) for a, b in zip(src, dst, strict=True)])
            graph = finish(writer, [5, 7])
    assert all(count % 4 == 0 for count in calls[:-1])
    assert sum(calls) == sum(map(len, expected))
    reader = shared_store.graph(graph)
    for info, edges in zip(reader.blocks_info(), expected, strict=True):
        found = reader.block_edges(info, columns=("src", "dst", "weight"))
        assert list(zip(*(found[c].tolist() for c in ("src", "dst", "weight")), strict=True)) == edges


def test_empty_matrices_are_blocks_without_edges(tmp_path):
    path = tmp_path / "net.duckdb"
    assert write_one(path, np.arange(2), np.arange(2, 2), np.empty((2, 0))) == 0
    assert_stored_edges(path, [], range(2), [])
    path.unlink()
    assert write_one(path, np.arange(2), np.arange(2, 4), np.zeros((2, 2))) == 0
    assert_stored_edges(path, [], range(2), range(2, 4))


def test_loader_gathers_nothing_twice(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        loader = EdgeLoader(store.connection)
        loader.edges(0, np.array([1], np.int32), np.array([2], np.int32), None, None)
        loader.flush()
        loader.flush()
        assert store.connection.execute("SELECT count(*) FROM connections").fetchall() == [(1,)]
