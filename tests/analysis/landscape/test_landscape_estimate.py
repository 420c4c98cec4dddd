import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.landscape.estimate import estimate, jackknife
from emergraph.errors import UsageError


def test_interval_is_the_student_interval():
    values = np.random.default_rng(0).normal(3, 2, size=12)
    found = estimate(values, seed=5, null=1.0)
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.mean, found.n, found.seed, found.null) == (pytest.approx(values.mean()), 12, 5, 1.0)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [estimate(rng.normal(size=8), level=0.9) for _ in range(1000)]
    assert np.mean([e.low <= 0 <= e.high for e in found]) == pytest.approx(0.9, abs=0.03)


def test_undefined_repetitions_are_counted_not_averaged():
    found = estimate([1.0, np.nan, np.inf, 3.0])
    assert (found.mean, found.n, found.n_undefined) == (2.0, 2, 2)
    nothing = estimate([np.nan])
    assert np.isnan(nothing.mean)
    assert nothing.n == 0


def test_jackknife_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(2).normal(size=(10, 1))
    found = jackknife(lambda g: float(g.mean()), values)
    plain = estimate(values)
    assert (found.low, found.high, found.sd) == pytest.approx((plain.low, plain.high, plain.sd))


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_must_be_a_coverage(level):
    with pytest.raises(UsageError, match="level"):
        estimate([1.0], level=level)
