"""A lake: the same answers as from the store, each file whole, and nothing but its own files in reach."""

import importlib.util
import os
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from inplacemodels import export_twice, residual_onnx
from lockedsql import ask, refusal
from storegraphs import make_store, random_chain, write_chain

from emergraph.errors import InvalidInputError, StoreError, UsageError
from emergraph.exporters.modeltensors import open_model
from emergraph.graphstore.lake import writing
from emergraph.graphstore.lake.layout import lake_files
from emergraph.graphstore.lake.reading import open_stored
from emergraph.graphstore.lake.writing import write_lake
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.query import run_query
from emergraph.graphstore.store import open_store

TABLES = ("graphs", "layers", "units", "blocks", "connections", "kernels", "strengths", "tensors")
TABLES += (
    "tensor_parts",
    "operations",
    "metrics",
    "traces",
    "activations",
    "runs",
    "edges",
    "unit_strengths",
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store with two graphs, a trace, metrics and a run, and its lake."""
    path = make_store(tmp_path_factory.mktemp("lake") / "net.duckdb")
    with open_store(path, mode="write") as store:
        write_chain(store, random_chain([4, 6, 3], seed=1), name="second")
        store.write_metrics(0, {"loss": 0.5})
    write(path, path.parent / "lake")
    return path, path.parent / "lake"


def write(path, lake, **options):
    with open_store(path) as store:
        return write_lake(store, lake, **options)


def content(lake):
    return {str(path.relative_to(lake)): path.read_bytes() for path in lake.rglob("*.parquet")}


def test_every_table_is_that_of_the_store(stored):
    path, lake = stored
    for table in TABLES:
        expected, found = ask(path, f"FROM {table}"), ask(lake, f"FROM {table}")
        assert found.drop("key", strict=False).schema == expected.schema, table
        rows = [sorted(frame.select(expected.columns).rows(), key=repr) for frame in (expected, found)]
        assert repr(rows[0]) == repr(rows[1]), table


def test_a_second_call_writes_nothing_and_what_is_new_is_added(stored, tmp_path):
    path, lake = shutil.copy(stored[0], tmp_path / "net.duckdb"), tmp_path / "lake"
    assert all(row["files"] for row in write(path, lake))
    before = content(lake)
    assert not any(row["files"] for row in write(path, lake))
    with open_store(path, mode="write") as store:
        store.record_run(1, "test", {"a": 1}, result_tables={})
        store.record_run(None, "landscape", {}, result_tables={})
        store.write_metrics(0, {"loss": 0.25})
    write(path, lake)
    now = content(lake)
    assert now.keys() > before.keys()
    changed = [name for name in before if now[name] != before[name]]
    assert [Path(name).parent.name for name in changed] == ["metrics"]
    assert ask(lake, 'SELECT "value" FROM metrics').rows() == [(0.25,)]
    assert ask(lake, "SELECT command, graph FROM runs ORDER BY id").rows()[-2:] == [
        ("test", 1),
        ("landscape", None),
    ]
    assert all(place.name.startswith("graph=") for place in lake.iterdir())


def test_a_graph_has_one_name_wherever_it_comes_from(stored, tmp_path):
    with open_store(tmp_path / "other.duckdb", mode="create") as store:
        write_chain(store, random_chain([4, 6, 3], seed=2), name="first")
        write_chain(store, random_chain([4, 6, 3], seed=1), name="second")
        write_chain(store, random_chain([4, 6, 3], seed=1), name="third")
    keys = {row["name"]: row["graph"] for row in write(tmp_path / "other.duckdb", tmp_path / "lake")}
    assert len(set(keys.values())) == 3
    assert keys["second"] in {row["graph"] for row in write(stored[0], stored[1])}
    assert keys["first"] != keys["second"] != keys["third"]


def test_a_graph_that_is_there_twice_is_damage(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("INSERT INTO graphs FROM graphs")
    with pytest.raises(StoreError, match="damaged, graph 0 is there 2 times; restore it"):
        write(path, tmp_path / "lake")
    assert not (tmp_path / "lake").exists() or not list((tmp_path / "lake").rglob("*.parquet"))


def test_a_write_that_fails_leaves_no_graph(stored, tmp_path, monkeypatch):
    def fail(path, schema, batches):
        if path.parent.name == "tensors":
            raise OSError(28, "No space left on device", str(path))
        whole(path, schema, batches)

    whole = writing._write
    monkeypatch.setattr(writing, "_write", fail)
    with pytest.raises(Exception, match="space"):
        write(stored[0], tmp_path / "lake")
    assert not list((tmp_path / "lake").iterdir())


def test_parents_are_graphs_of_the_lake(stored, tmp_path):
    path = shutil.copy(stored[0], tmp_path / "net.duckdb")
    with open_store(path, mode="write") as store:
        write_chain(store, random_chain([4, 6, 3], seed=3), name="child", parent=0)
    write(path, tmp_path / "lake")
    sql = "SELECT b.name FROM graphs AS a JOIN graphs AS b ON b.id = a.parent WHERE a.name = 'child'"
    assert ask(tmp_path / "lake", sql).rows() == ask(path, sql).rows() == [("net",)]


SECURITY = ("FILES", "STATEMENTS", "REVEALING")


def test_the_lock_is_that_of_a_store(stored):
    """All that a store refuses in `test_store_query`."""
    place = Path(__file__).parents[1] / "test_store_query.py"
    spec = importlib.util.spec_from_file_location("stored_queries", place)
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    before = content(stored[1])
    for kind in SECURITY:
        for name, sql in getattr(cases, kind).items():
            error, message = refusal(stored[1], cases.fill(sql, stored[1]))
            assert error == "UsageError", (name, message)
    own = next(iter(before))
    for sql in (
        f"FROM read_parquet('{own}')",
        f"FROM '{own}'",
        f"FROM read_parquet('{stored[1] / own}')",
        "FROM parquet_metadata('graph=*/*/*.parquet')",
    ):
        assert refusal(stored[1], sql)[0] == "UsageError"
    views = ask(stored[1], "SELECT sql FROM duckdb_views() WHERE NOT internal")
    assert str(stored[1].parent) not in "".join(views["sql"])
    assert content(stored[1]) == before


@pytest.mark.parametrize("what", ["file", "table", "partition", "pipe"])
def test_links_and_other_kinds_of_files_are_refused(stored, tmp_path, what):
    lake = tmp_path / "lake"
    shutil.copytree(stored[1], lake)
    target = next(lake.glob("graph=*/units/*.parquet"))
    place = {"file": target, "pipe": target, "table": target.parent, "partition": target.parents[1]}[what]
    shutil.move(place, tmp_path / "elsewhere")
    if what == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / "elsewhere")
    error, message = refusal(lake, "FROM units")
    assert error == "UnsafeInputError"
    assert "a FIFO" in message if what == "pipe" else "is a link" in message


def test_what_is_no_part_of_a_lake_is_not_opened(stored, tmp_path):
    lake = tmp_path / "lake"
    shutil.copytree(stored[1], lake)
    (lake / "README").write_text("notes")
    (lake / "other").symlink_to("/")
    target = next(lake.glob("graph=*/units/*.parquet"))
    (target.parent / "_SUCCESS").write_text("")
    (target.parent / ".part.parquet.crc").write_text("")
    assert (
        ask(lake, "SELECT count(*) FROM units").rows() == ask(stored[1], "SELECT count(*) FROM units").rows()
    )
    assert all("graph=" in path for paths in lake_files(lake).values() for path in paths)


def test_a_damaged_file_and_a_newer_lake_are_named(stored, tmp_path):
    lake = tmp_path / "lake"
    shutil.copytree(stored[1], lake)
    target = next(lake.glob("graph=*/units/*.parquet"))
    target.write_bytes(target.read_bytes()[:-20])
    assert refusal(lake, "FROM units")[0] in ("UsageError", "StoreError")
    target = next(lake.glob("graph=*/graphs/*.parquet"))
    rows = pq.read_table(target, partitioning=None).to_pylist()
    pq.write_table(pl.DataFrame([{**rows[0], "schema_version": 99}]).to_arrow(), target)
    error, message = refusal(lake, "FROM layers")
    assert error == "StoreError"
    assert "update emergraph" in message


def test_a_folder_that_is_no_lake(tmp_path):
    with pytest.raises(InvalidInputError, match="no lake"):
        run_query(tmp_path, "SELECT 1")
    with pytest.raises(InvalidInputError, match="no lake"), open_stored(tmp_path):
        pass


def test_edges_in_place_are_asked_for_written_or_read(tmp_path):
    model, lake = residual_onnx(tmp_path / "net.onnx"), tmp_path / "lake"
    stored, path = export_twice(model, tmp_path)
    in_rows = write(path, lake)[0]["edges"]
    sql = "SELECT count(*) AS n, round(sum(l1), 6) AS l1 FROM edges"
    strengths = """
        SELECT outgoing, sum(degree)::BIGINT AS n, round(sum(l1), 6) AS l1
        FROM unit_strengths GROUP BY ALL ORDER BY ALL"""
    expected, sums = run_query(stored, sql).frame, run_query(stored, strengths).frame
    assert run_query(lake, strengths).frame.equals(sums)
    with pytest.raises(UsageError, match="--model"):
        run_query(lake, sql)
    with pytest.raises(UsageError, match="--model"):
        run_query(lake, "SELECT count(*) FROM connections")
    with pytest.raises(UsageError, match="--model"):
        write(path, lake, edges=True)
    assert not list(lake.glob("graph=*/connections/in-place.parquet"))
    with model_given(open_model(model)):
        assert run_query(lake, sql).frame.equals(expected)
        assert [row["files"] for row in write(path, lake, edges=True)] == [1]
        written = write(path, lake, edges=True)
    assert written[0]["files"] == 0
    assert written[0]["edges"] == expected["n"][0] > in_rows
    assert run_query(lake, sql).frame.equals(expected)
    assert run_query(lake, strengths).frame.equals(sums)
