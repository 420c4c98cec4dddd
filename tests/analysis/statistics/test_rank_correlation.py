"""Rank correlations against closed forms and another implementation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.statistics.permutation import partial_spearman, rank_correlation
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
    assert partial_spearman(x, y, [z]) == pytest.approx(expected)


def test_p_value_equals_all_permutations():
    x, y = [1.0, 2, 3, 4, 5, 6], [2.0, 1, 4, 3, 6, 5]
    observed = stats.spearmanr(x, y).statistic
    every = [stats.spearmanr(x, p).statistic for p in itertools.permutations(y)]
    exact = np.mean(np.abs(every) >= observed - 1e-12)
    result = rank_correlation(x, y, n_permutations=20_000, seed=1)
    assert result.p == pytest.approx(exact, abs=0.01)


def test_groups_hold_what_differs_between_them():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(20), 5)
    x, y = group + rng.standard_normal((2, 100))
    assert rank_correlation(x, y, n_permutations=99).rho > 0.8
    inside = rank_correlation(x, y, within=group.tolist(), n_permutations=999)
    assert inside.n_groups == 20
    assert abs(inside.rho) < 0.3
    assert inside.p > 0.01
    assert inside.low < 0 < inside.high


def test_p_value_within_groups_equals_all_permutations():
    x, y = np.array([1.0, 2, 3, 10, 11, 12]), np.array([5.0, 7, 6, 1, 3, 2])
    group = [0, 0, 0, 1, 1, 1]

    def statistic(values):
        ranks = [stats.rankdata(v) for v in (x, values)]
        left, right = (np.concatenate([r[:3] - r[:3].mean(), r[3:] - r[3:].mean()]) for r in ranks)
        return abs(left @ right)

    halves = [list(itertools.permutations(part)) for part in (y[:3], y[3:])]
    every = [statistic(np.concatenate(both)) for both in itertools.product(*halves)]
    exact = np.mean(np.array(every) >= statistic(y) - 1e-9)
    # rows in any order
    mixed = [3, 0, 4, 1, 5, 2]
    found = rank_correlation(
        x[mixed], y[mixed], within=[group[i] for i in mixed], n_permutations=20_000, seed=2
    )
    assert found.p == pytest.approx(exact, abs=0.01)


def test_groups_of_one_compare_nothing():
    found = rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], within=["a", "b", "c", "d"])
    assert found.degenerate
    assert found.n_groups == 0


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(6)
    group = np.repeat(np.arange(4), 5)
    p = [
        rank_correlation(
            rng.standard_normal(20), group + rng.standard_normal(20), within=group.tolist(), n_permutations=99
        ).p
        for _ in range(300)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize(
    ("x", "y"),
    [([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [7, 7, 7, 7])],
    ids=["first constant", "second constant"],
)
def test_degenerate_cases_have_no_number(x, y):
    result = rank_correlation(x, y)
    assert result.degenerate
    assert (result.rho, result.low, result.high, result.p) == (None, None, None, None)


@pytest.mark.parametrize(
    ("x", "y", "within"),
    [
        ([1, 2], [1, 2], None),
        ([1, 2, 3], [1, 2], None),
        ([1, 2, np.nan], [1, 2, 3], None),
        ([1, 2, 3], [1, 3, 2], [1, 2]),
    ],
    ids=["few", "lengths", "nan", "groups"],
)
def test_impossible_inputs_are_refused(x, y, within):
    with pytest.raises(UsageError):
        rank_correlation(x, y, within=within)
