"""Edges that stay in the model file: the same graph, whoever reads it, and nothing that is not the model."""

import io
import shutil
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from inplacemodels import export_twice, mlp, residual_onnx, sparse_weights, write_safetensors, write_shards

from emergraph.errors import InvalidInputError, LimitError, StoreError, UsageError
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.filetensors import leaves_edges, place_in
from emergraph.exporters.modeltensors import open_model
from emergraph.exporters.placements import IN_PLACE_EDGES, EdgePlacement
from emergraph.exporters.sources import export_any
from emergraph.graphstore import sandbox
from emergraph.graphstore.inplace import FEW_VECTORS, Matrix, edge_pieces, mask_times, sum_up
from emergraph.graphstore.maintain import compact, merge
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.query import QueryLimits, run_query
from emergraph.graphstore.records import Place
from emergraph.graphstore.restore import restore_all, restore_tensor
from emergraph.graphstore.store import open_store
from emergraph.graphstore.tensors import KEPT_BYTES

SIZES = (20, 30, 10, 5)
KINDS = ("float32", "float16", "bfloat16", "float64", "shards", "onnx", "external")


def make_model(folder, kind):
    if kind == "shards":
        return write_shards(folder / "model", mlp(SIZES, dtype="bfloat16"), 3)
    if kind in ("onnx", "external"):
        return residual_onnx(folder / "model.onnx", external=kind == "external")
    return write_safetensors(folder / "model.safetensors", mlp(SIZES, dtype=kind))


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    """A model, a store with its edges, and one whose edges stayed in it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = make_model(folder, request.param)
    return model, *export_twice(model, folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    model = write_safetensors(folder / "model.safetensors", mlp(SIZES))
    return model, *export_twice(model, folder)


def test_edges_and_tensors_are_those_of_a_graph_that_holds_them(both):
    model, stored, in_place = both
    with model_given(open_model(model)), open_store(stored) as a, open_store(in_place) as b:
        ours, theirs = a.graph(), b.graph()
        assert any(block.place for block in theirs.blocks_info())
        assert ours.edges().sort("block", "src", "dst").equals(theirs.edges().sort("block", "src", "dst"))
        assert ours.units().equals(theirs.units())
        assert ours.layers().equals(theirs.layers())
        same = ["name", "kind", "n_edges", "n_src", "n_dst", "dense", "src_units", "dst_units"]
        assert ours.blocks().select(same).equals(theirs.blocks().select(same))
        for (name, values), (name_too, values_too) in zip(
            restore_all(ours), restore_all(theirs), strict=True
        ):
            assert (name, values.dtype, values.shape) == (name_too, values_too.dtype, values_too.shape)
            assert values.tobytes() == values_too.tobytes()


def test_no_row_is_stored_for_an_edge_in_place_and_its_sums_are(both):
    _, stored, in_place = both
    asked = "SELECT * EXCLUDE (block) FROM unit_strengths WHERE degree > 0 ORDER BY ALL"
    with open_store(stored) as a, open_store(in_place) as b:
        counts = [one.connection.sql("SELECT count(*) FROM connections").fetchall()[0][0] for one in (a, b)]
        left = sum(block.n_edges for block in b.graph().blocks_info() if block.place)
        assert counts[0] - counts[1] == left > 0
        ours, theirs = (one.connection.sql(asked).pl() for one in (a, b))
        exact = pl.exclude("total", "l1")
        assert ours.select(exact).equals(theirs.select(exact))
        np.testing.assert_allclose(
            ours.select("total", "l1"), theirs.select("total", "l1"), rtol=1e-12, atol=1e-12
        )


def test_blocks_in_place_say_what_one_pass_gives(plain):
    model, _, in_place = plain
    weights = mlp(SIZES)["fc0.weight"].astype(np.float64)
    with open_store(in_place) as store:
        row = store.graph().blocks().row(0, named=True)
    assert (row["n_zeros"], row["n_negative"], row["n_nonfinite"]) == (
        (weights == 0).sum(),
        (weights < 0).sum(),
        0,
    )
    found = [row["l1"], row["l2"], row["max_abs"]]
    np.testing.assert_allclose(
        found, [np.abs(weights).sum(), np.sqrt((weights**2).sum()), np.abs(weights).max()]
    )
    assert model.stat().st_size > 0


def test_without_a_model_the_line_names_what_to_add(plain):
    _, _, in_place = plain
    with open_store(in_place) as store:
        reader = store.graph()
        for ask in (
            reader.edges,
            lambda: restore_tensor(reader, "fc0.weight"),
            lambda: list(reader.iter_edges()),
        ):
            with pytest.raises(UsageError, match=r"stay in the model file.*add --model FILE"):
                ask()
        assert restore_tensor(reader, "fc0.bias").shape == (30,)


def test_a_moved_and_resharded_model_will_do(plain, tmp_path):
    _, stored, in_place = plain
    moved = write_shards(tmp_path / "elsewhere", {f"model.{k}": v for k, v in mlp(SIZES).items()}, 2)
    with model_given(open_model(moved, verify=True)), open_store(in_place) as b, open_store(stored) as a:
        assert b.graph().edges().equals(a.graph().edges())


@pytest.mark.parametrize("change", ["value", "shape", "dtype", "missing"])
def test_a_model_with_another_tensor_is_refused(plain, tmp_path, change):
    _, _, in_place = plain
    tensors = mlp(SIZES)
    if change == "value":
        tensors["fc1.weight"] = tensors["fc1.weight"] + np.float32(1)
    elif change == "shape":
        tensors["fc1.weight"] = tensors["fc1.weight"].T.copy()
    elif change == "dtype":
        tensors["fc1.weight"] = tensors["fc1.weight"].astype(np.float64)
    else:
        del tensors["fc1.weight"]
    other = write_safetensors(tmp_path / "other.safetensors", tensors)
    with (
        model_given(open_model(other)),
        open_store(in_place) as store,
        pytest.raises(InvalidInputError, match=r"other\.safetensors: tensor fc1\.weight .*export this one"),
    ):
        store.graph().edges()


def test_verify_looks_at_all_tensors_first(plain, tmp_path):
    _, _, in_place = plain
    tensors = mlp(SIZES)
    tensors["fc2.weight"] = tensors["fc2.weight"] * np.float32(2)
    other = write_safetensors(tmp_path / "other.safetensors", tensors)
    with model_given(open_model(other)), open_store(in_place) as store:
        assert store.graph().block_edges(0)["src"].size
    given, refused = open_model(other, verify=True), pytest.raises(InvalidInputError, match=r"fc2\.weight")
    with model_given(given), open_store(in_place) as store, refused:
        store.graph().block_edges(0)


def test_merged_and_compacted_stores_keep_what_is_in_place(plain, tmp_path):
    model, stored, in_place = plain
    path = shutil.copy(stored, tmp_path / "both.duckdb")
    with open_store(path, mode="write") as store:
        merge(store, in_place)
    compact(path)
    with model_given(open_model(model)), open_store(path) as store:
        first, second = store.graph(0), store.graph(1)
        assert first.edges().drop("block").equals(second.edges().drop("block"))
        strengths = (
            "SELECT * EXCLUDE (graph, block) FROM unit_strengths WHERE graph = {} AND degree > 0 ORDER BY ALL"
        )
        ours, theirs = (store.connection.sql(strengths.format(k)).pl() for k in (0, 1))
        assert ours.select("unit", "outgoing", "degree").equals(theirs.select("unit", "outgoing", "degree"))


QUERIES = (
    "SELECT count(*) AS n, sum(weight) AS w, max(max_abs) AS m FROM edges",
    "SELECT block, src, dst, weight FROM edges WHERE src BETWEEN 3 AND 25 ORDER BY ALL",
    "SELECT count(*) AS n FROM connections WHERE block = 1",
    "SELECT layer, count(*) AS n FROM edges WHERE layer IN (1, 5) AND 21 <= dst GROUP BY ALL ORDER BY ALL",
    "SELECT count(*) AS n FROM units AS u WHERE NOT EXISTS (FROM edges WHERE src = u.id AND block = 0)",
    "SELECT count(*) AS n FROM layers AS l LEFT JOIN edges AS e ON layer = l.id WHERE dst > 30 OR l.id = 0",
    "SELECT f.block, count(*) n FROM edges AS e JOIN edges AS f ON f.src = e.dst WHERE e.src = 2 GROUP BY 1",
    "WITH few AS (FROM edges WHERE kind = 'weight' AND tensor = 'fc1.weight') SELECT count(*) AS n FROM few",
    "SELECT count(*) AS n FROM edges AS e(a, b, c, d, block) WHERE block = 0",
)


@pytest.mark.parametrize("sql", QUERIES)
def test_sql_sees_whole_edges_when_the_model_is_given(plain, sql):
    model, stored, in_place = plain
    expected = run_query(stored, sql).frame
    with model_given(open_model(model)):
        assert run_query(in_place, sql).frame.equals(expected)


def test_sql_reads_only_the_blocks_that_a_query_can_touch(plain):
    model, _, in_place = plain
    n_first = sum(mlp(SIZES)["fc0.weight"].ravel() != 0)
    with model_given(open_model(model)):
        for limit, fits in ((n_first, True), (n_first - 1, False)):
            limits = QueryLimits(edges=int(limit))
            if fits:
                assert run_query(
                    in_place, "SELECT count(*) FROM edges WHERE block = 0", limits=limits
                ).frame.height
                continue
            with pytest.raises(LimitError, match=r"would read \d+ edges of 1 blocks .* add --edge-limit \d+"):
                run_query(in_place, "SELECT count(*) FROM edges WHERE block = 0", limits=limits)


def test_sql_without_a_model_answers_what_needs_no_edges(plain):
    _, _, in_place = plain
    assert run_query(in_place, "SELECT count(*) AS n FROM layers").frame["n"].item() == 6
    assert run_query(in_place, "SELECT count(*) AS n FROM edges WHERE block = 77").frame["n"].item() == 0
    with pytest.raises(UsageError, match="add --model"):
        run_query(in_place, "SELECT count(*) FROM edges")
    with model_given(open_model(plain[0])), pytest.raises(UsageError, match=r"main\.edges"):
        run_query(in_place, "SELECT count(*) FROM main.edges")


def test_views_of_others_are_not_followed_into_the_model(plain, tmp_path):
    model, _, in_place = plain
    path = shutil.copy(in_place, tmp_path / "net.duckdb")
    with open_store(path, mode="write") as store:
        store.connection.execute("CREATE VIEW mine AS SELECT * FROM edges")
    with model_given(open_model(model)), pytest.raises(UsageError, match="view mine is none of emergraph's"):
        run_query(path, "FROM mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("place_offset = 100000", "element 100599 of tensor"),
        ("place_steps = [1, 1000]", "element 29019 of tensor"),
        ("place_steps = [1]", "does not say where its matrix is"),
        ("tensor = NULL", "does not say where its matrix is"),
        ("tensor = 'fc9'", "of a tensor that is not in the model file"),
        ("n_edges = 3", "3 edges in block 0, but its matrix has"),
    ],
)
def test_a_damaged_place_is_refused(plain, tmp_path, change, said):
    model, _, in_place = plain
    path = shutil.copy(in_place, tmp_path / "net.duckdb")
    with open_store(path, mode="write") as store:
        store.connection.execute(f"UPDATE blocks SET {change} WHERE id = 0")
    with model_given(open_model(model)), open_store(path) as store, pytest.raises(StoreError, match=said):
        store.graph().block_edges(0)


def test_values_that_fit_the_limit_are_kept_and_larger_ones_stay(tmp_path):
    count = KEPT_BYTES // 4
    tensors = mlp((4, 3)) | {
        "small": sparse_weights((count,), seed=7),
        "large": sparse_weights((count + 1,), seed=8),
    }
    model = write_safetensors(tmp_path / "model.safetensors", tensors)
    _, path = export_twice(model, tmp_path)
    with open_store(path) as store:
        shards = dict(store.graph().tensors().select("name", "shard").iter_rows())
        assert shards == {
            "fc0.weight": "model.safetensors",
            "fc0.bias": None,
            "small": None,
            "large": "model.safetensors",
        }


def test_auto_leaves_edges_in_the_file_above_the_stated_number():
    wide = (IN_PLACE_EDGES, 1)
    assert not leaves_edges(EdgePlacement.AUTO, [wide])
    assert leaves_edges(EdgePlacement.AUTO, [wide, (1, 1)])
    assert not leaves_edges(EdgePlacement.AUTO, [wide, (5,)])
    assert not leaves_edges(EdgePlacement.STORED, [wide, wide])


@pytest.mark.parametrize(
    ("sql", "asks"),
    [
        ("SELECT count(*) FROM units JOIN unit_strengths ON id = unit", False),
        ("SELECT count(*) FROM CONNECTIONS", True),
        ("WITH e AS (FROM edges) SELECT count(*) FROM e", True),
        ("SELECT (SELECT count(*) FROM Edges)", True),
    ],
)
def test_only_a_question_about_edges_has_them_read_first(plain, sql, asks):
    """A store whose edges stayed in a model asks for them in a second process, which takes as long again."""
    _, _, in_place = plain
    limits = {**asdict(QueryLimits()), "path": str(in_place), "shown": "x", "edges": None}
    found = sandbox.answer({**limits, "sql": sql}, io.BytesIO())
    assert found == ({"edges": "in place"} if asks else {"truncated": False})


def test_the_same_file_is_exported_again_in_the_other_form(plain):
    model, _, in_place = plain
    with open_store(in_place, mode="write") as store:
        again = export_any(model, store, options=ExportOptions(edges=EdgePlacement.IN_PLACE))
        assert again.reused


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("turned", [False, True])
def test_passes_agree_with_the_matrix_as_a_whole(dtype, turned):
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (7, 300), (300, 7), (513, 260)):
        tensor = sparse_weights(shape, seed=shape[0], dtype=dtype)
        if shape[0] > 7:
            tensor[5, 3] = np.nan
            tensor[6, 2] = np.inf
        values = tensor.T if turned else tensor
        matrix = Matrix.over(values)
        dense = values.astype(np.float64)
        for n in (FEW_VECTORS, FEW_VECTORS + 1):
            vectors = rng.integers(0, 1000, size=(values.shape[1], n)).astype(np.float64)
            assert np.array_equal(mask_times(matrix, vectors), (dense != 0) @ vectors)
        kept = dense.astype(np.float32).astype(np.float64)  # as edges are
        finite = np.where(np.isfinite(kept), kept, 0)
        found = sum_up(matrix)
        assert np.array_equal(found.sources.degree, (dense != 0).sum(axis=1))
        assert np.array_equal(found.targets.degree, (dense != 0).sum(axis=0))
        np.testing.assert_allclose(found.sources.total, finite.sum(axis=1), atol=1e-9)
        np.testing.assert_allclose(found.targets.l1, np.abs(finite).sum(axis=0), atol=1e-9)
        assert found.n_nonfinite == int((~np.isfinite(dense)).sum())
        src, dst = rng.permutation(values.shape[0]), rng.permutation(values.shape[1]) + 1000
        pieces = list(edge_pieces(matrix, src, dst, ("src", "dst", "weight"), cells=500))
        rows, columns = np.nonzero(dense)
        assert np.array_equal(np.concatenate([p["src"] for p in pieces]), src[rows])
        assert np.array_equal(np.concatenate([p["dst"] for p in pieces]), dst[columns])
        weights = np.concatenate([p["weight"] for p in pieces])
        assert np.array_equal(weights, dense[rows, columns].astype(np.float32), equal_nan=True)


def test_a_matrix_is_found_in_its_tensor_however_it_is_cut():
    rng = np.random.default_rng(0)
    tensor = rng.normal(size=(12, 20)).astype(np.float32)
    for view in (tensor, tensor.T, tensor[2:5], tensor[:, 3:9].T, tensor[1::2, ::3], tensor[4:5]):
        place = place_in(tensor, "w", view)
        assert place is not None
        assert np.array_equal(Matrix.of(tensor, place, view.shape).array(), view)
    for other in (
        tensor.copy(),
        tensor[::-1],
        tensor.astype(np.float64),
        np.broadcast_to(tensor[:1], (3, 20)),
    ):
        assert place_in(tensor, "w", other) is None


def test_a_place_outside_its_tensor_is_no_matrix():
    tensor = np.zeros((3, 4), np.float32)
    fits = Place(tensor="w", offset=0, row_step=4, column_step=1)
    assert Matrix.of(tensor, fits, (3, 4)).shape == (3, 4)
    for offset, shape in ((1, (3, 4)), (-1, (1, 1)), (0, (4, 4)), (0, (0, 4))):
        with pytest.raises(ValueError, match="tensor 'w'"):
            Matrix.of(tensor, Place(tensor="w", offset=offset, row_step=4, column_step=1), shape)
