"""Listing, removing, merging and compacting leave every other graph as it was, to the last row."""

import subprocess
import sys

import duckdb
import numpy as np
import polars as pl
import pytest
from storegraphs import block, finish, header, make_store, random_chain, write_chain

from emergraph.errors import LimitError, StoreError, UsageError
from emergraph.graphstore import maintain, results
from emergraph.graphstore.maintain import compact, list_graphs, merge, remove_graph
from emergraph.graphstore.records import EdgeKind, Kernels, Operation, Tensor, TracedAs, TraceHeader
from emergraph.graphstore.restore import restore_all
from emergraph.graphstore.results import Column, ResultTable, register
from emergraph.graphstore.store import open_store


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(results, "_registered", {})
    register(ResultTable("test_scores", "One row per unit.", (Column("score", "DOUBLE", "Any."),)))


def write_everything(store, name, seed):
    """A graph with rows in every table."""
    random = np.random.default_rng(seed)
    with store.write_graph(header(name, parent=0 if seed % 2 else None, settings={"seed": seed})) as writer:
        weights = random.standard_normal((4, 3)).astype(np.float32)
        writer.write_matrix(block(0, tensor="w"), np.arange(4), np.arange(4, 7), weights)
        kernels = Kernels(
            l1=random.random(2), l2=random.random(2), max_abs=random.random(2), n_params=np.array([3, 4])
        )
        writer.write_edges(block(1, layer=2), np.arange(4, 6), np.array([7, 7]), random.random(2), kernels)
        writer.write_matrix(
            block(2, kind=EdgeKind.WEIGHT, tensor="w", shared_with=0), np.arange(4), np.arange(4, 7), weights
        )
        writer.write_tensor(Tensor(name="w", dtype="float32", shape=(4, 3), n_params=12, n_zeros=0, block=0))
        data = random.bytes(100_000)
        writer.write_tensor(
            Tensor(name="raw", dtype="uint8", shape=(100_000,), n_params=9, n_zeros=0, data=data)
        )
        writer.write_operations(
            [Operation(index=0, name="op", op="Gemm", domain="", traced_as=TracedAs.CONTRACTED, n_params=12)]
        )
        graph = finish(writer, [4, 3, 1])
    columns = ["mean", "mean_abs", "rms", "std", "min", "max", "share_positive"]
    frame = pl.DataFrame(
        {"unit": [0, 1], "n": [2, 2], "n_positions": [1, 1], **{c: random.random(2) for c in columns}}
    )
    store.write_trace(graph, TraceHeader(name="t", kind="random", n_samples=2), frame)
    store.write_metrics(graph, {"loss": float(seed)})
    store.record_run(
        graph, "score", {"seed": seed}, result_tables={"test_scores": pl.DataFrame({"score": [float(seed)]})}
    )
    return graph


def dump(store, graph):
    """Everything about a graph but its ids."""
    reader = store.graph(graph)
    trace = reader.traces().drop("id")
    run_ids = store.runs().filter(pl.col("graph") == reader.id)["id"].to_list()
    frames = {
        "layers": reader.layers(),
        "units": reader.units(),
        "blocks": reader.blocks().drop("id", "shared_with"),
        "shared": reader.blocks().select(pl.col("shared_with") - pl.col("id").min()),
        "edges": reader.edges().drop("block"),
        "tensors": reader.tensors().drop("block"),
        "operations": reader.operations(),
        "metrics": reader.metrics(),
        "traces": trace,
        "activations": reader.activations() if trace.height else trace,
        "runs": store.runs().filter(pl.col("graph") == reader.id).drop("id", "graph"),
        "scores": pl.concat([store.results("test_scores", run).drop("run") for run in run_ids])
        if run_ids
        else trace,
    }
    values = {name: array.tobytes() for name, array in restore_all(reader)}
    arrays = [edges["src"].tolist() for _, edges in reader.iter_edges()]
    summary = {k: v for k, v in reader.summary.items() if k not in ("id", "name", "parent")}
    return frames, values, arrays, summary


def assert_same(one, other):
    for name, frame in one[0].items():
        assert frame.equals(other[0][name]), name
    assert one[1:] == other[1:]


@pytest.fixture
def three(tmp_path):
    path = tmp_path / "three.duckdb"
    with open_store(path, mode="create") as store:
        for seed, name in enumerate("abc"):
            write_everything(store, name, seed)
    return path


def count_rows(store):
    tables = [row[0] for row in store.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    return {t: store.connection.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0] for t in tables}


def test_list(three):
    with open_store(three) as store:
        listed = list_graphs(store)
    assert listed["name"].to_list() == ["a", "b", "c"]
    assert listed["n_edges"].to_list() == [26] * 3
    assert listed["n_traces"].to_list() == listed["n_runs"].to_list() == [1] * 3
    assert listed["parent"].to_list() == [None, 0, None]
    assert (listed["n_bytes"] > 100_000).all()


def test_listed_sizes_add_up_to_the_file(tmp_path):
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store:
        write_chain(store, random_chain([600, 700]), "small")
        write_chain(store, random_chain([600, 1400]), "large")
    with open_store(path) as store:
        sizes = dict(list_graphs(store).select("name", "n_bytes").iter_rows())
    assert sizes["large"] == pytest.approx(2 * sizes["small"], rel=0.01)
    assert 0.8 < sum(sizes.values()) / path.stat().st_size < 1


def test_list_of_an_empty_store(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        assert list_graphs(store).height == 0


@pytest.mark.parametrize("removed", ["a", "b", "c", 1, "2"])
def test_remove(three, removed):
    with open_store(three, mode="write") as store:
        names = store.graphs()["name"].to_list()
        before = {name: dump(store, name) for name in names}
        gone = remove_graph(store, removed)
        left = [name for name in names if name != gone]
        assert store.graphs()["name"].to_list() == left
        for name in left:
            assert_same(dump(store, name), before[name])
        n_rows = count_rows(store)
        assert n_rows["connections"] == 2 * 24
        assert n_rows["kernels"] == n_rows["activations"] == 2 * 2
        assert n_rows["tensor_parts"] == 2 * 4
        assert n_rows["test_scores"] == n_rows["runs"] == n_rows["traces"] == n_rows["metrics"] == 2
        if gone == "a":
            assert store.graphs()["parent"].to_list() == [None, None]


def test_remove_all_and_write_again(three):
    with open_store(three, mode="write") as store:
        for name in "bac":
            remove_graph(store, name)
        assert {table for table, n in count_rows(store).items() if n} == {"store_info"}
        write_everything(store, "new", 0)
        expected = dump(store, "new")
    with open_store(three) as store:
        assert_same(dump(store, "new"), expected)


def test_remove_unknown_graph(three):
    with open_store(three, mode="write") as store, pytest.raises(UsageError, match="unknown graph 'x'"):
        remove_graph(store, "x")
    with open_store(three) as store, pytest.raises(StoreError, match="opened for reading"):
        remove_graph(store, "a")


@pytest.mark.parametrize("rows", [3, 1 << 22], ids=["few rows at a time", "all rows at once"])
def test_merge(three, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(maintain, "_ROWS", rows)
    target = tmp_path / "target.duckdb"
    with open_store(target, mode="create") as store:
        for seed, name in ((5, "z"), (6, "b")):
            write_everything(store, name, seed)
    with open_store(three) as store:
        sources = {row["id"]: dump(store, row["id"]) for row in store.graphs().iter_rows(named=True)}
    with open_store(target, mode="write") as store:
        before = {name: dump(store, name) for name in ("z", "b")}
        new_ids = merge(store, three)
        assert store.graphs()["name"].to_list() == ["z", "b", "a", "b-2", "c"]
        assert new_ids == {0: 2, 1: 3, 2: 4}
        for name, dumped in before.items():
            assert_same(dump(store, name), dumped)
        for old, new in new_ids.items():
            assert_same(dump(store, new), sources[old])
        write_everything(store, "later", 7)
    with open_store(three) as store:
        for graph, dumped in sources.items():
            assert_same(dump(store, graph), dumped)


def test_merge_maps_parents(three, tmp_path):
    with open_store(tmp_path / "target.duckdb", mode="create") as store:
        write_chain(store, random_chain([2, 1]), "first")
        merge(store, three)
        assert dict(store.graphs().select("name", "parent").iter_rows()) == {
            "first": None,
            "a": None,
            "b": 1,
            "c": None,
        }


def test_merge_into_itself(three):
    with open_store(three, mode="write") as store, pytest.raises(UsageError, match="into itself"):
        merge(store, three)


def test_failed_merge_changes_nothing(three, tmp_path):
    with duckdb.connect(three) as connection:
        connection.execute("ALTER TABLE tensor_parts ALTER data TYPE VARCHAR USING 'x'")
        connection.execute("ALTER TABLE metrics RENAME name TO title")
    target = make_store(tmp_path / "target.duckdb")
    with open_store(target, mode="write") as store:
        before = count_rows(store)
        with pytest.raises(StoreError):
            merge(store, three)
        assert count_rows(store) == before


@pytest.mark.parametrize(
    "sql",
    [
        'CREATE TABLE "x""; DROP TABLE graphs; --" (run INTEGER, a INTEGER)',
        'CREATE TABLE extra (run INTEGER, "a""; DROP TABLE graphs; --" INTEGER)',
        "CREATE TABLE extra (run INTEGER, a STRUCT(b INTEGER))",
    ],
)
def test_merge_of_strange_result_tables(three, tmp_path, sql):
    with duckdb.connect(three) as connection:
        connection.execute(sql)
    target = make_store(tmp_path / "target.duckdb")
    with open_store(target, mode="write") as store:
        with pytest.raises(StoreError, match="cannot be copied"):
            merge(store, three)
        assert store.graphs()["name"].to_list() == ["net"]


def test_merge_leaves_rows_of_no_graph_behind(three, tmp_path):
    """Rows that belong to nothing could otherwise become edges of another graph."""
    with duckdb.connect(three) as connection:
        connection.execute("INSERT INTO connections VALUES (-9, 0, 1, 1.0), (900, 0, 1, 1.0)")
    target = make_store(tmp_path / "target.duckdb")
    with open_store(target, mode="write") as store:
        merge(store, three)
        assert count_rows(store)["connections"] == 20 + 3 * 24


def test_compact_keeps_everything_but_the_room(tmp_path):
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store:
        write_chain(store, random_chain([700, 700]), "large")
        for seed, name in enumerate("ab"):
            write_everything(store, name, seed)
        remove_graph(store, "large")
        before = {name: dump(store, name) for name in "ab"}
        ids = store.graphs()["id"].to_list()
    path.chmod(0o640)
    done = compact(path)
    assert done.bytes_after == path.stat().st_size < done.bytes_before / 2
    assert path.stat().st_mode & 0o777 == 0o640
    with open_store(path) as store:
        assert store.graphs()["id"].to_list() == ids
        for name, dumped in before.items():
            assert_same(dump(store, name), dumped)
        assert store.runs()["id"].to_list() == [0, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["net.duckdb"]


def test_compact_of_an_emptied_store(three):
    with open_store(three, mode="write") as store:
        for name in "abc":
            remove_graph(store, name)
    compact(three)
    with open_store(three) as store:
        assert store.graphs().height == 0


def test_compact_through_a_link(three, tmp_path):
    link = tmp_path / "link.duckdb"
    link.symlink_to(three)
    compact(link)
    assert link.is_symlink()
    with open_store(link) as store:
        assert store.graphs().height == 3


COMPACT_ON_FULL_DISK = """
import resource, sys
from emergraph.errors import LimitError
from emergraph.graphstore.maintain import compact
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
try:
    compact(sys.argv[1])
except LimitError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [10_000, 400_000, 800_000])
def test_compact_on_a_full_disk(three, room):
    before = three.read_bytes()
    with open_store(three, mode="write") as store:
        write_chain(store, random_chain([400, 500]), "large")
    before = three.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", COMPACT_ON_FULL_DISK, str(three), str(room)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the disk is full" in done.stdout
    assert three.read_bytes() == before
    assert [file.name for file in three.parent.iterdir()] == [three.name]


def test_interrupted_compact_leaves_the_store(three, monkeypatch):
    before = three.read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("emergraph.graphstore.maintain.copy_graphs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compact(three)
    assert three.read_bytes() == before
    assert [file.name for file in three.parent.iterdir()] == [three.name]


def test_merge_out_of_room(three, tmp_path, monkeypatch):
    target = make_store(tmp_path / "target.duckdb")

    def full(*_, **__):
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")

    monkeypatch.setattr(maintain, "insert", full)
    with open_store(target, mode="write") as store:
        with pytest.raises(LimitError, match="disk is full"):
            merge(store, three)
        assert store.graphs()["name"].to_list() == ["net"]
