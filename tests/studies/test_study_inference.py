"""Statistics that studies share, against the library's and scipy's, and by hand."""

import numpy as np
import pytest
from inference import holm, partial_spearman
from scipy import stats

from emergraph.analysis.emergence.rankcorrelation import rank_correlation


def test_partial_correlation_is_that_of_scipy_and_of_the_library():
    rng = np.random.default_rng(0)
    z = rng.normal(size=40)
    x, y = z + rng.normal(size=40), z + rng.normal(size=40)
    assert partial_spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert partial_spearman(x, y, [z]) == pytest.approx(
        rank_correlation(x, y, given=[z], n_permutations=9).rho
    )


def test_there_is_no_correlation_with_what_is_constant_or_explained():
    x = np.random.default_rng(0).random(20)
    assert np.isnan(partial_spearman(x, np.ones(20)))
    assert np.isnan(partial_spearman(x, x + 5, [x]))


def test_holm_rejects_step_by_step():
    assert holm([0.001, 0.04, None, 0.02, 0.5]) == pytest.approx([0.004, 0.08, None, 0.06, 0.5])
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
