"""p values of orders against all orders, and their combination."""

from itertools import permutations
from math import exp, factorial, log

import numpy as np
import pytest

from emergraph.analysis.statistics import orders
from emergraph.analysis.statistics.orders import (
    EXACT_UNITS,
    bonferroni_log_p,
    fisher_log_p,
    least_log_p,
    order_correlation,
    order_distance,
    order_log_p,
)


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_the_exact_null_is_that_of_all_orders(n):
    everyone = [np.array(one) for one in permutations(range(n))]
    distances = np.array([order_distance(one) for one in everyone])
    for one in everyone[:: max(1, len(everyone) // 40)]:
        share = np.mean(distances <= order_distance(one))
        assert exp(order_log_p(one)) == pytest.approx(share)
    p = np.array([exp(order_log_p(one)) for one in everyone])
    for level in (0.01, 0.05, 0.1, 0.5):
        assert np.mean(p <= level) <= level + 1e-12


def test_the_correlation_is_spearmans():
    order = np.random.default_rng(0).permutation(9)
    assert order_correlation(order) == pytest.approx(np.corrcoef(order, np.arange(9))[0, 1])
    assert np.isnan(order_correlation(np.array([0])))


@pytest.mark.parametrize("n", [EXACT_UNITS - 1, EXACT_UNITS])
def test_the_bounds_for_more_units_are_above_the_exact_p(n):
    counts = orders._orders_by_distance(n)
    assert counts.sum() == factorial(n)
    exact = np.log(np.cumsum(counts) / factorial(n))
    for distance in range(0, (n**3 - n) // 3, 2):
        bound = min(0.0, orders._near_identity(n, distance), orders._in_the_middle(n, distance))
        assert bound >= exact[distance] - 1e-9


def test_both_sides_of_the_exact_counts_agree():
    for n in (EXACT_UNITS, EXACT_UNITS + 1):
        order = np.roll(np.arange(n), 1)
        assert -12 < order_log_p(order) < -3
        assert order_log_p(np.arange(n)) == pytest.approx(least_log_p(n), abs=1e-6)
        assert order_log_p(np.arange(n)[::-1]) == pytest.approx(0.0, abs=0.02)


def test_a_large_identity_does_not_underflow():
    assert order_log_p(np.arange(2048)) == pytest.approx(least_log_p(2048), rel=1e-6)


def test_random_orders_reject_at_most_their_level():
    rng = np.random.default_rng(1)
    for n in (13, 40, 300):
        p = np.array([order_log_p(rng.permutation(n)) for _ in range(3000)])
        for level in (0.001, 0.01, 0.05):
            assert np.mean(p <= log(level)) <= level + 3 * np.sqrt(level / 3000)


def test_fisher_is_exact_for_uniform_p_and_keeps_its_level_for_discrete_ones():
    rng = np.random.default_rng(2)
    uniform = [fisher_log_p(np.log(rng.random(3))) for _ in range(4000)]
    assert np.mean(np.array(uniform) <= log(0.05)) == pytest.approx(0.05, abs=0.011)
    discrete = [fisher_log_p([order_log_p(rng.permutation(4)) for _ in range(3)]) for _ in range(4000)]
    assert np.mean(np.array(discrete) <= log(0.05)) <= 0.061
    assert fisher_log_p([-5000.0, -3000.0]) == pytest.approx(-8000 + log(8001), rel=1e-9)


def test_bonferroni_counts_those_that_are_not_given():
    assert exp(bonferroni_log_p([log(0.01)], among=7)) == pytest.approx(0.07)
    assert bonferroni_log_p([log(0.5), log(0.9)]) == 0.0
