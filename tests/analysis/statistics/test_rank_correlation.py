"""Rank correlations against closed forms and another implementation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.statistics.permutation import rank_correlation
from emergraph.errors import UsageError


def test_without_given_variables_it_is_spearman():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 30), rng.integers(0, 6, 30)
    result = rank_correlation(x, y, n_permutations=1)
    assert result.rho == pytest.approx(stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize("seed", range(4))
def test_given_one_variable_it_has_the_closed_form(seed):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(25)
    x, y = z + rng.standard_normal(25), z**3 + rng.standard_normal(25)
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert rank_correlation(x, y, given=[z], n_permutations=1).rho == pytest.approx(expected)


def test_p_value_equals_all_permutations():
    x, y = [1.0, 2, 3, 4, 5, 6], [2.0, 1, 4, 3, 6, 5]
    observed = stats.spearmanr(x, y).statistic
    every = [stats.spearmanr(x, p).statistic for p in itertools.permutations(y)]
    exact = np.mean(np.abs(every) >= observed - 1e-12)
    result = rank_correlation(x, y, n_permutations=20_000, seed=1)
    assert result.p == pytest.approx(exact, abs=0.01)


def test_what_the_given_variable_explains_is_gone():
    rng = np.random.default_rng(5)
    z = rng.standard_normal(400)
    x, y = z + 0.3 * rng.standard_normal(400), z + 0.3 * rng.standard_normal(400)
    assert rank_correlation(x, y, n_permutations=99).rho > 0.8
    partial = rank_correlation(x, y, given=[z], n_permutations=999)
    assert abs(partial.rho) < 0.15
    assert partial.p > 0.01


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(6)
    p = [
        rank_correlation(
            rng.standard_normal(12),
            rng.standard_normal(12),
            given=[rng.standard_normal(12)],
            n_permutations=99,
        ).p
        for _ in range(300)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize(
    ("x", "y", "given"),
    [([1, 1, 1, 1], [1, 2, 3, 4], []), ([1, 2, 3, 4], [4, 1, 3, 2], [[2, 4, 6, 8]])],
    ids=["constant", "explained"],
)
def test_degenerate_cases_have_no_number(x, y, given):
    result = rank_correlation(x, y, given=given)
    assert result.degenerate
    assert result.rho is None
    assert result.p is None


@pytest.mark.parametrize(
    ("x", "y", "given"),
    [
        ([1, 2], [1, 2], []),
        ([1, 2, 3], [1, 2], []),
        ([1, 2, np.nan], [1, 2, 3], []),
        ([1, 2, 3], [1, 3, 2], [[1, 2, 3]]),
    ],
    ids=["few", "lengths", "nan", "few given"],
)
def test_impossible_inputs_are_refused(x, y, given):
    with pytest.raises(UsageError):
        rank_correlation(x, y, given=given)
