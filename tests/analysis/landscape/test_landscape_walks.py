import numpy as np
import pytest

from emergraph.analysis.landscape.autocorrelation import (
    analyse_walks,
    autocorrelation,
    correlation_length,
    quadratic_length,
)
from emergraph.analysis.landscape.walks import WalkPlan, ou_walk
from emergraph.errors import UsageError

A = 0.9


def naive_autocorrelation(walks, s):
    mean = np.mean(walks)
    pairs = [(w[t] - mean) * (w[t + s] - mean) for w in walks for t in range(len(w) - s)]
    return np.mean(pairs) / np.mean([(x - mean) ** 2 for w in walks for x in w])


def walk(function, *, dimension=20, n_walks=20, length=1000, sigma=1.0):
    plan = WalkPlan(n_walks=n_walks, length=length, a=A, sigma=sigma, seed=4)
    return np.array([[function(z) for z in ou_walk(dimension, plan, w)] for w in range(n_walks)])


def test_matches_the_naive_double_loop():
    walks = np.random.default_rng(0).normal(size=(3, 40)).cumsum(axis=1)
    found = autocorrelation(walks, max_lag=10)
    assert found == pytest.approx([naive_autocorrelation(walks, s) for s in range(11)])


def test_walk_is_stationary():
    positions = np.array([[z.copy() for z in ou_walk(50, WalkPlan(length=400, seed=w), 0)] for w in range(5)])
    assert positions.std(axis=(0, 2))[[0, 200, 399]] == pytest.approx([1, 1, 1], abs=0.15)


def test_walks_repeat_and_differ():
    plan = WalkPlan(length=5, seed=1)
    first = np.array([z.copy() for z in ou_walk(3, plan, 0)])
    assert np.array_equal(first, np.array([z.copy() for z in ou_walk(3, plan, 0)]))
    assert not np.allclose(first, np.array([z.copy() for z in ou_walk(3, plan, 1)]))


def test_linear_function_gives_a_to_the_s():
    weights = np.linspace(-1, 1, 20)
    rho = autocorrelation(walk(lambda z: float(z @ weights)), max_lag=3)
    assert rho[1:] == pytest.approx([A, A**2, A**3], abs=0.02)


def test_quadratic_bowl_gives_a_to_the_2s_and_no_excess_ruggedness():
    curvature = np.linspace(0.1, 3, 20)
    found = analyse_walks(walk(lambda z: float(z @ (curvature * z))), a=A, seed=4)
    assert found.rho[1:4] == pytest.approx([A**2, A**4, A**6], abs=0.03)
    assert found.rho_1.low <= A**2 <= found.rho_1.high
    assert found.excess_ruggedness.low <= 0 <= found.excess_ruggedness.high
    assert found.correlation_length.null == pytest.approx(quadratic_length(A))
    assert found.rho_1.n == 20


def test_cosine_gives_the_closed_form():
    direction, q = np.ones(16) * 0.5, 4.0
    rho = autocorrelation(walk(lambda z: float(np.cos(direction @ z)), dimension=16, n_walks=40), max_lag=2)
    expected = [(np.cosh(A**s * q) - 1) / (np.cosh(q) - 1) for s in (1, 2)]
    assert expected[0] == pytest.approx(0.6581, abs=1e-4)
    assert rho[1:] == pytest.approx(expected, abs=0.02)


def test_white_noise_gives_zero():
    found = analyse_walks(np.random.default_rng(0).normal(size=(20, 1000)), a=A)
    assert found.rho_1.mean == pytest.approx(0, abs=0.02)
    assert found.excess_ruggedness.mean > 0.9


def test_brownian_walks_measure_their_own_length():
    rng = np.random.default_rng(0)
    rho = [
        autocorrelation(np.sum(rng.normal(size=(40, n, 10)).cumsum(axis=1) ** 2, axis=2), max_lag=1)[1]
        for n in (20, 200, 2000)
    ]
    assert rho[0] < rho[1] < rho[2]


def test_every_lag_is_divided_by_its_own_count():
    """Dividing all lags by L multiplies rho(1) by (L - 1)/L: 5 % at the walk length 20."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2000, 20))
    walks = np.empty_like(noise)
    walks[:, 0] = noise[:, 0]
    for t in range(1, 20):
        walks[:, t] = 0.693 * walks[:, t - 1] + np.sqrt(1 - 0.693**2) * noise[:, t]
    assert autocorrelation(walks, max_lag=1)[1] == pytest.approx(0.693, abs=0.01)


def test_nugget_is_undone():
    rng = np.random.default_rng(2)
    walks = walk(lambda z: float(z @ z), n_walks=30)
    noisy = walks + rng.normal(scale=walks.std(), size=walks.shape)
    attenuated = autocorrelation(noisy, max_lag=1)[1]
    assert attenuated == pytest.approx(A**2 / 2, abs=0.03)
    assert autocorrelation(noisy, max_lag=1, noise_variance=walks.var())[1] == pytest.approx(A**2, abs=0.04)


def test_flat_landscape_has_no_correlation():
    found = analyse_walks(np.full((4, 30), 2.5), a=A)
    assert np.isnan(found.rho_1.mean)
    assert found.rho_1.n_undefined == 4
    assert np.isnan(found.excess_ruggedness.mean)


def test_correlation_length_cases():
    assert correlation_length(-0.1) == 0.0
    assert correlation_length(1.0) == np.inf
    assert correlation_length(np.exp(-1 / 7)) == pytest.approx(7)


@pytest.mark.parametrize("field", [{"a": 1.0}, {"a": 0.0}, {"length": 2}, {"sigma": 0.0}, {"n_walks": 0}])
def test_plan_out_of_range_is_refused(field):
    with pytest.raises(UsageError):
        WalkPlan(**field)


def test_lag_beyond_the_walk_is_refused():
    with pytest.raises(UsageError, match="max_lag"):
        autocorrelation(np.zeros((2, 5)), max_lag=5)
