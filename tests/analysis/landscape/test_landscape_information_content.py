import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.landscape.information_content import (
    information_content,
    information_curve,
    slopes,
    summarise_information,
)
from emergraph.errors import UsageError

LOG6_2 = np.log(2) / np.log(6)


def naive(slope, eps):
    psi = [0 if abs(s) <= eps else int(np.sign(s)) for s in slope]
    pairs = list(itertools.pairwise(psi))
    h = 0.0
    for pair in set(pairs):
        if pair[0] != pair[1]:
            p = pairs.count(pair) / len(pairs)
            h -= p * np.log(p) / np.log(6)
    kept = [s for s in psi if s != 0]
    m = sum(a != b for a, b in itertools.pairwise(kept)) / (len(psi) - 1)
    return h, m


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=40), st.floats(0, 5))
@settings(max_examples=150, deadline=None)
def test_curve_equals_the_definition_at_any_eps(slope, eps):
    h, m = information_curve(np.array(slope, dtype=float)).at(eps)
    assert (float(h), float(m)) == pytest.approx(naive(slope, eps))


def test_curve_equals_the_definition_on_real_valued_slopes():
    slope = np.random.default_rng(0).normal(size=300)
    curve = information_curve(slope)
    for eps in np.linspace(0, 3, 30):
        h, m = curve.at(eps)
        assert (float(h), float(m)) == pytest.approx(naive(slope, eps))


@pytest.mark.parametrize(
    ("walk", "m_0", "h_0"),
    [
        (np.random.default_rng(0).normal(size=100_000), 2 / 3, 2 / 3 * np.log(3) / np.log(6)),
        (np.random.default_rng(0).normal(size=100_000).cumsum(), 1 / 2, LOG6_2),
        (np.tile([0.0, 1.0], 20_000), 1.0, LOG6_2),
        (np.arange(50.0), 0.0, 0.0),
    ],
    ids=["noise", "brownian", "sawtooth", "monotone"],
)
def test_known_answers(walk, m_0, h_0):
    found = information_content(walk)
    assert found.m_0 == pytest.approx(m_0, abs=0.005)
    assert found.h_0 == pytest.approx(h_0, abs=0.002)


@pytest.mark.parametrize(
    ("walk", "h_max"),
    [
        (np.random.default_rng(1).normal(size=50_000), 0.872),
        (np.random.default_rng(1).uniform(size=50_000), 0.888),
        (np.random.default_rng(1).normal(size=50_000).cumsum(), 0.816),
    ],
    ids=["gauss", "uniform", "brownian"],
)
def test_largest_information_content(walk, h_max):
    assert information_content(walk).h_max == pytest.approx(h_max, abs=0.004)


def test_flat_landscape_is_a_declared_null():
    found = information_content(np.full(30, 3.0))
    assert (found.h_max, found.m_0) == (0.0, 0.0)
    assert found.eps_max is found.eps_s is found.eps_ratio is None
    assert summarise_information(np.ones((3, 20))).eps_s.n_undefined == 3


def test_rounding_noise_on_a_constant_is_flat():
    walk = 0.1 + np.random.default_rng(0).choice([0.0, np.spacing(0.1)], size=50)
    assert information_content(walk).m_0 == 0.0


def test_answers_do_not_depend_on_scale_offset_or_step_unit():
    walk = np.random.default_rng(2).normal(size=500)
    plain, moved = information_content(walk), information_content(1e4 * walk + 7, np.full(499, 0.03))
    for name, value in plain.to_dict().items():
        assert moved.to_dict()[name] == pytest.approx(value, rel=1e-6)


def test_settling_and_ratio_are_where_the_curve_crosses():
    walk = np.random.default_rng(3).normal(size=400)
    curve, found = information_curve(slopes(walk)), information_content(walk)
    above, below = 10**found.eps_s, 10**found.eps_s * (1 - 1e-9)
    assert curve.at(above * (1 + 1e-9))[0] < 0.05 <= curve.at(below)[0]
    ratio = 10**found.eps_ratio
    assert curve.at(ratio * (1 - 1e-9))[1] > found.m_0 / 2 >= curve.at(ratio * (1 + 1e-9))[1]


def quadratic_null(a: float) -> tuple[float, float]:
    """Return (H(0), M(0)) of a quadratic bowl along a walk with correlation a, in many dimensions.

    The increments of a Gaussian AR(1) process with coefficient r = a^2 have correlation -(1 - r)/2, so
    M(0) = arccos(-(1 - r)/2)/pi (orthant probability) and H(0) = -M(0) log_6(M(0)/2). Limits: r -> 0
    gives 2/3 (white noise), r -> 1 gives 1/2 (Brownian motion).
    """
    m_0 = float(np.arccos(-(1 - a**2) / 2) / np.pi)
    return float(-m_0 * np.log(m_0 / 2) / np.log(6)), m_0


@pytest.mark.parametrize("a", [0.3, 0.9])
def test_quadratic_null_is_what_a_bowl_in_many_dimensions_shows(a):
    rng = np.random.default_rng(0)
    walk = np.empty(200_000)
    walk[0], noise = 0.0, rng.normal(size=walk.size)
    for t in range(1, walk.size):
        walk[t] = a**2 * walk[t - 1] + noise[t]
    found, (h_0, m_0) = information_content(walk), quadratic_null(a)
    assert (found.h_0, found.m_0) == pytest.approx((h_0, m_0), abs=0.005)


def test_wrong_walks_are_refused():
    with pytest.raises(UsageError, match="at least 3"):
        information_content([1.0, 2.0])
    with pytest.raises(UsageError, match="positive lengths"):
        information_content([1.0, 2.0, 3.0], [1.0, 0.0])
