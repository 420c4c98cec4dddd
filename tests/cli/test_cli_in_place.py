"""Edges in place on the command line: exports, analyses with and without the model, plans."""

import json
from itertools import pairwise

import pytest
from inplacemodels import export_twice, mlp, residual_onnx, write_safetensors, write_shards

from emergraph.cli.main import main

SIZES = (20, 30, 10, 5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return write_safetensors(folder / "model.safetensors", mlp(SIZES)), folder


@pytest.fixture(scope="module")
def stores(files):
    model, folder = files
    found = []
    for edges in ("stored", "in-place"):
        store = folder / f"{edges}.duckdb"
        words = ["export", str(model), str(store), "--wire", "sequential", "--edges", edges, "-q"]
        assert main([*words, "--format", "json", "--out", str(folder / "export.json")]) == 0
        found.append(store)
    return found


def answer(words, folder):
    out = folder / "answer.json"
    assert main([*words, "--format", "json", "--out", str(out), "-q"]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    "words",
    [
        ["percolate"],
        ["topology"],
        ["prune"],
        ["prune", "--unit", "unit"],
        ["prune", "--criterion", "synflow"],
    ],
)
def test_analyses_answer_alike_for_edges_in_place(files, stores, words):
    model, folder = files
    command, *options = words
    stored, in_place = stores
    ours = answer([command, str(stored), *options, "--no-save"], folder)
    theirs = answer([command, str(in_place), *options, "--no-save", "--model", str(model)], folder)
    assert rounded(ours) == rounded(theirs)


def rounded(found):
    """Sums in another order have another last digit."""
    if isinstance(found, dict):
        return {key: rounded(one) for key, one in found.items()}
    if isinstance(found, list):
        return list(map(rounded, found))
    return float(f"{found:.13g}") if isinstance(found, float) else found


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """An ONNX model and two stores with the same activations."""
    folder = tmp_path_factory.mktemp("traced")
    model = residual_onnx(folder / "model.onnx", width=30)
    stores = export_twice(model, folder)
    for store in stores:
        words = ["trace", str(store), "--model", str(model), "--random", "20", "--seed", "3", "-q"]
        assert main([*words, "--out", str(folder / "trace.json")]) == 0
    return model, folder, *stores


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--threshold", "0.3"],
        ["--thresholds", "0.01,0.1,0.5"],
        ["--rule", "any", "--paths", "weights"],
        ["--endpoints", "all"],
        ["--reference", "full"],
        ["--rule", "per_sample", "--draws", "20"],
        ["--rule", "contribution"],
    ],
)
def test_emergence_is_the_same_to_the_last_digit(traced, options):
    model, folder, stored, in_place = traced
    words = ["--no-save", *options]
    ours = answer(["emergence", str(stored), *words], folder)
    theirs = answer(["emergence", str(in_place), *words, "--model", str(model)], folder)
    assert ours == theirs


def test_emergence_of_edges_in_place_needs_the_model_and_that_of_others_does_not(traced, capfd):
    model, _, stored, in_place = traced
    assert main(["emergence", str(in_place), "--no-save"]) == 2
    assert "add --model FILE" in capfd.readouterr().err
    assert main(["emergence", str(stored), "--no-save", "--model", str(model)]) == 2
    assert "add --full" in capfd.readouterr().err


def test_what_needs_weights_names_the_option_that_gives_them(stores, capfd):
    _, in_place = stores
    for words in (["percolate", str(in_place)], ["convert", str(in_place), "--to", "parquet"]):
        assert main(words) == 2
        assert "add --model FILE" in capfd.readouterr().err


def test_what_needs_no_weights_asks_for_no_model(stores, tmp_path):
    _, in_place = stores
    for words in (["info"], ["ls"], ["sql", "--recipe", "hubs"], ["sql", "--recipe", "dead-units"]):
        command, *options = words
        assert main([command, str(in_place), *options, "--out", str(tmp_path / "out.json"), "-q"]) == 0
    assert main(["diff", *map(str, stores), "--out", str(tmp_path / "diff.json"), "-q"]) == 0


def test_a_resharded_folder_will_do_and_verify_needs_a_model(files, stores, tmp_path, capfd):
    _, folder = files
    stored, in_place = stores
    shards = write_shards(tmp_path / "shards", mlp(SIZES), 3)
    words = ["percolate", "--no-save"]
    theirs = answer([*words, str(in_place), "--model", str(shards), "--verify"], folder)
    assert theirs == answer([*words, str(stored)], folder)
    assert main(["percolate", str(in_place), "--verify"]) == 2
    assert "--verify checks the tensors of a model" in capfd.readouterr().err


@pytest.mark.parametrize("edges", ["stored", "in-place"])
def test_a_dry_run_says_what_an_export_would_take(files, tmp_path, edges):
    model, _ = files
    words = ["export", str(model), str(tmp_path / "x.duckdb"), "--wire", "sequential", "--edges", edges]
    found = answer([*words, "--dry-run"], tmp_path)
    n_edges = found["trace"]["n_edges"]
    assert found["to_write"]["rows"] == (n_edges if edges == "stored" else 0)
    assert found["to_write"]["weights"] == (0 if edges == "stored" else n_edges)
    assert found["plan"]["seconds_to_export"] >= found["seconds"] - 0.1
    assert found["plan"]["free_on_disk"] > 0
    assert not (tmp_path / "x.duckdb").exists()


def test_a_dry_run_of_emergence_says_what_would_be_read(stores, tmp_path):
    n_edges = sum(int((values != 0).sum()) for name, values in mlp(SIZES).items() if "weight" in name)
    ours, theirs = (answer(["emergence", str(one), "--dry-run"], tmp_path) for one in stores)
    assert (ours["edges"], ours["rows"], ours["in_file"]) == (n_edges, n_edges, 0)
    cells = sum(a * b for a, b in pairwise(SIZES))
    assert (theirs["edges"], theirs["rows"], theirs["in_file"]) == (n_edges, 0, cells)
    assert min(ours["memory"], theirs["memory"]) > 0


def test_topology_without_the_model_has_degrees_and_strengths(files, stores):
    model, folder = files
    _, in_place = stores
    words = ["topology", str(in_place), "--no-save", "--view", "units"]
    whole = answer([*words, "--model", str(model)], folder)
    sums = answer(words, folder)
    assert any("add --model FILE" in note for note in sums["notes"])
    for one, other in zip(whole["units"], sums["units"], strict=True):
        assert (one["in_degree"], one["out_degree"]) == (other["in_degree"], other["out_degree"])
        for name in ("in_strength", "out_strength", "in_abs", "out_abs", "strength_with_bias"):
            assert one[name] == pytest.approx(other[name], abs=1e-9)
        assert other["community"] is None
    for one, other in zip(whole["layers"], sums["layers"], strict=True):
        for name in ("sources", "targets", "pagerank", "strength_mean", "fluctuation"):
            assert one[name] == pytest.approx(other[name], abs=1e-9)
