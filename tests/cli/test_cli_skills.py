"""`emergraph skills`."""

import json

import numpy as np
import polars as pl
import pytest

from emergraph.analysis.skills.closedforms import multilinear_strength, skill_frequencies
from emergraph.cli.main import main
from emergraph.graphstore.store import open_store


def test_predictions(capsys):
    words = ["skills", "predict", "--skills", "2", "--target", "1", "--rate", "1", "--times", "3"]
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [law["axis"] for law in found["laws"]] == ["time", "data", "parameters", "compute"]
    assert found["skills"][0]["skill"] == 1
    assert main(words) == 0
    assert "loss against compute" in capsys.readouterr().out
    assert main(["skills", "predict", "--times", "soon"]) == 2
    assert main(["skills", "predict", "--start", "7"]) == 2


def test_fits(tmp_path, capsys):
    p, x = skill_frequencies(3, 0.6), np.linspace(0, 60, 30)
    rows = [
        {"skill": k, "step": float(t), "strength": float(multilinear_strength(t, p[k - 1]))}
        for k in (1, 2, 3)
        for t in x
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "curves.csv")
    words = ["skills", "fit", str(tmp_path / "curves.csv"), "--alpha", "0.6"]
    assert main([*words, "--store", str(tmp_path / "net.duckdb")]) == 0
    shown = capsys.readouterr().out
    assert "skills 2 to 3" in shown
    assert "multilinear" in shown
    with open_store(tmp_path / "net.duckdb") as opened:
        assert opened.results("skills_families").height == 6
    assert main(["skills", "fit", str(tmp_path / "curves.csv"), "--axis", "money"]) == 2
    assert "time, data, parameters" in capsys.readouterr().err


def test_simulations(tmp_path, capsys):
    pytest.importorskip("torch")
    words = ["skills", "simulate", "--skills", "2", "--bits", "6", "--relevant", "2", "--width", "8"]
    words += ["--batch", "20", "--steps", "10", "--points", "2"]
    assert main([*words, "--out", str(tmp_path / "curves.csv")]) == 0
    frame = pl.read_csv(tmp_path / "curves.csv")
    assert frame.columns == ["run", "step", "skill", "frequency", "strength", "accuracy", "loss"]
    assert frame["step"].unique().sort().to_list() == [0, 5, 10]
    assert main([*words, "--snapshots", "2"]) == 2
    assert "--store" in capsys.readouterr().err
