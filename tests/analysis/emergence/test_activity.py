"""Activity rules on small traces whose answers can be read off."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph.analysis.activity.rules import activity, activity_scores
from emergraph.analysis.activity.scores import Activity, ActivityRule, majority_value, trace_scores
from emergraph.analysis.activity.unittrace import PositionPooling, UnitTrace
from emergraph.analysis.emergence.intervals import bootstrap_emergence
from emergraph.analysis.layerednets import dense_net
from emergraph.errors import InvalidInputError, UsageError

SAMPLES = np.array(
    [
        [0.0, 0.3, -1.0, 0.06, np.nan],
        [0.0, 0.0, -1.0, 0.06, np.nan],
        [0.1, 0.0, -1.0, 0.06, np.nan],
        [0.0, 0.0, 3.0, 0.0, np.nan],
    ]
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", [0, 1, 0, 0]),
        ("mean_abs", [0, 1, 1, 0]),
        ("any", [1, 1, 1, 1]),
        ("majority", [0, 0, 0, 1]),
    ],
)
def test_rules_on_a_small_trace(rule, expected):
    result = activity(rule, dense_net([4, 1]), trace=UnitTrace.from_samples(SAMPLES))
    assert result.active[:4].astype(int).tolist() == expected
    assert result.known.tolist() == [True] * 4 + [False]
    assert not result.active[4]
    assert result.threshold == 0.05
    assert "0.05" in result.text


def test_per_sample_has_one_activity_for_each_sample():
    result = activity("per_sample", dense_net([4, 1]), trace=UnitTrace.from_samples(SAMPLES))
    assert result.active.shape == (5, 4)
    assert result.active[1].tolist() == [True, False, False, False]
    assert result.known.tolist() == [True] * 4 + [False]


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=7), threshold=st.floats(-1, 1))
def test_majority_is_more_than_half_of_the_samples(values, threshold):
    more_than_half = sum(v > threshold for v in values) > len(values) / 2
    assert (majority_value(np.array(values)[:, None])[0] > threshold) == more_than_half


def test_a_value_at_the_threshold_is_inactive():
    trace = UnitTrace.from_samples(np.array([[0.05, np.nextafter(0.05, 1)]]))
    assert trace_scores("mean", trace).above(0.05).active.tolist() == [False, True]


def test_rules_that_need_samples_say_so():
    trace = UnitTrace(statistics={"mean": np.zeros(3)}, n_samples=5, name="summary")
    for rule in ("majority", "per_sample"):
        with pytest.raises(
            UsageError, match=f"'{rule}' needs per-sample values and trace 'summary' has none"
        ):
            trace_scores(rule, trace)
    with pytest.raises(UsageError, match="no 'max'"):
        trace_scores("any", trace)


def test_capped_samples_are_named_in_the_text():
    trace = UnitTrace(samples=np.zeros((2, 3)), n_samples=10)
    assert "the first 2 of 10 samples" in trace_scores("majority", trace).text


def test_unknown_and_incomplete_rules_are_refused():
    net = dense_net([2, 1])
    with pytest.raises(UsageError, match="available: mean, mean_abs"):
        activity_scores("median", net)
    with pytest.raises(UsageError, match="make a trace"):
        activity_scores("mean", net)
    with pytest.raises(UsageError, match="give the earlier graph"):
        activity_scores("weight_change", net)
    with pytest.raises(UsageError, match="NaN"):
        trace_scores("mean", UnitTrace.from_samples(SAMPLES)).above(float("nan"))


def test_a_stored_trace_comes_back_as_arrays():
    frame = pl.DataFrame(
        {
            "unit": [3, 1],
            "mean": [0.5, 0.1],
            "mean_abs": [0.5, 0.1],
            "min": [0.0, 0.1],
            "max": [1.0, 0.1],
            "n": [4, 4],
            "n_positions": [1, 1],
            "values": [[0.0, 1.0], None],
        },
        schema_overrides={"values": pl.List(pl.Float32)},
    )
    trace = UnitTrace.from_frame(frame, 5, name="t")
    assert trace.n_samples == 4
    np.testing.assert_array_equal(trace.statistic("mean"), [np.nan, 0.1, np.nan, 0.5, np.nan])
    assert trace.samples[:, 3].tolist() == [0.0, 1.0]
    assert np.isnan(trace.samples[:, 1]).all()
    assert trace_scores("majority", trace).known.tolist() == [False, False, False, True, False]
    with pytest.raises(InvalidInputError, match="has unit 3, the graph has 2 units"):
        UnitTrace.from_frame(frame, 2)


def test_a_trace_with_ragged_values_is_refused():
    frame = pl.DataFrame(
        {
            "unit": [0, 1],
            "mean": [0.0, 0],
            "mean_abs": [0.0, 0],
            "min": [0.0, 0],
            "max": [0.0, 0],
            "n": [2, 2],
            "n_positions": [1, 1],
        }
    ).with_columns(values=pl.Series([[0.0, 1.0], [0.0]]))
    with pytest.raises(InvalidInputError, match="between 1 and 2 values"):
        UnitTrace.from_frame(frame, 2)


def test_a_trace_without_samples_is_refused():
    with pytest.raises(InvalidInputError):
        UnitTrace.from_samples(np.zeros((0, 3)))


def test_given_activity_is_known_everywhere():
    given_activity = Activity.given(np.array([True, False]))
    assert given_activity.known.all()
    assert given_activity.rule is None


def test_every_rule_has_scores_or_a_reason():
    net = dense_net([4, 1])
    trace = UnitTrace.from_samples(SAMPLES)
    for rule in ActivityRule:
        if rule is ActivityRule.WEIGHT_CHANGE:
            continue
        assert len(activity_scores(rule, net, trace=trace).values) == 5


def frame(positions, **columns):
    """Two units of a store's trace, two samples; the second unit has mean 0 and is not silent."""
    given = {
        "unit": [0, 1],
        "mean": [0.1, 0.0],
        "mean_abs": [0.1, 0.4],
        "min": [0.1, -0.9],
        "max": [0.1, 0.8],
        "n": [2, 2],
        "n_positions": positions,
        "values": [[0.1, 0.1], [0.01, -0.01]],
        "values_abs": [None, [0.3, 0.5]],
        "values_max": [None, [0.8, 0.2]],
    }
    return pl.DataFrame(given | columns, schema_overrides={"n_positions": pl.Int64})


@pytest.mark.parametrize(
    ("rule", "active", "text"),
    [
        ("mean", [True, False], "mean over 2 samples and their positions > 0.05"),
        ("mean_abs", [True, True], "mean absolute value over 2 samples and their positions > 0.05"),
        ("any", [True, True], "some of 2 samples and their positions > 0.05"),
        ("majority", [True, False], "more than half of 2 samples (means over positions) > 0.05"),
    ],
)
def test_each_rule_uses_the_statistic_that_it_means(rule, active, text):
    found = activity(rule, dense_net([1, 1]), trace=UnitTrace.from_frame(frame([1, 9]), 2))
    assert found.active.tolist() == active
    assert found.text == text


def test_a_sample_is_pooled_by_name():
    trace = UnitTrace.from_frame(frame([1, 9]), 2)
    kept = {pooling: trace.kept("a test", pooling).T for pooling in PositionPooling}
    np.testing.assert_allclose(kept["mean"], [[0.1, 0.1], [0.01, -0.01]], rtol=1e-6)
    np.testing.assert_allclose(kept["abs"], [[0.1, 0.1], [0.3, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(kept["max"], [[0.1, 0.1], [0.8, 0.2]], rtol=1e-6)


def test_an_older_trace_keeps_its_meaning_and_says_so():
    nothing = pl.Series([None, None], dtype=pl.List(pl.Float32))
    trace = UnitTrace.from_frame(frame([None, None], values_abs=nothing, values_max=nothing), 2)
    text = trace_scores("mean_abs", trace).above().text
    assert text.endswith("2 samples (each its mean over positions: traced before schema version 3) > 0.05")
    single = UnitTrace.from_frame(frame([1, 1], values_abs=nothing, values_max=nothing), 2)
    assert trace_scores("mean_abs", single).above().text == "mean absolute value over 2 samples > 0.05"
    assert single.kept("a test", PositionPooling.ABS)[1].tolist() == pytest.approx([0.1, 0.01])


def test_intervals_draw_the_samples_of_the_statistic():
    """By means of positions, no draw would call the second unit active."""
    graph = dense_net([1, 1])
    trace = UnitTrace.from_frame(frame([1, 9], mean=[0.0, 0.0], mean_abs=[0.0, 0.4]), 2)
    silent = replace(trace, samples=trace.samples * [0, 1])
    pooled = {PositionPooling.ABS: trace.kept("a test", PositionPooling.ABS) * [0, 1]}
    found = bootstrap_emergence(graph, replace(silent, pooled_samples=pooled), "mean_abs", n_draws=5)
    assert found.range("any").low.value == found.range("any").high.value == 1
