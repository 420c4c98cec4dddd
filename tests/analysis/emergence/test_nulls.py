"""Null models: exact distributions on tiny nets, degenerate nulls, and the activity hook."""

import itertools
import json

import numpy as np
import pytest

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.emergence.nulls import LARGEST_COUNT, NullKind, compare, null_model
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.options import Interior
from emergraph.analysis.paths.scaled import Scaled
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind

WEIGHT = EdgeKind.WEIGHT


def star(small):
    """Inputs 0, 1; hidden 2, 3, 4; output 5. Unit 2 alone leads on."""
    edges = [(0, 2), (1, 2), (1, 3), (1, 4), (2, 5)]
    return small([2, 3, 1], [(a, b, 1, WEIGHT) for a, b in edges])


def test_shuffles_within_layers_follow_the_exact_distribution(small):
    graph = star(small).graph()
    active = np.array([0, 0, 1, 0, 0, 1], dtype=bool)
    by_arrangement = {}
    for on in (2, 3, 4):
        moved = np.array([False, False, on == 2, on == 3, on == 4, True])
        by_arrangement[on] = path_count_emergence(graph, moved).active.exact
    result = null_model(graph, Activity.given(active), "activity_in_layers", n_draws=600, seed=5)
    drawn = [round(10**x) for x in result.draws["log10_active"]]
    values, counts = np.unique(drawn, return_counts=True)
    expected_values, expected = np.unique(list(by_arrangement.values()), return_counts=True)
    assert values.tolist() == expected_values.tolist()
    np.testing.assert_allclose(counts / 600, expected / 3, atol=0.08)
    comparison = result.comparison("active")
    assert comparison.observed.value == by_arrangement[2]
    assert comparison.p_greater == (1 + sum(d >= by_arrangement[2] for d in drawn)) / 601
    assert comparison.p_less == (1 + sum(d <= by_arrangement[2] for d in drawn)) / 601
    assert comparison.z == pytest.approx((by_arrangement[2] - np.mean(drawn)) / np.std(drawn, ddof=1))
    assert comparison.mean.value == pytest.approx(np.mean(drawn))
    assert result.activity == "shuffled"
    json.dumps(result.to_dict(), allow_nan=False)


def test_shuffles_over_the_net_reach_every_arrangement(small):
    graph = star(small).graph()
    active = np.array([0, 0, 1, 0, 0, 1], dtype=bool)
    possible = set()
    for pair in itertools.combinations(range(6), 2):
        moved = np.isin(np.arange(6), pair)
        possible.add(path_count_emergence(graph, moved).any.exact)
    result = null_model(graph, Activity.given(active), NullKind.ACTIVITY_OVER_NET, n_draws=400, seed=0)
    drawn = {0 if x is None else round(10**x) for x in result.draws["log10_any"]}
    assert drawn == possible


def test_shuffles_leave_transparent_units_alone(small):
    case = star(small)
    case.structural = {3}
    known = np.ones(6, dtype=bool)
    known[4] = False
    active = np.array([0, 0, 1, 0, 0, 1], dtype=bool)
    result = null_model(case.graph(), Activity.given(active, known), "activity_in_layers", n_draws=20)
    # Of the hidden layer only unit 2 counts: nothing can move.
    assert result.comparison("active").degenerate


@pytest.mark.parametrize("kind", ["activity_in_layers", "weights_in_blocks", "rewired"])
def test_dense_nets_have_degenerate_nulls(kind):
    net = dense_net([4, 3, 2])
    active = np.array([0, 0, 1, 1, 0, 1, 1, 0, 1], dtype=bool)
    result = null_model(net, Activity.given(active), kind, n_draws=10)
    for interior in ("active", "any"):
        comparison = result.comparison(interior)
        assert comparison.degenerate
        assert comparison.z is None
        assert comparison.sd == 0.0
        assert comparison.p_two_sided == 1.0
    assert result.activity == ("shuffled" if kind == "activity_in_layers" else "held fixed")


def test_rewiring_a_masked_net_changes_the_count(small):
    rng = np.random.default_rng(0)
    edges = [(a, b, 1, WEIGHT) for a in range(12) for b in range(12, 24) if rng.random() < 0.3]
    edges += [(a, b, 1, WEIGHT) for a in range(12, 24) for b in range(24, 36) if rng.random() < 0.3]
    graph = small([12, 12, 12], edges).graph()
    active = rng.random(36) < 0.5
    results = [
        null_model(graph, Activity.given(active), "rewired", n_draws=30, seed=seed) for seed in (1, 1, 2)
    ]
    assert results[0].draws.equals(results[1].draws)
    assert not results[0].draws.equals(results[2].draws)
    comparison = results[0].comparison("any")
    assert not comparison.degenerate
    assert comparison.sd > 0


def test_the_hook_measures_activity_of_every_draw(small):
    graph = star(small).graph()
    observed = Activity.given(np.array([0, 0, 1, 0, 0, 1], dtype=bool))
    seen = []

    def measure(drawn):
        seen.append(drawn)
        assert sum(len(edges["weight"]) for _, edges in drawn.graph.iter_edges(columns=("weight",))) == 5
        return Activity.given(np.arange(6) == drawn.draw % 6)

    result = null_model(graph, observed, "weight_noise", n_draws=6, noise=0.1, measure_activity=measure)
    assert [d.draw for d in seen] == list(range(6))
    assert {d.noise for d in seen} == {0.1}
    assert result.activity == "measured again"
    expected = [path_count_emergence(graph, np.arange(6) == d).any.exact for d in range(6)]
    assert [0 if x is None else round(10**x) for x in result.draws["log10_any"]] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "weight_noise", "noise": 0.1}, "measured again"),
        ({"kind": "weight_noise", "measure_activity": lambda _: None}, "size above 0"),
        ({"kind": "rewired", "noise": 0.1}, "no noise size"),
        ({"kind": "nothing"}, "available: activity_in_layers"),
        ({"kind": "rewired", "n_draws": 1}, "at least 2 draws"),
    ],
    ids=lambda x: str(x) if isinstance(x, str) else "",
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(UsageError, match=message):
        null_model(dense_net([2, 1]), Activity.given(np.zeros(3, dtype=bool)), **options)


def test_per_sample_activity_is_refused():
    with pytest.raises(UsageError, match="per_sample"):
        null_model(dense_net([2, 1]), Activity.given(np.zeros((3, 4), dtype=bool)), "activity_in_layers")


def test_comparison_beyond_float64_is_on_logarithms():
    drawn = Scaled(np.array([2.0, 4.0, 8.0]), np.array([3, 3, 3], dtype=np.int32))
    observed = Scaled(np.array([4.0]), np.array([3], dtype=np.int32))
    comparison = compare(Interior.ANY, observed, drawn)
    assert comparison.scale == "log10"
    assert comparison.sd == pytest.approx(np.log10(2))
    assert comparison.z == pytest.approx(0.0, abs=1e-9)
    assert comparison.p_greater == 0.75
    equal = compare(Interior.ANY, observed, Scaled(np.full(3, 4.0), np.full(3, 3, dtype=np.int32)))
    assert equal.degenerate


@pytest.mark.parametrize(("largest", "scale"), [(0.99 * LARGEST_COUNT, "count"), (LARGEST_COUNT, "log10")])
def test_counts_whose_variance_is_beyond_float64_are_compared_by_their_logarithms(largest, scale):
    comparison = compare(Interior.ANY, Scaled(np.array([largest / 2])), Scaled(np.array([1.0, largest])))
    assert comparison.scale == scale
    assert np.isfinite(comparison.sd)


def test_nothing_observed_and_nothing_drawn():
    comparison = compare(Interior.ANY, Scaled.zeros(1), Scaled.zeros(5))
    assert comparison.degenerate
    assert comparison.p_greater == 1.0
    assert comparison.mean.value == 0.0
