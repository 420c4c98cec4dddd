"""`emergraph rm`, `merge` and `compact`."""

import json

import numpy as np
import onnx
import pytest
from clifiles import DEMO, chain_of_layers


def names(run, store):
    return [row["name"] for row in json.loads(run("ls", store, "--format", "json").out)]


def test_rm_takes_one_graph_out_with_all_that_belongs_to_it(run, traced):
    result = run("rm", traced, "--graph", "digits_conv", "--format", "json")
    assert json.loads(result.out) == {"removed": "digits_conv"}
    assert names(run, traced) == ["digits_dense"]
    for table in ("layers", "units", "blocks", "tensors", "operations", "traces"):
        rows = json.loads(run("sql", traced, f"SELECT DISTINCT graph FROM {table}", "--format", "json").out)
        assert rows == [{"graph": 1}]


@pytest.mark.parametrize("arguments", [[], ["--graph", "digits"], ["--graph", "7"]])
def test_rm_needs_a_graph_that_is_there(run, store, arguments):
    result = run("rm", store, *arguments)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert names(run, store) == ["digits_conv", "digits_dense"]


def test_merge_copies_graphs_and_numbers_names_that_are_taken(run, store, traced):
    before = traced.read_bytes()
    result = run("merge", store, traced)
    assert result.code == 0
    assert names(run, store) == ["digits_conv", "digits_dense", "digits_conv-2", "digits_dense-2"]
    assert traced.read_bytes() == before
    answers = [
        json.loads(run("emergence", path, "--graph", graph, "--no-save", "--format", "json").out)["counts"]
        for path, graph in ((traced, "digits_dense"), (store, "digits_dense-2"))
    ]
    assert answers[0] == answers[1]


def test_a_store_is_not_merged_into_itself(run, store):
    result = run("merge", store, store)
    assert result.code == 2
    assert len(names(run, store)) == 2


def test_a_foreign_file_is_not_merged(run, store, tmp_path):
    (tmp_path / "x.duckdb").write_text("no")
    assert run("merge", store, tmp_path / "x.duckdb").code == 5
    assert run("merge", store, tmp_path / "missing.duckdb").code == 3
    assert len(names(run, store)) == 2


def test_compact_gives_room_back_and_keeps_the_rest(run, store, tmp_path):
    weight = np.random.default_rng(0).normal(size=(700, 700)).astype(np.float32)
    model = chain_of_layers("a", "b", weight=weight)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_value = 700
    onnx.save(model, tmp_path / "large.onnx")
    assert run("export", tmp_path / "large.onnx", store).code == 0
    assert run("rm", store, "--graph", "large").code == 0
    answer = json.loads(run("compact", store, "--format", "json").out)
    assert answer["bytes_after"] < answer["bytes_before"]
    assert store.stat().st_size == answer["bytes_after"]
    assert names(run, store) == ["digits_conv", "digits_dense"]
    assert run("export", DEMO / "digits_dense.onnx", store).out.count("--force") == 1


def test_a_damaged_store_is_refused_and_left_alone(run, store, tmp_path):
    content = bytearray(store.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_bytes(content)
    for command_line in (["ls"], ["info"], ["compact"], ["rm", "--graph", "0"], ["emergence"]):
        result = run(command_line[0], damaged, *command_line[1:])
        assert result.code == 5, result
        assert len(result.err.splitlines()) == 1
    assert damaged.read_bytes() == bytes(content)


def test_a_truncated_store_is_refused(run, store, tmp_path):
    truncated = tmp_path / "truncated.duckdb"
    truncated.write_bytes(store.read_bytes()[:50_000])
    result = run("info", truncated)
    assert result.code == 5
    assert len(result.err.splitlines()) == 1


def test_a_duckdb_file_of_another_program_is_refused(run, tmp_path):
    import duckdb

    path = tmp_path / "other.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE graphs (id INTEGER)")
    for command_line in (
        ["ls", path],
        ["rm", path, "--graph", "0"],
        ["export", DEMO / "digits_conv.onnx", path],
    ):
        result = run(*command_line)
        assert result.code == 5
        assert "emergraph" in result.err
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.sql("SHOW TABLES").fetchall() == [("graphs",)]


def test_upkeep_needs_a_store(run, tmp_path):
    for command_line in (["rm", tmp_path / "x", "--graph", "0"], ["compact", tmp_path / "x"]):
        assert run(*command_line).code == 3
    assert list(tmp_path.iterdir()) == []
