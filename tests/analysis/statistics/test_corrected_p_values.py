"""Partial correlations and corrected p values, against scipy's and by hand."""

import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.statistics.permutation import (
    EXACT_FLIPS,
    holm,
    least_p,
    partial_spearman,
    share_as_extreme,
    sign_flip_p,
    student_p,
)


def test_without_given_variables_it_is_scipys():
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    assert partial_spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_there_is_no_correlation_with_what_is_constant_or_explained():
    x = np.random.default_rng(0).random(20)
    assert np.isnan(partial_spearman(x, np.ones(20)))
    assert np.isnan(partial_spearman(x, x + 5, [x]))


def test_holm_rejects_step_by_step():
    assert holm([0.001, 0.04, None, 0.02, 0.5]) == pytest.approx([0.004, 0.08, None, 0.06, 0.5])
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_p_value_of_a_mean_is_scipys():
    values = np.random.default_rng(3).normal(0.4, size=9)
    assert student_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    # equal values have no t: that of 4 equal signs
    assert student_p(np.ones(4)) == 2 / 2**4
    assert student_p(np.array([0.1 + 0.2, 0.3, 0.3])) == 0.25
    assert student_p(np.array([0.3001, 0.3, 0.3])) < 1e-3
    assert student_p(np.zeros(4)) == 1


@pytest.mark.parametrize("n", [6, EXACT_FLIPS, EXACT_FLIPS + 1])
def test_sign_flips_are_those_of_scipy(n):
    values = np.random.default_rng(n).normal(0.3, size=n)
    twin = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf if n <= EXACT_FLIPS else 20_000
    )
    assert sign_flip_p(values) == pytest.approx(twin.pvalue, abs=1e-9 if n <= EXACT_FLIPS else 0.02)


def test_the_least_p_value_of_ten_draws_rejects_nothing():
    assert least_p(10, two_sided=True) > 0.05
    assert least_p(99, two_sided=True) == 0.02
    assert share_as_extreme(np.zeros(10), 1.0) == least_p(10)


def test_too_few_values_have_no_partial_correlation():
    assert np.isnan(partial_spearman([1, 2, 3], [3, 1, 2], [[1, 3, 2]]))
    assert np.isfinite(partial_spearman([1, 2, 3, 4], [3, 1, 2, 4], [[1, 3, 2, 4]]))
