"""The commands about concept data and training logs."""

import io
import json

import numpy as np
import polars as pl
import pytest


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    pl.DataFrame(
        {
            "who": ["a", "b", "b", "c", None],
            "what": ["x", "x", "y", "z", "z"],
            "kind": [1, 1, 1, 2, 2],
            "t": [1, 2, 3, 4, 5],
        }
    ).write_csv(path)
    return path


def test_pairs_of_a_file(run, pairs):
    named = ("--entity", "who", "--property", "what", "--nulls", "3")
    found = run("concepts", pairs, *named, "--time", "t", "--class", "kind")
    assert found.code == 0
    assert "inferable though unseen       1 (1 of unseen)" in found.out
    assert "summed over 2 classes" in found.out
    assert "1 rows lack an entry" in found.err
    document = json.loads(run("concepts", pairs, *named, "--format", "json").out)
    assert (document["n_entities"], document["n_properties"], document["n_pairs"]) == (3, 3, 4)
    assert document["expected_threshold"] == 3.0
    assert [row["n_draws"] for row in document["thresholds"]] == [1, 3, 3]
    missing = run("concepts", pairs)
    assert (missing.code, missing.out) == (2, "")
    assert "unknown entity column 'entity'" in missing.err


def test_pairs_from_standard_input(run, monkeypatch):
    text = b"entity,property\n1,2\n1,3\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    found = run("concepts", "-", "--nulls", "0", "--format", "csv")
    assert found.code == 0
    assert len(found.out.splitlines()) == 2


def test_transitions_of_a_log(run, tmp_path):
    step = np.geomspace(1, 1000, 30)
    frames = [
        pl.DataFrame({"step": step, "accuracy": 1 / (1 + (step / (5 * size**0.5)) ** -6.0)}).with_columns(
            n_entities=10, n_properties=size
        )
        for size in (100, 200, 400, 800)
    ]
    path = tmp_path / "log.parquet"
    pl.concat(frames).write_parquet(path)
    found = run("transition", path, "--metric", "accuracy", "--draws", "20")
    assert found.code == 0
    assert "compatible (margin 0.1)" in found.out
    assert "exponent 0.5 only" in found.err
    document = json.loads(
        run("transition", path, "--metric", "accuracy", "--draws", "20", "--format", "json").out
    )
    assert document["preferred"]["smooth"] == 4
    assert document["exponents"][1]["exponent"] == pytest.approx(0.5, abs=0.01)
    one = run("transition", path, "--metric", "accuracy", "--run", "step")
    assert one.code == 3
    assert "no run can be fitted" in one.err
    pl.concat(frames[:1]).write_parquet(path)
    assert "no exponent" in run("transition", path, "--metric", "accuracy").err
