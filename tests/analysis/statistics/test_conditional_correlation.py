"""Correlations given a variable: no shape of a confounder shows, and what is left does."""

import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.statistics.conditional import CELL, FEWEST_CONTRASTS, conditional_correlation
from emergraph.analysis.statistics.permutation import normal_scores, partial_spearman
from emergraph.errors import UsageError

CONFOUNDERS = {
    "line": lambda z: 3 * z,
    "cube": lambda z: z**3,
    "exponential": lambda z: np.exp(2 * z),
    "step": lambda z: 3.0 * (z > 0),
}


@pytest.mark.parametrize("name", CONFOUNDERS)
@pytest.mark.parametrize("n", [10, 40])
def test_a_confounder_alone_is_rarely_significant(name, n):
    rng = np.random.default_rng(n)
    rejected = 0
    for _ in range(200):
        z, *noise = rng.standard_normal((3, n))
        common = CONFOUNDERS[name](z)
        rejected += conditional_correlation(common + noise[0], common + noise[1], given=z).p <= 0.05
    assert stats.binom.sf(rejected - 1, 200, 0.05) > 0.01


def test_ranks_less_the_ranks_of_the_confounder_would_be():
    rng = np.random.default_rng(1)
    rho = []
    for _ in range(200):
        z, *noise = rng.standard_normal((3, 60))
        rho.append(partial_spearman(3.0 * (z > 0) + noise[0], 3.0 * (z > 0) + noise[1], [z]))
    assert np.mean(rho) > 0.3


def test_a_correlation_beside_the_confounder_is_found():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(60):
        z, own, noise = rng.standard_normal((3, 40))
        found.append(conditional_correlation(z**3 + own, z**3 + own + noise, given=z))
    assert np.mean([one.p <= 0.05 for one in found]) > 0.7
    # 1 / sqrt(2) beside a line; a cube leaves less of it in the ranks
    assert 0.5 < np.mean([one.rho for one in found]) < 0.75
    assert all(-1 <= one.low < one.rho < one.high <= 1 for one in found)


def test_it_depends_on_order_only_in_both_and_on_no_line_in_the_given():
    rng = np.random.default_rng(3)
    x, y, z = rng.standard_normal((3, 30))
    found = conditional_correlation(x, y, given=z)
    again = conditional_correlation(np.exp(x), y**3, given=1e6 - 40 * z)
    assert again.rho == pytest.approx(found.rho)
    assert found.n_contrasts == 30 - 2 * (30 // CELL)


def test_by_hand_in_groups_of_three():
    """Three neighbours at equal distances have one contrast, (1, -2, 1) / sqrt(6)."""
    x, y = np.random.default_rng(5).standard_normal((2, 3, 4))
    scores = (normal_scores(v.ravel()).reshape(3, 4) for v in (x, y))
    left, right = (s[0] - 2 * s[1] + s[2] for s in scores)
    groups, place = [[0, 1, 2, 3] * 3, np.repeat([0.0, 1.0, 2.0], 4)]
    found = conditional_correlation(x.ravel(), y.ravel(), given=place, within=groups)
    assert found.n_contrasts == 4
    assert found.rho == pytest.approx(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
    assert found.p == pytest.approx(stats.ttest_1samp(left * right, 0).pvalue)


@pytest.mark.parametrize(("n", "contrasts"), [(6, 2), (7, FEWEST_CONTRASTS)])
def test_two_contrasts_are_too_few(n, contrasts):
    x, y, z = np.random.default_rng(6).standard_normal((3, n))
    found = conditional_correlation(x, y, given=z)
    assert found.n_contrasts == contrasts
    assert found.degenerate == (contrasts < FEWEST_CONTRASTS)


def test_groups_are_never_compared_with_each_other():
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(10), 6)
    own, noise, z = rng.standard_normal((3, 60))
    found = conditional_correlation(100 * group + own, 100 * group + noise, given=z, within=group.tolist())
    assert abs(found.rho) < 0.5
    assert found.n_contrasts == 60 - 2 * 10
    alone = conditional_correlation(own, noise, given=group.astype(float), within=group.tolist())
    assert alone.n_contrasts == 60 - 10  # within a group the given variable is constant, and takes nothing


@pytest.mark.parametrize(
    ("x", "y"),
    [(np.ones(20), np.arange(20.0)), (np.repeat([1.0, 2.0], 10), np.arange(20.0))],
    ids=["constant", "constant among neighbours"],
)
def test_what_does_not_vary_among_neighbours_has_no_correlation(x, y):
    found = conditional_correlation(
        x, y, given=np.repeat([1.0, 2.0], 10), within=np.repeat([1, 2], 10).tolist()
    )
    assert found.degenerate
    assert (found.rho, found.low, found.high, found.p) == (None, None, None, None)


@pytest.mark.parametrize(
    "lists",
    [([1, 2, 3], [1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3]), ([1, 2, 3, np.nan],) * 3],
    ids=["few", "lengths", "nan"],
)
def test_impossible_inputs_are_refused(lists):
    with pytest.raises(UsageError):
        conditional_correlation(*lists[:2], given=lists[2])


def test_a_group_for_each_value():
    with pytest.raises(UsageError, match="a group for each of 4"):
        conditional_correlation([1, 2, 3, 4], [1, 2, 3, 4], given=[1, 2, 3, 4], within=[1, 2])
