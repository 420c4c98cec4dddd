"""The sweep equals single counts at every threshold; its summaries have closed forms."""

import json

import numpy as np
import pytest

from emergraph.analysis.activity.scores import ActivityRule, ActivityScores, trace_scores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.thresholds import default_thresholds, threshold_sweep
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind


def scores_of(values):
    return ActivityScores(values=np.asarray(values, dtype=float), rule=ActivityRule.MEAN, text="mean > {t}")


@pytest.mark.parametrize(
    ("values", "known"),
    [([], []), ([1, np.nan], [True, False]), ([[1, 2], [np.nan, 1]], [True, False]), (np.zeros((0, 3)), [])],
)
def test_scores_are_known_unit_by_unit(values, known):
    assert scores_of(values).known.tolist() == known


def masked(small, seed=0, n=40):
    rng = np.random.default_rng(seed)
    sizes = [n // 4] * 4
    shape = small(sizes, [])
    edges = [
        (a, b, int(rng.integers(1, 5)), EdgeKind.WEIGHT)
        for a in range(n)
        for b in range(n)
        if 0 < shape.layer(b) - shape.layer(a) <= 2 and rng.random() < 0.4
    ]
    return small(sizes, edges, {3, 17}).graph()


@pytest.mark.parametrize("paths", ["units", "weights"])
@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["one pass", "a pass per threshold"])
def test_sweep_equals_single_counts_on_a_masked_net(small, paths, memory):
    graph = masked(small)
    values = np.random.default_rng(1).standard_normal(graph.n_units)
    values[[5, 20]] = np.nan
    scores = scores_of(values)
    options = EmergenceOptions(paths=paths)
    grid = [0.3, -0.5, 0.0, 9.0]
    sweep = threshold_sweep(graph, scores, grid, options=options, memory=memory)
    assert sweep.frame["threshold"].to_list() == sorted(grid)
    for row in sweep.frame.iter_rows(named=True):
        single = path_count_emergence(graph, scores.above(row["threshold"]), options=options)
        assert row["n_active"] == single.n_active
        for interior in ("active", "any"):
            assert row[f"emergence_{interior}"] == single.count(interior).exact
    assert sweep.frame["log10_any"][-1] is None


@pytest.mark.parametrize("unmeasured", ["transparent", "inactive", "active"])
@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["at once", "one by one"])
def test_sweep_equals_single_counts_on_a_dense_net(unmeasured, memory):
    graph = dense_net([12, 7, 9, 4])
    rng = np.random.default_rng(2)
    values = rng.choice([0.0, 0.1, 0.2, 0.3, np.nan], size=graph.n_units)
    options = EmergenceOptions(unmeasured=unmeasured)
    sweep = threshold_sweep(graph, scores_of(values), "all", options=options, memory=memory)
    assert sweep.frame["threshold"].to_list() == [0.0, 0.1, 0.2, 0.3]
    for row in sweep.frame.iter_rows(named=True):
        single = path_count_emergence(graph, scores_of(values).above(row["threshold"]), options=options)
        assert row["n_active"] == single.n_active
        for interior in ("active", "any"):
            assert row[f"emergence_{interior}"] == single.count(interior).exact


def test_per_sample_sweep_is_the_mean_over_samples(small):
    graph = masked(small, seed=4)
    samples = np.random.default_rng(3).standard_normal((5, graph.n_units))
    scores = trace_scores("per_sample", UnitTrace.from_samples(samples))
    sweep = threshold_sweep(graph, scores, [0.0, 0.4])
    for row in sweep.frame.iter_rows(named=True):
        singles = [path_count_emergence(graph, s > row["threshold"]) for s in samples]
        assert row["emergence_any"] == pytest.approx(np.mean([r.any.exact for r in singles]))
        assert row["n_active"] == pytest.approx(np.mean([r.n_active for r in singles]))


def test_area_and_half_range_of_a_step():
    # Two layers of one unit: E = 1 while the first is inactive and the second active, for t in [0.2, 0.7).
    sweep = threshold_sweep(dense_net([1, 1]), scores_of([0.2, 0.7]), "all")
    summary = sweep.summary("active")
    assert sweep.area_rule == "steps"
    assert summary.maximum.value == 1.0
    assert summary.threshold_at_maximum == 0.2
    assert summary.area.value == pytest.approx(0.5)
    assert summary.area.log10 == pytest.approx(np.log10(0.5))
    assert (summary.half_low, summary.half_high, summary.half_contiguous) == (0.2, 0.7, True)


def test_trapezoid_on_a_grid():
    sweep = threshold_sweep(dense_net([1, 1]), scores_of([0.2, 0.7]), [0.0, 0.25, 0.5, 0.75])
    summary = sweep.summary("any")
    assert sweep.area_rule == "trapezoid"
    assert summary.area.value == pytest.approx(0.25 * 2)
    assert (summary.half_low, summary.half_high) == (0.25, 0.5)


def test_two_humps_are_not_contiguous():
    # E = inactive inputs x active outputs: 1 input falls silent, then 3 outputs, then 3 inputs, then the
    # rest.
    values = [1.0, 5.0, 6.0, 7.0, 2.0, 3.0, 4.0, 8.0]
    sweep = threshold_sweep(dense_net([4, 4]), scores_of(values), "all")
    assert sweep.frame["emergence_active"].to_list() == [4, 3, 2, 1, 2, 3, 4, 0]
    summary = sweep.summary("active")
    assert (summary.half_low, summary.half_high) == (1.0, 8.0)
    assert not summary.half_contiguous


def test_nothing_anywhere_has_no_range():
    sweep = threshold_sweep(dense_net([2, 2]), scores_of([1, 1, 1, 1]), [5.0, 6.0])
    summary = sweep.summary("active")
    assert summary.maximum.value == 0
    assert summary.half_low is None
    assert summary.half_high is None
    assert summary.area.value == 0
    json.dumps(sweep.to_dict(), allow_nan=False)


def test_sweeps_beyond_float64():
    sizes = [500] * 150
    values = np.random.default_rng(0).random(sum(sizes))
    sweep = threshold_sweep(dense_net(sizes), scores_of(values), np.linspace(0.1, 0.9, 9))
    for row in sweep.frame.iter_rows(named=True):
        single = path_count_emergence(dense_net(sizes), values > row["threshold"])
        assert row["log10_any"] == pytest.approx(single.any.emergence.log10, rel=1e-12)
    summary = sweep.summary("any")
    assert summary.maximum.log10 == pytest.approx(max(sweep.frame["log10_any"]), rel=1e-12)
    relative = 10 ** (sweep.frame["log10_any"].to_numpy() - summary.maximum.log10)
    area = np.sum((relative[1:] + relative[:-1]) / 2 * 0.1)
    assert summary.area.log10 == pytest.approx(summary.maximum.log10 + np.log10(area), rel=1e-12)
    json.dumps(sweep.to_dict(), allow_nan=False)


def test_default_grid_follows_the_scores():
    assert default_thresholds(scores_of([0.0, 1.0, np.nan, 10.0]), n=3).tolist() == [0.0, 1.0, 10.0]
    assert default_thresholds(scores_of([2.0, 2.0, 3.0]), n=50).tolist() == [2.0, 3.0]
    with pytest.raises(UsageError, match="0 scores"):
        default_thresholds(scores_of([np.nan]))


@pytest.mark.parametrize("thresholds", [[], [np.nan], [np.inf]], ids=str)
def test_bad_thresholds_are_refused(thresholds):
    with pytest.raises(UsageError, match="finite"):
        threshold_sweep(dense_net([1, 1]), scores_of([0, 1]), thresholds)
