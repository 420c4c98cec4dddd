import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.statistics.estimate import Method
from emergraph.analysis.statistics.intervals import (
    Support,
    counts_of_draws,
    is_clear,
    jackknife,
    percentiles,
    student,
    student_reach,
)
from emergraph.errors import UsageError


def test_interval_is_the_student_interval():
    values = np.random.default_rng(0).normal(3, 2, size=12)
    found = student(values, seed=5, null=1.0)
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.mean, found.n, found.seed, found.null) == (pytest.approx(values.mean()), 12, 5, 1.0)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [student(rng.normal(size=8), level=0.9) for _ in range(1000)]
    assert np.mean([e.low <= 0 <= e.high for e in found]) == pytest.approx(0.9, abs=0.03)


def test_undefined_repetitions_are_counted_not_averaged():
    found = student([1.0, np.nan, np.inf, 3.0])
    assert (found.mean, found.n, found.n_undefined) == (2.0, 2, 2)
    nothing = student([np.nan])
    assert np.isnan(nothing.mean)
    assert nothing.n == 0


def test_jackknife_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(2).normal(size=(10, 1))
    found = jackknife(lambda g: float(g.mean()), values)
    plain = student(values)
    assert (found.low, found.high, found.sd) == pytest.approx((plain.low, plain.high, plain.sd))


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_must_be_a_coverage(level):
    with pytest.raises(UsageError, match="level"):
        student([1.0], level=level)


def test_a_share_never_leaves_its_range():
    values = [1.0] * 8 + [0.97, 0.99]
    free, kept = student(values), student(values, support=Support.SHARE)
    assert free.high > 1
    assert free.low < kept.low + 0.1
    assert 0 < kept.low < kept.mean < kept.high < 1


def test_shares_that_are_all_one_are_bounded_by_their_number():
    found = student([1.0] * 10, support=Support.SHARE)
    assert (found.high, found.method) == (1.0, Method.EXACT)
    assert found.low == pytest.approx(0.025**0.1)
    zero = student([0.0] * 10, support=Support.SHARE)
    assert (zero.low, zero.high) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert student([-1.0] * 10, support=Support.CORRELATION).high == pytest.approx(1 - 2 * 0.025**0.1)


def test_counts_that_are_all_zero_have_no_interval():
    found = student([0.0] * 10, support=Support.POSITIVE)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert found.method == Method.NONE


def test_positive_values_keep_a_positive_interval():
    found = student([0.1, 0.1, 5.0], support=Support.POSITIVE)
    assert 0 < found.low < found.mean < found.high
    assert student([0.1, 0.1, 5.0]).low < 0


def test_jackknife_of_a_correlation_is_taken_of_its_transformation():
    groups = np.array([[0.99], [0.995], [0.9], [0.97]])
    found = jackknife(lambda g: float(g.mean()), groups, support=Support.CORRELATION)
    left_out = np.arctanh([np.delete(groups, i).mean() for i in range(4)])
    error = np.sqrt(3 / 4 * np.sum((left_out - left_out.mean()) ** 2))
    reach = stats.t.ppf(0.975, 3) * error
    centre = np.arctanh(groups.mean())
    assert (found.low, found.high) == pytest.approx((np.tanh(centre - reach), np.tanh(centre + reach)))


@pytest.mark.parametrize("value", [1.0, 1 - 1e-15, 0.3, 0.0])
def test_a_jackknife_without_spread_has_no_interval(value):
    same = jackknife(lambda _: value, np.ones((4, 1)), support=Support.CORRELATION)
    assert np.isnan(same.low)
    assert np.isnan(same.high)
    assert same.method is Method.NONE


@pytest.mark.parametrize("mean", [-3.0, 0.0, 0.9, 0.999])
def test_what_is_at_most_one_has_ends_at_most_one(mean):
    found = student([mean - 0.001, mean, mean + 0.001], support=Support.AT_MOST_ONE)
    assert found.low < mean < found.high < 1
    assert np.isnan(student([1.0] * 5, support=Support.AT_MOST_ONE).low)
    wide = student([1 - 0.001, -2.0, 0.9], support=Support.AT_MOST_ONE)
    assert wide.high < 1 < student([1 - 0.001, -2.0, 0.9]).high


@pytest.mark.parametrize(
    ("z", "draws", "clear"),
    [(2.99, 99, False), (3.0, 99, True), (4.9, 3, False), (5.0, 3, True), (-5.0, 3, True), (3.0, 5, False)],
)
def test_few_draws_of_a_null_model_tell_only_large_distances(z, draws, clear):
    assert is_clear(z, draws) is clear


def test_percentiles_leave_out_what_is_not_finite():
    assert percentiles([np.nan, *range(101)], level=0.9) == pytest.approx((5.0, 95.0))
    assert np.isnan(percentiles([np.inf]))[0]


def test_draws_with_replacement_are_of_the_same_size():
    counts = counts_of_draws(7, 50, seed=1)
    assert counts.shape == (50, 7)
    assert set(counts.sum(axis=1).tolist()) == {7}
    with pytest.raises(UsageError, match="at least 2 draws"):
        counts_of_draws(7, 1, seed=1)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 30, 31, 1000, 1001, 100_001])
def test_students_quantile_is_that_of_scipy(n, level):
    assert student_reach(n, level) == pytest.approx(stats.t.ppf((1 + level) / 2, n - 1), rel=1e-8)
