import json

import numpy as np
import pytest
from plantednets import cnn, transformer

from emergraph.cli.main import main


@pytest.fixture
def healthy(tmp_path):
    return transformer().save(tmp_path / "healthy.onnx")


@pytest.fixture
def faulty(tmp_path):
    net = cnn()
    net.weights["w2"][2] = 0
    net.weights["b3"][:] = 5
    return net.save(tmp_path / "faulty.onnx")


def test_the_first_line_is_the_finding_and_what_to_do(faulty, run):
    result = run("audit", faulty)
    assert result.code == 1
    first = " ".join(result.out.split("\n\n")[0].split())
    assert first.startswith("1 of the 12 units of layer 'conv2' is reached by no input")
    assert "--write SMALLER.onnx`" in first
    assert "random inputs" in result.err


def test_a_healthy_model_exits_with_0_and_a_stricter_level_with_1(healthy, faulty, run):
    assert run("audit", healthy).code == 0
    assert run("audit", faulty, "--fail-on", "error").code == 0
    assert run("audit", faulty, "--fail-on", "info").code == 1


def test_json_has_its_own_schema_and_comes_back_as_a_baseline(faulty, tmp_path, run):
    out = tmp_path / "audit.json"
    assert run("audit", faulty, "--out", str(out)).code == 1
    document = json.loads(out.read_text())
    assert document["schema"] == "emergraph-audit-1"
    (finding,) = [f for f in document["findings"] if f["id"] == "DEAD-UNREACHED"]
    assert (finding["severity"], finding["grade"], finding["about"]) == ("warning", "proved", "network")
    assert finding["units"] == [{"layer": "conv2", "positions": [2]}]
    again = run("audit", faulty, "--baseline", str(out), "--format", "json")
    assert again.code == 0
    assert json.loads(again.out)["findings"] == []
    assert json.loads(again.out)["accepted"] == len(document["findings"])


def test_a_baseline_that_is_no_audit_is_refused_in_a_line(faulty, tmp_path, run):
    other = tmp_path / "other.json"
    other.write_text("[1]")
    result = run("audit", faulty, "--baseline", str(other))
    assert result.code == 3
    assert "is not an audit" in result.err


def test_a_file_with_code_is_not_loaded(tmp_path, run):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    result = run("audit", str(path), "--format", "json")
    assert result.code == 1
    document = json.loads(result.out)
    assert document["identity"] is None
    assert document["size"] is None
    assert any(f["id"] == "PICKLE-CODE" for f in document["findings"])
    assert set(document["left_out"].values()) == {"the file was not loaded"}


def test_what_the_budget_left_out_is_named(faulty, run):
    result = run("audit", faulty, "--budget", "0.001s", "--format", "json")
    assert "budget" in json.loads(result.out)["left_out"]["numbers"]


def test_weights_without_wiring_are_audited_for_what_they_are(tmp_path, run):
    path = tmp_path / "weights.npz"
    values = np.ones((8, 8), np.float32)
    values[1, 1] = np.nan
    np.savez(path, first=values)
    result = run("audit", str(path), "--format", "json")
    ids = {f["id"] for f in json.loads(result.out)["findings"]}
    assert "NUM-NONFINITE" in ids
    assert "DEAD-UNREAD" not in ids


def test_main_takes_the_command():
    assert main(["audit", "--help"]) == 0


@pytest.mark.parametrize(
    ("name", "begin"), [("a.sarif", "$schema"), ("a.cdx.json", "bomFormat"), ("a.html", "<!doctype html>")]
)
def test_the_name_of_a_file_chooses_the_format(faulty, tmp_path, run, name, begin):
    out = tmp_path / name
    assert run("audit", faulty, "--out", out).code == 1
    assert begin in out.read_text()


def test_a_smaller_model_is_written_with_what_was_left_out(faulty, tmp_path, run):
    out = tmp_path / "smaller.onnx"
    result = run("audit", faulty, "--write", out, "--fail-on", "error")
    assert result.code == 0
    assert out.stat().st_size < faulty.stat().st_size
    assert "written" in result.out
    refused = run("audit", faulty, "--write", out, "--also", "tested")
    assert refused.code == 2
    assert "--inputs" in refused.err


def test_a_reference_is_refused_with_the_exit_code_of_what_is_wrong_with_it(healthy, tmp_path, run):
    folder, code = tmp_path / "folder", tmp_path / "weights.pt"
    folder.mkdir()
    code.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    assert run("audit", healthy, "--reference", folder).code == 3
    assert run("audit", healthy, "--reference", code).code == 4
    assert run("audit", code, "--write", tmp_path / "new.onnx").code == 4
