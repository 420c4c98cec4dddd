"""Trajectories: changes, lagged correlations and stopping rules, by hand and on a recorded training."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from clifiles import DEMO
from hypothesis import given, settings
from hypothesis import strategies as st

import emergraph
from emergraph.analysis.emergence.trajectory import (
    Trajectory,
    TrajectoryOptions,
    change,
    corrected,
    early_stop,
    lagged_correlations,
    near_zero,
    settled,
    stoppings,
    trailing_mean,
)
from emergraph.cli.main import main
from emergraph.errors import UsageError
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.exporters.traces.record import record_trace
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.store import open_store

curves = st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=12)


@given(curves, st.integers(1, 5))
@settings(max_examples=30)
def test_trailing_mean_is_the_mean_of_the_last_values(values, window):
    naive = [np.mean(values[max(0, k - window + 1) : k + 1]) for k in range(len(values))]
    np.testing.assert_allclose(trailing_mean(values, window), naive, atol=1e-12)
    np.testing.assert_allclose(change(values), np.diff(values), atol=1e-12)


@given(curves, st.integers(1, 4), st.floats(0, 0.2))
@settings(max_examples=50)
def test_early_stopping_waits_for_patience_steps_without_improvement(values, patience, min_delta):
    best, since, expected = values[0], 0, None
    for k, value in enumerate(values[1:], start=1):
        if value > best + min_delta:
            best, since = value, 0
        else:
            since += 1
        if since == patience:
            expected = k
            break
    assert early_stop(values, patience=patience, min_delta=min_delta) == expected


def test_rules_on_emergence_by_hand():
    assert settled([8, 4, 4, 4], patience=2, tolerance=0) == 3
    assert settled([8, 4, 2, 1], patience=1, tolerance=0.1) is None
    assert near_zero([8, 4, 0, 0], patience=2, share=0.1) == 3
    assert near_zero([0, 0, 5, 0, 0], patience=2, share=0.1) == 4
    found = stoppings("E", [8, 4, 4, 0], [0.5, 0.6, 0.8, 0.9], [0, 10, 20, 30], TrajectoryOptions(patience=1))
    rules = {s.rule: s for s in found}
    assert (rules["settled"].step, rules["settled"].saved) == (20, 1)
    assert rules["settled"].loss == pytest.approx(0.1)
    assert rules["settled"].ordinary_step is None
    assert (rules["near_zero"].step, rules["near_zero"].saved, rules["near_zero"].loss) == (30, 0, 0.0)


def test_a_metric_to_be_small_is_turned_round():
    options = TrajectoryOptions(patience=1, higher_is_better=False)
    (first, _) = stoppings("E", [8, 8, 4, 4], [1.0, 0.5, 0.4, 0.6], [0, 1, 2, 3], options)
    assert (first.step, first.ordinary_step, first.saved) == (1, 3, 2)
    assert first.loss == pytest.approx(0.1)


def test_a_run_that_starts_at_zero_has_not_finished():
    assert near_zero([0, 0, 0, 0], patience=2, share=0.01) is None
    assert settled([0, 0, 0, 0], patience=2, tolerance=0.01) is None
    assert near_zero([0, 0, 8, 8], patience=2, share=0.01) is None
    assert settled([0, 0, 0, 8, 8, 8], patience=2, tolerance=0.01) == 5
    assert settled([8, 0, 0, 0], patience=2, tolerance=0.01) == 3


def test_correlations_find_the_lag_and_see_through_a_common_trend():
    rng = np.random.default_rng(0)
    push = rng.random(60)
    metric = np.concatenate(([0.0, 0.0], np.cumsum(push[:-2])))  # the change at t + 1 is push[t]
    options = TrajectoryOptions(n_permutations=999, max_lag=2)
    found = {(c.smoothed, c.lag): c for c in lagged_correlations("E", [push], [metric], options)}
    assert found[False, 1].rho.mean == pytest.approx(1.0)
    assert found[False, 1].test.p == pytest.approx(0.001)
    assert abs(found[False, 0].rho.mean) < 0.5
    decay = np.exp(-np.arange(60) / 8)
    noisy = decay + rng.normal(0, 0.01, 60)
    gained = 1 - decay + rng.normal(0, 0.001, 60)
    trend = {(c.smoothed, c.lag): c for c in lagged_correlations("E", [noisy], [gained], options)}
    assert trend[False, 0].rho.mean > 0.5
    assert trend[False, 0].test.p is None
    assert "the change" in trend[False, 0].test.how or "E:" in trend[False, 0].test.how
    assert abs(trend[False, 0].given_step.mean) < abs(trend[False, 0].rho.mean)


def test_six_runs_have_a_p_value_and_five_an_effect():
    rng = np.random.default_rng(1)
    own = 0.2 * rng.standard_normal((6, 12))
    common = np.exp(-np.arange(12) / 4)
    metric = np.concatenate([np.zeros((6, 1)), np.cumsum(common + own, axis=1)], axis=1)
    noisy = common + own + 0.03 * rng.standard_normal((6, 12))
    emergence = np.concatenate([noisy, np.zeros((6, 1))], axis=1)
    options = TrajectoryOptions(metric="accuracy", max_lag=0)
    six = corrected(lagged_correlations("E", emergence, metric, options))
    assert six[0].test.p == pytest.approx(1 / 720)
    assert six[0].p_holm == pytest.approx(2 / 720)  # raw and smoothed
    assert 0 < six[0].rho.low < six[0].rho.mean < six[0].rho.high < 1
    five = lagged_correlations("E", emergence[:5], metric[:5], options)
    assert five[0].test.p is None
    assert five[0].rho.mean > 0.8
    frame = pl.DataFrame({"training": [f"run{k}" for k in range(6)]})
    shared = {"frame": frame, "stoppings": (), "activity": "", "options": options}
    assert Trajectory(correlations=six, **shared).verdict.startswith("E goes with the change in accuracy")
    assert Trajectory(correlations=corrected(five), **shared).verdict.startswith("undecided: 6 run(s)")


def test_too_short_a_run_has_no_correlations():
    short = [np.arange(4.0)]
    assert lagged_correlations("E", short, short, TrajectoryOptions()) == []
    with pytest.raises(UsageError):
        TrajectoryOptions(patience=0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Eight snapshots of a small network that learns which half of its inputs is larger."""
    path = tmp_path_factory.mktemp("recorded") / "run.duckdb"
    record_run(path, 0, name="mlp")
    return path


def record_run(path, seed, name=None):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(64, 6, generator=generator)
    y = (x[:, :3].sum(dim=1) > x[:, 3:].sum(dim=1)).long()
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    with emergraph.record(module, path, inputs=x, name=name or f"mlp{seed}") as recorder:
        for step in range(8):
            accuracy = float((module(x).argmax(dim=1) == y).float().mean())
            recorder.step(step * 10, accuracy=accuracy)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(module(x), y).backward()
            optimiser.step()


def test_every_step_is_counted_as_emergence_counts_it(recorded):
    store = emergraph.open(recorded)
    result = store.trajectory(graphs=["mlp-*"], threshold=0.2)
    assert result.frame["step"].to_list() == [10 * k for k in range(8)]
    names = store.graphs.sort("step")["name"].to_list()
    counted = [store.graph(n).emergence(threshold=0.2, save=False).any.emergence.value for n in names]
    assert result.frame["emergence_any"].to_list() == counted
    accuracy = result.frame["metric_accuracy"].to_numpy()
    np.testing.assert_allclose(result.frame["change_raw"].to_numpy()[:-1], np.diff(accuracy), atol=1e-12)
    kept = store.sql("SELECT * FROM trajectory_steps WHERE interior = 'any' ORDER BY step")
    assert kept["emergence"].to_list() == counted
    assert store.sql("SELECT count(*) AS n FROM trajectory_stoppings")["n"].item() == 4


def test_weight_change_follows_the_snapshot_before(recorded):
    store = emergraph.open(recorded)
    result = store.trajectory(rule="weight_change", threshold=0.01, save=False)
    assert result.frame["emergence_any"][0] is None
    names = store.graphs.sort("step")["name"].to_list()
    pair = store.graph(names[2]).emergence(rule="weight_change", before=names[1], threshold=0.01, save=False)
    assert result.frame["emergence_any"][2] == pair.any.emergence.value


def test_command(recorded, capfd):
    assert main(["trajectory", str(recorded), "--format", "json", "--no-save", "--permutations", "99"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert len(found["steps"]) == 8
    assert {s["rule"] for s in found["stoppings"]} == {"settled", "near_zero"}
    assert main(["trajectory", str(recorded), "--no-save", "--metric", "acuracy"]) == 2
    assert "unknown metric 'acuracy'; available: accuracy" in capfd.readouterr().err
    assert main(["trajectory", str(recorded), "--no-save", "--graphs", "mlp-0"]) == 2
    assert main(["trajectory", str(recorded), "--no-save"]) == 0
    out = capfd.readouterr().out
    assert "stop when settled, emergence_active" in out
    assert "Undecided: 1 run(s) show an effect and no p value" in out
    assert all(c["p"] is None and "fewer than 40" in c["test"] for c in found["correlations"])


def test_several_runs_of_a_store_are_told_apart_by_name(recorded, tmp_path, capfd):
    store = tmp_path / "runs.duckdb"
    for seed in range(6):
        record_run(store, seed)
    assert main(["trajectory", str(store), "--format", "json", "--max-lag", "0"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["runs"] == [f"mlp{seed}" for seed in range(6)]
    assert all(c["test"] == "all 720 pairings of 6 runs" for c in found["correlations"] if c["p"] is not None)
    assert any(c["p"] is not None for c in found["correlations"])
    assert {s["training"] for s in found["stoppings"]} == set(found["runs"])
    assert main(["trajectory", str(store), "--graphs", "mlp0-*,mlp1-*", "--no-save"]) == 0
    assert "2 run(s) show an effect" in capfd.readouterr().out


def snapshots(path, *, recordings=1, **metrics):
    """Four snapshots of a small network for each recording, all of one name, as the recorder calls them."""
    with open_store(path, mode="create") as store:
        for _ in range(recordings):
            parent = None
            for step in range(4):
                options = ExportOptions(name=f"mlp-{step}", step=step, parent=parent, force=True)
                graph = export_onnx(DEMO / "digits_dense.onnx", store, options=options).graph
                parent = graph if parent is None else parent
                store.write_metrics(graph, {name: value / (1 + step) for name, value in metrics.items()})
                record_trace(store, graph, DEMO / "digits_dense.onnx", RandomInputs(3, step))
    return path


def test_the_metric_is_the_one_that_was_recorded(tmp_path, capfd):
    one = snapshots(tmp_path / "one.duckdb", val_loss=1.0)
    assert main(["trajectory", str(one)]) == 0
    assert "val_loss, smaller is better" in capfd.readouterr().out
    with open_store(one) as store:
        kept = json.loads(store.runs()["parameters"][-1])
    assert (kept["metric"], kept["higher_is_better"]) == ("val_loss", False)
    several = snapshots(tmp_path / "several.duckdb", val_loss=1.0, f1=0.5)
    assert main(["trajectory", str(several)]) == 2
    assert "which metric? recorded: f1, val_loss; name one with --metric" in capfd.readouterr().err
    assert main(["trajectory", str(several), "--metric", "f1", "--no-save"]) == 0
    assert "f1, larger is better" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("recorded", "metric", "larger"),
    [
        (("accuracy", "loss"), "accuracy", True),
        (("loss",), "loss", False),
        (("f1",), "f1", True),
        ((), None, True),
    ],
)
def test_what_is_meant_where_no_metric_is_named(recorded, metric, larger):
    chosen = TrajectoryOptions().about(recorded)
    assert (chosen.metric, chosen.larger_is_better) == (metric, larger)
    assert TrajectoryOptions(higher_is_better=not larger).about(recorded).larger_is_better is not larger


def test_a_second_recording_of_a_name_is_another_run(tmp_path, capfd):
    store = snapshots(tmp_path / "two.duckdb", recordings=2, loss=1.0)
    names = emergraph.open(store).graphs["name"].to_list()
    assert names[4:] == [f"mlp-{step}-2" for step in range(4)]
    assert main(["trajectory", str(store), "--format", "json", "--max-lag", "0"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["runs"] == ["mlp", "mlp (2)"]
    assert [step["training"] for step in found["steps"]] == ["mlp"] * 4 + ["mlp (2)"] * 4
    assert main(["trajectory", str(store), "--graphs", "mlp-0,mlp-1,mlp-*-2", "--no-save"]) == 2
    assert "at least 3 snapshots of each run, and run 'mlp' has 2: choose" in capfd.readouterr().err
