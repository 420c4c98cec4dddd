"""`emergraph export`, `ls`, `info` and `check`."""

import csv
import json

import numpy as np
import onnx
import pytest
from clifiles import DEMO, chain_of_layers
from onnx import TensorProto, numpy_helper

from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.graphstore.store import open_store

CONV = DEMO / "digits_conv.onnx"
DENSE = DEMO / "digits_dense.onnx"


def test_export_says_what_it_understood(run, tmp_path):
    result = run("export", CONV, tmp_path / "net.duckdb")
    assert result.code == 0
    assert "parameters understood  100 %" in result.out
    assert "graph                  digits_conv" in result.out
    assert result.err == ""


def test_export_as_json_counts_the_parameters_of_the_file(run, tmp_path):
    result = run("export", DENSE, tmp_path / "net.duckdb", "--name", "small", "--format", "json")
    answer = json.loads(result.out)
    initializers = onnx.load(DENSE).graph.initializer
    floats = [numpy_helper.to_array(i) for i in initializers if i.data_type == TensorProto.FLOAT]
    assert answer["name"] == "small"
    assert answer["trace"]["n_parameters"] == sum(array.size for array in floats)
    nonzero = sum(np.count_nonzero(array) for array in floats if array.ndim == 2)
    assert answer["trace"]["n_edges"] == nonzero


def test_a_dry_run_writes_nothing(run, exported, tmp_path):
    result = run("export", CONV, tmp_path / "net.duckdb", "--dry-run", "--format", "csv")
    (row,) = csv.DictReader(result.out.splitlines())
    assert result.code == 0
    assert int(row["n_edges"]) == json.loads(run("ls", exported, "--format", "json").out)[0]["n_edges"]
    assert int(row["estimated_bytes"]) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_same_file_is_not_written_twice_unless_asked(run, store):
    again = run("export", CONV, store)
    assert again.code == 0
    assert "--force" in again.out
    assert len(json.loads(run("ls", store, "--format", "json").out)) == 2
    forced = run("export", CONV, store, "--force", "--format", "json")
    assert json.loads(forced.out)["graph"] == 2
    names = [row["name"] for row in json.loads(run("ls", store, "--format", "json").out)]
    assert names == ["digits_conv", "digits_dense", "digits_conv-2"]


def test_inputs_decide_the_run(run, tmp_path):
    result = run("export", CONV, tmp_path / "n.duckdb", "--input-shape", "pixels=3,1,8,8", "--format", "json")
    assert json.loads(result.out)["input_shapes"] == {"pixels": [3, 1, 8, 8]}


def test_values_from_a_file_decide_the_run(run, tmp_path):
    np.savez(tmp_path / "in.npz", pixels=np.zeros((4, 1, 8, 8), dtype=np.float32))
    result = run("export", CONV, tmp_path / "n.duckdb", "--inputs", tmp_path / "in.npz", "--format", "json")
    assert json.loads(result.out)["input_shapes"] == {"pixels": [4, 1, 8, 8]}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, 3, id="missing"),
        pytest.param(b"", 3, id="empty"),
        pytest.param(b"<!DOCTYPE html><html></html>", 3, id="web page"),
        pytest.param(bytes(range(256)) * 40, 3, id="noise"),
        pytest.param(CONV.read_bytes()[:9000], 3, id="truncated"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(run, tmp_path, content, code):
    model = tmp_path / "m.onnx"
    if content is not None:
        model.write_bytes(content)
    result = run("export", model, tmp_path / "net.duckdb")
    assert result.code == code
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert "m.onnx" in result.err
    assert not (tmp_path / "net.duckdb").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--input-shape", "pixels=1,1,12,12"], 3, "pixels"),
        (["--input-shape", "pixel=1,1,8,8"], 3, "pixels"),
        (["--input-shape", "pixels=a"], 2, "--input-shape"),
        (["--input", "pixels=[[1]]"], 3, "pixels"),
        (["--input", "pixels"], 2, "NAME=VALUE"),
        (["--inputs", "missing.npz"], 3, "missing.npz"),
        (["--time-limit", "soon"], 2, "duration"),
        (["--memory-limit", "much"], 2, "size"),
    ],
)
def test_wrong_inputs_name_the_input_and_leave_no_store(run, tmp_path, arguments, code, words):
    result = run("export", CONV, tmp_path / "net.duckdb", *arguments)
    assert result.code == code, result.err
    assert len(result.err.splitlines()) == 1
    assert words in result.err
    assert not (tmp_path / "net.duckdb").exists()


def test_a_folder_that_does_not_exist_is_named(run, tmp_path):
    result = run("export", CONV, tmp_path / "missing" / "net.duckdb")
    assert result.code == 3
    assert "missing" in result.err


def test_hostile_layer_names_come_out_as_text_everywhere(run, tmp_path):
    names = [
        "'; DROP TABLE edges;--",
        'a"; DROP TABLE units;--',
        "\x1b]0;owned\x07\x1b[2J",
        "fc\u202e1",
        "=cmd|' /C calc'!A0",
        "[/bold]",
        "a\nb",
        "../../x",
        "FC",
        "fc",
    ]
    onnx.save(chain_of_layers(*names), tmp_path / "m.onnx")
    assert run("export", tmp_path / "m.onnx", tmp_path / "net.duckdb", "--name", names[0]).code == 0
    shown = run("info", tmp_path / "net.duckdb", "--graph", names[0])
    assert shown.code == 0
    for text in ("\x1b", "\x07", "\u202e"):
        assert text not in shown.out + shown.err
    document = json.loads(run("info", tmp_path / "net.duckdb", "--format", "json").out)
    assert [layer["name"] for layer in document["layers"]][1:] == names
    assert document["name"] == names[0]
    rows = list(csv.DictReader(run("info", tmp_path / "net.duckdb", "--format", "csv").out.splitlines()))
    assert rows[5]["name"] == f"'{names[4]}"
    assert rows[7]["name"] == "a\\x0ab"


def test_ls_lists_graphs_and_says_when_there_are_none(run, exported):
    result = run("ls", exported)
    assert [line.split()[1] for line in result.out.splitlines()] == ["name", "digits_conv", "digits_dense"]


def test_info_shows_layers_and_coverage(run, exported):
    result = run("info", exported, "--graph", "digits_conv")
    assert result.code == 0
    assert "edges by kind          88 weight" in result.out or "weight" in result.out
    assert "junction" in result.out
    document = json.loads(run("info", exported, "--graph", "0", "--format", "json").out)
    assert document["name"] == "digits_conv"
    assert sum(document["edges_by_kind"].values()) == document["n_edges"]


def test_an_unknown_graph_names_the_closest(run, exported):
    result = run("info", exported, "--graph", "digits_cnv")
    assert result.code == 2
    assert "digits_conv (id 0)" in result.err


@pytest.mark.parametrize("command_line", [["ls"], ["info"]])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, 3, id="missing"),
        pytest.param(b"not a database", 5, id="foreign"),
        pytest.param(b"", 5, id="empty"),
    ],
)
def test_what_is_no_store_is_refused_in_one_line(run, tmp_path, command_line, content, code):
    path = tmp_path / "x.duckdb"
    if content is not None:
        path.write_bytes(content)
    result = run(*command_line, path)
    assert result.code == code
    assert len(result.err.splitlines()) == 1
    assert content is None or path.read_bytes() == content


def test_check_is_silent_about_a_clean_file(run):
    result = run("check", CONV)
    assert result.code == 0
    assert result.out.startswith("nothing found in ")
    assert len(result.out.splitlines()) == 1


def test_check_lists_findings_and_exits_with_one(run, tmp_path):
    weight = np.array([[np.nan, 1], [1, 1]], dtype=np.float32)
    onnx.save(chain_of_layers("fc\x1b[2J", weight=weight), tmp_path / "m.onnx")
    result = run("check", tmp_path / "m.onnx", "--format", "json")
    assert result.code == 1
    findings = json.loads(result.out)
    assert {"id", "severity", "where", "message"} == set(findings[0])
    assert any("w0" in finding["where"] for finding in findings)


def test_check_reads_weight_files_too(run, tmp_path):
    weights = {"fc.weight": np.array([[np.nan, 1.0]], dtype=np.float32)}
    np.savez(tmp_path / "clean.npz", weight=np.ones((2, 2)))
    np.savez(tmp_path / "m.npz", **weights)
    (tmp_path / "m.bin").write_bytes(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00idq\x00\x85R.")
    assert run("check", tmp_path / "clean.npz").code == 0
    found = run("check", tmp_path / "m.npz", "--format", "json")
    assert found.code == 1
    assert [finding["where"] for finding in json.loads(found.out)] == ["fc.weight"]
    hostile = run("check", tmp_path / "m.bin", "--format", "json")
    assert hostile.code == 1
    assert [finding["id"] for finding in json.loads(hostile.out)] == ["PICKLE-CODE"]


def test_snapshots_show_their_step_and_metrics(run, tmp_path):
    path = tmp_path / "run.duckdb"
    with open_store(path, mode="create") as store:
        export_onnx(DENSE, store, options=ExportOptions(step=7))
        store.write_metrics(0, {"loss": 0.25})
    assert run("ls", path).out.splitlines()[0].split()[:3] == ["id", "name", "step"]
    shown = run("info", path).out
    assert "\nstep                   7\n" in shown
    assert "loss 0.25" in shown


@pytest.mark.parametrize(("content", "code"), [(None, 3), (b"", 1), (b"\xff" * 50, 1)])
def test_check_of_what_is_no_model(run, tmp_path, content, code):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    assert run("check", path).code == code
