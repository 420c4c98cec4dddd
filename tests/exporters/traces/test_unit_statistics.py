"""Streaming statistics against a naive twin, and closed forms."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph.exporters.traces import statistics as module
from emergraph.exporters.traces.statistics import STATISTICS, UnitStatistics, kept_samples


def naive(values):
    return {
        "mean": values.mean(0),
        "mean_abs": np.abs(values).mean(0),
        "rms": np.sqrt((values**2).mean(0)),
        "std": values.std(0),
        "min": values.min(0),
        "max": values.max(0),
        "share_positive": (values > 0).mean(0),
    }


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
    st.integers(1, 4),
    st.sampled_from([0.0, 1.0, 1e8]),
)
def test_batches_give_what_one_pass_gives(seed, sizes, n_units, offset):
    values = np.random.default_rng(seed).standard_normal((sum(sizes), n_units)) + offset
    statistics = UnitStatistics(n_units, 3)
    start = 0
    for size in sizes:
        statistics.add(values[start : start + size])
        start += size
    columns = statistics.columns()
    if not len(values):
        assert all(np.isnan(column).all() for column in columns.values())
        return
    for name, expected in naive(values).items():
        # the spread of numbers around 1e8 has 16 - 8 digits
        tolerance = 1e-6 if offset > 1 else 1e-12
        np.testing.assert_allclose(columns[name], expected, rtol=tolerance, atol=tolerance, err_msg=name)
    frame = statistics.frame(10)
    assert frame["unit"].to_list() == list(range(10, 10 + n_units))
    assert frame["n"].unique().to_list() == [len(values)]
    kept = frame["values"].to_list()
    np.testing.assert_array_equal(np.array(kept).T, values[:3].astype(np.float32))


def test_the_spread_survives_a_large_mean():
    """Sums of squares would lose all digits of a variance of 1 around a mean of 1e9."""
    values = 1e9 + np.array([[-1.0], [1.0]] * 500)
    statistics = UnitStatistics(1, 0)
    for part in np.split(values, 10):
        statistics.add(part)
    assert statistics.columns()["std"][0] == pytest.approx(1.0, rel=1e-9)
    assert values.astype(float).var() == pytest.approx(1.0)


def test_not_a_number_is_kept_apart_from_other_units():
    statistics = UnitStatistics(2, 2)
    statistics.add(np.array([[np.nan, 1.0], [2.0, 3.0]]))
    columns = statistics.columns()
    for name in ("mean", "std", "min", "max", "rms"):
        assert np.isnan(columns[name][0])
        assert np.isfinite(columns[name][1])
    assert columns["share_positive"].tolist() == [0.5, 1.0]


def test_without_kept_values_there_is_no_such_column():
    statistics = UnitStatistics(2, 0)
    statistics.add(np.ones((3, 2)))
    frame = statistics.frame(0)
    assert set(frame.columns) == {"unit", "n", *STATISTICS}
    assert statistics.frame(0).schema["n"] == pl.Int64


def test_kept_samples_are_bounded_by_memory(monkeypatch):
    assert kept_samples(10_000, 5, 1024) == 1024
    assert kept_samples(100, 5, 1024) == 100
    monkeypatch.setattr(module, "MAX_KEPT", 1000)
    assert kept_samples(10_000, 300, 1024) == 3
    assert kept_samples(10_000, 3000, 1024) == 0
