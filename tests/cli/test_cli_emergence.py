"""`emergraph emergence`: every question in one command."""

import json

import numpy as np
import onnx
import pytest
from clifiles import DEMO
from onnx import numpy_helper

import emergraph


def test_full_says_everything_and_keeps_it(run, traced):
    model = DEMO / "digits_dense.onnx"
    arguments = ["--graph", "digits_dense", "--full", "--model", model, "--inputs", DEMO / "digits.npz"]
    few = ["--draws", 20, "--null-draws", 20, "--weight-draws", 3, "--thresholds", 11]
    ran = run("emergence", traced, *arguments, *few, "--format", "json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert set(found["nulls"]) == {
        "activity_in_layers", "activity_over_net", "weights_in_blocks", "rewired", "weight_noise",
    }  # fmt: skip
    assert found["nulls"]["activity_in_layers"]["activity"] == "shuffled"
    for kind in ("weights_in_blocks", "rewired", "weight_noise"):
        assert found["nulls"][kind]["activity"] == "measured again"
        assert found["nulls"][kind]["n_draws"] == 3
    alone = emergraph.open(traced).graph("digits_dense").emergence(save=False)
    assert found["count"]["counts"]["active"]["exact"] == alone.active.exact
    assert len(found["sweep"]["thresholds"]) <= 11
    interval = found["interval"]["ranges"]["any"]
    assert interval["spread_low"]["value"] <= interval["spread_high"]["value"]
    assert 0 < found["baselines"]["activity_sparsity"] < 1
    kept = emergraph.open(traced)
    nulls = kept.sql("SELECT * FROM emergence_nulls")
    assert nulls.height == 10
    for table in ("emergence", "emergence_thresholds", "emergence_intervals", "emergence_baselines"):
        assert kept.sql(f"SELECT count(DISTINCT run) AS n FROM {table}")["n"].item() == 1
    assert kept.sql("SELECT count(*) AS n FROM emergence_complexity")["n"].item() > 0
    printed = kept.sql("SELECT exact FROM emergence WHERE interior = 'printed'")["exact"].to_list()
    assert printed == [str(found["count"]["printed"]["exact"])]
    swept = kept.sql("SELECT count(*) AS n FROM emergence_thresholds GROUP BY interior")["n"]
    assert swept.to_list() == [len(found["sweep"]["thresholds"])] * 3


def test_every_table_of_a_chain_has_the_printed_count(run, traced):
    for arguments in ((), ("--full",)):
        ran = run("emergence", traced, "--graph", "digits_dense", "--no-save", *arguments)
        assert ran.code == 0, ran.err
        assert any(line.startswith("printed") for line in ran.out.splitlines()), arguments


def test_full_in_words(run, traced):
    ran = run("emergence", traced, "--graph", "digits_conv", "--full", "--rule", "any", "--no-save")
    assert ran.code == 0, ran.err
    for words in ("largest E, interior any", "baseline weight sparsity", "activity_over_net"):
        assert words in ran.out
    assert "weights_in_blocks" not in ran.out
    assert "spread" not in ran.out
    assert "no interval: rule any has no interval over samples" in ran.err
    ran = run("emergence", traced, "--graph", "digits_conv", "--full", "--no-save")
    assert "spread_low" in ran.out
    ran = run("emergence", traced, "--graph", "digits_conv", "--draws", 10, "--rule", "any", "--no-save")
    assert ran.code == 2
    assert "no larger maximum" in ran.err


def test_full_per_sample_leaves_null_models_out_and_says_so(run, traced):
    arguments = ["--full", "--rule", "per_sample", "--thresholds", "0.05,0.1", "--draws", 10, "--no-save"]
    ran = run("emergence", traced, "--graph", "digits_dense", *arguments)
    assert ran.code == 0, ran.err
    assert "rule per_sample has no one activity" in ran.err


@pytest.fixture
def pruned(traced, tmp_path):
    """The store with a pruned copy of the dense network."""
    model = onnx.load(DEMO / "digits_dense.onnx")
    for proto in model.graph.initializer:
        values = numpy_helper.to_array(proto)
        if values.ndim == 2:
            kept = np.where(np.abs(values) < np.quantile(np.abs(values), 0.9), 0, values).astype(values.dtype)
            proto.CopyFrom(numpy_helper.from_array(kept, proto.name))
    path = tmp_path / "pruned.onnx"
    onnx.save(model, path)
    graph = emergraph.export(path, traced, name="pruned")
    graph.trace(DEMO / "digits.npz", model=path)
    return traced


def test_weight_change_between_two_graphs(run, pruned):
    arguments = ["--graph", "pruned", "--rule", "weight_change", "--before", "digits_dense"]
    ran = run("emergence", pruned, *arguments, "--threshold", 0.1, "--format", "json")
    assert ran.code == 0, ran.err
    assert "L2 change" in json.loads(ran.out)["activity"]
    ran = run("emergence", pruned, *arguments, "--full", "--no-save")
    assert ran.code == 0, ran.err
    assert "no interval: rule weight_change" in ran.err
    ran = run("emergence", pruned, "--graph", "pruned", "--rule", "weight_change")
    assert (ran.code, "name the earlier graph" in ran.err) == (2, True)


def test_edge_form_counts_what_pruning_removed(run, pruned):
    counts = {}
    for reference in ("digits_dense", "full"):
        arguments = ["--graph", "pruned", "--reference", reference, "--format", "json", "--no-save"]
        ran = run("emergence", pruned, *arguments)
        assert ran.code == 0, ran.err
        counts[reference] = json.loads(ran.out)["counts"]["active"]["edge_form"]["value"]
    assert 0 < counts["digits_dense"] <= counts["full"]


def test_positions_beside_channels(run, traced):
    arguments = ["--graph", "digits_conv", "--positions", "--model", DEMO / "digits_conv.onnx"]
    ran = run("emergence", traced, *arguments, "--inputs", DEMO / "digits.npz", "--format", "json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    channels = emergraph.open(traced).graph("digits_conv").emergence(save=False)
    assert found["channels"]["counts"]["any"]["exact"] == channels.any.exact
    assert found["positions"]["counts"]["any"]["value"] > channels.any.exact
    assert emergraph.open(traced).sql("SELECT count(*) AS n FROM emergence_positions")["n"].item() >= 4
    ran = run("emergence", traced, "--positions")
    assert (ran.code, "give --model" in ran.err) == (2, True)


def test_options_that_do_not_go_together(run, traced):
    for arguments in (["--nulls", "rewired"], ["--full", "--nulls", "wind"], ["--full", "--inputs", "x.npz"]):
        ran = run("emergence", traced, *arguments)
        assert ran.code == 2, arguments
        assert len(ran.err.strip().splitlines()) == 1
