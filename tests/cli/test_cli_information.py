"""`emergraph information`."""

import json

import numpy as np
import onnx
import pytest
from decoders import decoder

from emergraph.cli.main import main
from emergraph.graphstore.store import open_store


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("information") / "decoder.onnx"
    onnx.save(decoder()[0], path)
    return path


def test_a_run_is_shown_and_stored(model, tmp_path, capsys):
    store = tmp_path / "net.duckdb"
    assert main(["export", str(model), str(store), "-q"]) == 0
    words = [
        "information",
        str(model),
        "--entities",
        "5",
        "--first-id",
        "1",
        "--shots",
        "3",
        "--repeats",
        "4",
    ]
    capsys.readouterr()
    assert main([*words, "--dimensions", "2", "--store", str(store)]) == 0
    shown, notes = capsys.readouterr()
    assert "5.9069 bits: log2 of 60 inputs" in shown
    assert "all blocks" in shown
    assert "no information" in notes
    with open_store(store) as opened:
        rows = opened.results("information")
        run = opened.runs().row(-1, named=True)
    assert rows.height == 3
    assert (run["command"], run["graph"], run["seed"]) == ("information", 0, 0)
    assert json.loads(run["parameters"])["population"] == 60


def test_formats(model, tmp_path, capsys):
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(f"{a} {b} {a}" for a in range(8) for b in range(8)))
    words = ["information", str(model), "--sequences", str(ids), "--repeats", "2", "--micro", "first", "-q"]
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["ceiling"], found["micro_level"]) == (64, 6.0, "first")
    assert [block["block"] for block in found["blocks"]] == ["block_0", "block_1", "all blocks"]
    assert main([*words, "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("number,block,emergence,low,high")


def test_recorded_states_need_no_sequences(tmp_path, capsys):
    rng = np.random.default_rng(0)
    states = {f"state_{i}": rng.standard_normal((60, 3, 4)) for i in range(3)}
    np.savez(tmp_path / "hidden.npz", sequences=rng.integers(0, 5, (60, 3)), **states)
    words = ["information", str(tmp_path / "hidden.npz"), "--micro", "first", "--repeats", "2"]
    assert main(words) == 0
    assert "recorded sequences" in capsys.readouterr().out
    assert main([*words, "--entities", "5"]) == 2
    assert "leave other sequences out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "no sequences"),
        (["--entities", "5", "--text", "a.txt"], 2, "one of --sequences"),
        (["--entities", "5", "--estimator", "guess"], 2, "gaussian, ksg, mine, codes"),
        (["--entities", "5", "--estimator", "ksg", "--dimensions", "3"], 2, "at most 2"),
        (["--entities", "30"], 3, "rows"),
        (["--text", "missing.txt"], 3, "no such file"),
        (["--entities", "5", "--blocks", "a,b"], 2, "unknown tensor"),
    ],
)
def test_what_does_not_make_sense_is_one_line(model, capsys, words, code, told):
    assert main(["information", str(model), *words]) == code
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
