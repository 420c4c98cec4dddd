"""Streaming statistics against a naive twin, and closed forms."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph.exporters.runtime.pooling import Pooled, SampleAxis, pooled
from emergraph.exporters.traces import statistics as module
from emergraph.exporters.traces.statistics import KEPT, STATISTICS, UnitStatistics, kept_samples


def naive(values):
    """Of values (samples, units, positions)."""
    over = (0, 2)
    return {
        "mean": values.mean(over),
        "mean_abs": np.abs(values).mean(over),
        "rms": np.sqrt((values**2).mean(over)),
        "std": values.std(over),
        "min": values.min(over),
        "max": values.max(over),
        "share_positive": (values > 0).mean(over),
    }


def batch(values):
    """What a run gives for values (samples, units, positions)."""
    return pooled(values, (1,), SampleAxis(0), max(len(values), 1))


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([0.0, 1.0, 1e8]),
)
def test_batches_give_what_one_pass_gives(seed, sizes, n_units, n_positions, offset):
    values = np.random.default_rng(seed).standard_normal((sum(sizes), n_units, n_positions)) + offset
    statistics = UnitStatistics(n_units, 3)
    start = 0
    for size in sizes:
        statistics.add(batch(values[start : start + size]))
        start += size
    columns = statistics.columns()
    for name, expected in naive(values).items():
        # the spread of numbers around 1e8 has 16 - 8 digits
        tolerance = 1e-6 if offset > 1 else 1e-12
        np.testing.assert_allclose(columns[name], expected, rtol=tolerance, atol=tolerance, err_msg=name)
    frame = statistics.frame(10)
    assert frame["unit"].to_list() == list(range(10, 10 + n_units))
    assert frame["n"].unique().to_list() == [len(values)]
    assert frame["n_positions"].unique().to_list() == [n_positions]
    kept = {"values": values.mean(2), "values_abs": np.abs(values).mean(2), "values_max": values.max(2)}
    for name in KEPT:
        if name != "values" and n_positions == 1:
            assert frame[name].null_count() == n_units
        else:
            found = np.array(frame[name].to_list()).T
            np.testing.assert_allclose(found, kept[name][:3].astype(np.float32), rtol=1e-6, atol=1e-7)


def test_positions_that_come_late_leave_the_first_samples_as_they_were():
    statistics = UnitStatistics(1, 3)
    statistics.add(Pooled.single(np.array([[-2.0]])))
    statistics.add(batch(np.array([[[1.0, -3.0, -1.0]]])))
    frame = statistics.frame(0)
    assert frame.select(KEPT).row(0) == ([-2.0, -1.0], [2.0, pytest.approx(5 / 3)], [-2.0, 1.0])
    assert frame["mean"].item() == pytest.approx((-2 + 1 - 3 - 1) / 4)
    assert frame["n_positions"].item() == 3


def test_no_samples_give_no_statistics():
    columns = UnitStatistics(2, 3).columns()
    assert all(np.isnan(column).all() for column in columns.values())


def test_the_spread_survives_a_large_mean():
    """Sums of squares would lose all digits of a variance of 1 around a mean of 1e9."""
    values = 1e9 + np.array([[-1.0], [1.0]] * 500)
    for shape in ((1000, 1, 1), (10, 1, 100)):
        statistics = UnitStatistics(1, 0)
        for part in np.split(values.reshape(shape), 10):
            statistics.add(batch(part))
        assert statistics.columns()["std"][0] == pytest.approx(1.0, rel=1e-9)


def test_not_a_number_is_kept_apart_from_other_units():
    statistics = UnitStatistics(2, 2)
    statistics.add(batch(np.array([[[np.nan, 1.0], [1.0, 1.0]], [[2.0, 2.0], [3.0, -3.0]]])))
    columns = statistics.columns()
    for name in ("mean", "std", "min", "max", "rms"):
        assert np.isnan(columns[name][0])
        assert np.isfinite(columns[name][1])
    assert columns["share_positive"].tolist() == [0.75, 0.75]


def test_without_kept_samples_there_are_no_lists():
    statistics = UnitStatistics(2, 0)
    statistics.add(batch(np.ones((3, 2, 2))))
    frame = statistics.frame(0)
    assert set(frame.columns) == {"unit", "n", "n_positions", *STATISTICS, *KEPT}
    assert all(frame[name].null_count() == 2 for name in KEPT)
    assert frame.schema["n"] == pl.Int64


def test_kept_samples_are_bounded_by_memory(monkeypatch):
    assert kept_samples(10_000, 5, 1024) == 1024
    assert kept_samples(100, 5, 1024) == 100
    monkeypatch.setattr(module, "MAX_KEPT", 3000)
    assert kept_samples(10_000, 300, 1024) == 3
    assert kept_samples(10_000, 3000, 1024) == 0
