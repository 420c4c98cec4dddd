"""The solvable model against its differential equation, the paper's numbers, and sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.skills.closedforms import (
    emergence_duration,
    emergence_time,
    factor_flow,
    linear_strength,
    multilinear_strength,
    skill_frequencies,
)
from emergraph.analysis.skills.prediction import (
    ModelParameters,
    compute_law,
    compute_loss,
    data_law,
    local_slope,
    loss_at,
    parameter_law,
    parameter_loss,
    predict_skills,
    time_law,
    time_loss,
)
from emergraph.analysis.skills.shots import (
    data_by_definition,
    data_from_loss,
    one_shot_loss,
    parameter_strength,
)
from emergraph.errors import UsageError

LOSSES = {
    0.6: [0.483464, 0.252533, 0.106400, 0.044661, 0.018627],
    0.9: [0.477748, 0.183734, 0.059853, 0.020104, 0.006748],
}
"""At T = 1, 10, 100, 1000, 10000 for 1e5 skills, S = 1, R(0) = 0.01, rate 1."""


@pytest.mark.parametrize(
    ("frequency", "target", "start", "rate", "time", "expected"),
    [
        (0.5, 1, 0.01, 1, 3, 0.1686648),
        (0.2, 5, 0.05, 0.02, 200, 4.8392835),
        (0.1, 1, 0.01, 1, 20, 0.3554610),
        (1, 1, 0.01, 1, 2.3, 0.5012200),
    ],
)
def test_known_strengths(frequency, target, start, rate, time, expected):
    found = multilinear_strength(time, frequency, target=target, start=start, rate=rate)
    assert found == pytest.approx(expected, abs=5e-8)


@given(st.floats(0.01, 1), st.floats(0.5, 5), st.floats(0.001, 0.3), st.floats(0.01, 1))
@settings(max_examples=20)
def test_the_closed_form_solves_the_equation(frequency, target, start, rate):
    times = np.linspace(0.1, 4, 7) * float(emergence_duration(frequency, target=target, rate=rate))
    a = np.sqrt(start * target)
    flow = factor_flow(times, frequency, target=target, factors=(a, a), rate=rate)
    closed = multilinear_strength(times, frequency, target=target, start=start * target, rate=rate)
    np.testing.assert_allclose(flow, closed, atol=1e-9 * target)


def test_unequal_factors_are_sooner():
    assert factor_flow([3.0], 0.5, factors=(0.2, 0.05))[0] == pytest.approx(0.24245, abs=5e-6)
    assert factor_flow([3.0], 0.5)[0] == pytest.approx(0.16866, abs=5e-6)


def test_gradient_descent_in_small_steps_follows_the_closed_form():
    a, b, rate, p = 0.1, 0.1, 1e-3, 0.5
    for _ in range(3000):
        push = rate * p * (1 - a * b)
        a, b = a + push * b, b + push * a
    assert a * b == pytest.approx(float(multilinear_strength(3, 0.5)), abs=1e-3)


def test_emergence_times():
    assert emergence_time(0.5) == pytest.approx(1.650681, abs=5e-7)
    assert emergence_duration(0.5) == pytest.approx(5.888878, abs=5e-7)
    p = skill_frequencies(4, 0.8)
    ratios = emergence_time(p) / emergence_time(p[0])
    np.testing.assert_allclose(ratios, np.arange(1, 5) ** 1.8)
    assert multilinear_strength(emergence_time(0.3, share=0.2), 0.3) == pytest.approx(0.2)
    assert linear_strength(2.0, 0.5, target=3) == pytest.approx(3 * (1 - np.exp(-1)))


def test_frequencies():
    expected = [0.59267, 0.19551, 0.10219, 0.06449, 0.04513]
    np.testing.assert_allclose(skill_frequencies(5, 0.6), expected, atol=5e-6)
    with pytest.raises(UsageError):
        skill_frequencies(0, 0.6)


@pytest.mark.parametrize("alpha", LOSSES)
def test_losses_and_their_slope(alpha):
    p = skill_frequencies(10**5, alpha)
    np.testing.assert_allclose(time_loss([1, 10, 100, 1e3, 1e4], p), LOSSES[alpha], atol=6e-7)
    times = np.geomspace(100, 1e4, 9)
    assert local_slope(times, time_loss(times, p)) == pytest.approx(-alpha / (alpha + 1), abs=0.01)
    samples = np.geomspace(100, 1e4, 9)
    assert local_slope(samples, one_shot_loss(samples, p)) == pytest.approx(-alpha / (alpha + 1), abs=0.01)
    sizes = np.geomspace(40, 1e3, 9)
    many = skill_frequencies(2 * 10**5, alpha)
    assert local_slope(sizes, parameter_loss(sizes, many)) == pytest.approx(-alpha, abs=0.02)


@pytest.mark.parametrize("alpha", [0.6, 0.9])
def test_prefactors_are_those_of_the_sums(alpha):
    p = skill_frequencies(3 * 10**5, alpha)
    about = {"target": 2.0, "start": 0.05, "rate": 0.3}
    assert time_loss(3e3, p, **about) == pytest.approx(float(time_law(alpha, **about)(3e3)), rel=0.02)
    assert one_shot_loss(3e3, p, target=2) == pytest.approx(float(data_law(alpha, target=2)(3e3)), rel=0.02)
    sizes = parameter_law(alpha, target=2)
    assert parameter_loss(400, p, target=2) == pytest.approx(float(sizes(400)), rel=0.02)
    law = compute_law(alpha, **about)
    counts = np.geomspace(8, 1e5, 150)
    losses = compute_loss(counts, 1e7 / counts, p[:30_000], **about)
    best = int(losses.argmin())
    assert losses[best] == pytest.approx(float(law(1e7)), rel=0.04)
    assert counts[best] == pytest.approx(law.size_prefactor * 1e7**law.size_exponent, rel=0.05)
    assert (law.exponent, law.size_exponent) == (-alpha / (alpha + 2), 1 / (alpha + 2))


def test_shots():
    np.testing.assert_allclose(parameter_strength([2, 4, 6, 12], 2), [0, 0, 0.5, 1])
    d = np.array([0, 200, 800, 1600])
    np.testing.assert_allclose(data_by_definition(d, target=5), [0, 1.25, 5, 5])
    from_loss = data_from_loss(d, target=5)
    # (S - R)^2 falls linearly in d
    np.testing.assert_allclose((5 - from_loss) ** 2, 25 * np.clip(1 - d / 800, 0, 1))
    p = np.array([0.7, 0.3])
    expected = 0.5 * (2 - 0.5) ** 2 * (0.7 * 0.3**6 + 0.3 * 0.7**6)
    assert one_shot_loss(6, p, target=2, seen=0.5) == pytest.approx(expected)


def test_predictions():
    found = predict_skills(ModelParameters(n_skills=3), times=[50], samples=[900], parameters=[6])
    assert found.skills["emergence"].is_sorted()
    assert found.curves.height == 15
    assert [law.axis for law in found.laws] == ["time", "data", "parameters", "compute"]
    assert loss_at(ModelParameters(n_skills=10**5, target=1, rate=1), [10])[0] == pytest.approx(
        0.252533, abs=1e-6
    )
    with pytest.raises(UsageError):
        ModelParameters(start=9.0)
