"""Estimators of mutual information against closed forms, counting twins, and each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from emergraph.analysis.information.codes import LARGEST, code_information, distinct_states
from emergraph.analysis.information.estimate import BITS
from emergraph.analysis.information.measure import (
    Inputs,
    _within,
    gaussian_information,
    ksg_information,
    log_det_bias,
    measure,
    project,
    whitened,
    whitened_information,
)
from emergraph.analysis.information.mine import bound, mine_information
from emergraph.analysis.information.options import (
    EstimatorName,
    EstimatorOptions,
    MineOptions,
    Projection,
    affordable_dimensions,
)
from emergraph.errors import UsageError

KNOWN = {
    (1, 0.3): 0.06803,
    (1, 0.5): 0.20752,
    (1, 0.8): 0.73697,
    (1, 0.9): 1.19796,
    (1, 0.99): 2.82554,
    (5, 0.9): 5.9898,
    (10, 0.5): 2.0752,
    (20, 0.5): 4.1504,
}
"""-d/2 log2(1 - rho^2), bits."""


def correlated(n, d, rho, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n, d))


@pytest.mark.parametrize(("d", "rho"), KNOWN)
def test_gaussian_estimates_of_many_samples_meet_the_closed_form(d, rho):
    found = [gaussian_information(*correlated(4000, d, rho, seed)) for seed in range(5)]
    assert np.mean(found) == pytest.approx(KNOWN[d, rho], abs=0.03)


def test_gaussian_bias_is_exact_for_few_samples():
    # 24 samples, 3 + 2 dimensions: the plain plug-in is off by 0.2 bits, the mean of corrected ones is not
    n, p, q = 24, 3, 2
    rng = np.random.default_rng(1)
    draws = [(rng.standard_normal((n, p)), rng.standard_normal((n, q))) for _ in range(1500)]
    found = [gaussian_information(x, y) for x, y in draws]
    bias = 0.5 * (log_det_bias(p, n) + log_det_bias(q, n) - log_det_bias(p + q, n)) * BITS
    assert bias > 0.2
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found)) < 0.04


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=25)
def test_gaussian_information_is_that_of_determinants_and_invariant(seed, p, q):
    rng = np.random.default_rng(seed)
    both = rng.standard_normal((60, p + q)) @ rng.standard_normal((p + q, p + q))
    x, y = both[:, :p], both[:, p:]
    found = gaussian_information(x, y)
    covariance = np.cov(both.T).reshape(p + q, p + q)
    dets = [np.linalg.slogdet(part)[1] for part in (covariance[:p, :p], covariance[p:, p:], covariance)]
    bias = 0.5 * (log_det_bias(p, 60) + log_det_bias(q, 60) - log_det_bias(p + q, 60))
    assert found == pytest.approx((0.5 * (dets[0] + dets[1] - dets[2]) - bias) * BITS, abs=1e-6)
    mapped = x @ rng.standard_normal((p, p)) + rng.standard_normal(p)
    assert gaussian_information(mapped, 3 * y - 1) == pytest.approx(found, abs=1e-6)
    assert gaussian_information(y, x) == pytest.approx(found, abs=1e-9)
    assert whitened_information(whitened(x), whitened(y)) == pytest.approx(found, abs=1e-6)


def test_gaussian_information_obeys_the_data_processing_inequality():
    x, y = correlated(4000, 5, 0.9)
    rest = [gaussian_information(x, y[:, :kept]) for kept in (5, 4, 3, 2, 1)]
    assert rest == sorted(rest, reverse=True)
    assert gaussian_information(x, y + correlated(4000, 5, 0)[1]) < rest[0]


def test_deterministic_and_constant_vectors():
    x = correlated(200, 2, 0)[0]
    assert gaussian_information(x, x @ [[1.0], [2.0]]) == np.inf
    assert gaussian_information(x, np.ones((200, 1))) == 0
    assert measure(x, np.full((200, 3), 7.0)).value == 0


def test_too_few_samples_are_refused():
    with pytest.raises(UsageError, match="project to fewer"):
        gaussian_information(*correlated(20, 10, 0.5))


def test_ksg_meets_the_closed_form_in_one_dimension_and_is_refused_beyond_two():
    found = [ksg_information(*correlated(1000, 1, 0.9, seed)) for seed in range(6)]
    assert np.mean(found) == pytest.approx(KNOWN[1, 0.9], abs=0.07)
    with pytest.raises(UsageError, match="gaussian or mine"):
        ksg_information(*correlated(1000, 3, 0.9))
    assert ksg_information(*correlated(1000, 5, 0.9), force=True) == pytest.approx(3.84, abs=0.5)
    with pytest.raises(UsageError, match="at most 2"):
        EstimatorOptions(estimator=EstimatorName.KSG, dimensions=5)


def test_ksg_is_what_its_definition_says():
    x, y = correlated(60, 1, 0.7)
    n, k, total = len(x), 3, 0.0
    psi = np.concatenate(
        [[np.nan], -0.5772156649 + np.concatenate([[0], np.cumsum(1 / np.arange(1, n + 1))])]
    )
    a, b = ((v - v.mean()) / v.std() for v in (x[:, 0], y[:, 0]))
    for i in range(n):
        dx, dy = np.abs(a - a[i]), np.abs(b - b[i])
        radius = np.sort(np.maximum(dx, dy))[k]
        total += psi[(dx < radius).sum()] + psi[(dy < radius).sum()]
    assert ksg_information(x, y) == pytest.approx((psi[k] + psi[n] - total / n) * BITS, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=5, max_size=60))
@settings(max_examples=30)
def test_counting_is_the_sum_over_the_table(pairs):
    x, y = np.array(pairs).T
    n, total = len(x), 0.0
    for a, b in set(pairs):
        joint = np.mean((x == a) & (y == b))
        total += joint * np.log(joint / (np.mean(x == a) * np.mean(y == b)))
    excess = len(set(pairs)) - len(set(x)) - len(set(y)) + 1
    assert code_information(x, y) == pytest.approx((total - excess / (2 * n)) / np.log(2), abs=1e-9)


def test_states_are_told_apart_up_to_the_last_bits():
    rows = np.array([[1.0, 2.0], [1.0, 2.0 + 1e-7], [1.0, 2.1], [0.0, -0.0], [-0.0, 0.0]])
    assert len(set(distinct_states(rows))) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e101])
def test_states_that_cannot_be_computed_with_are_not_told_apart(value):
    with pytest.raises(UsageError, match=r"not finite|beyond"):
        distinct_states(np.array([[1.0, 2.0], [1.0, value]]))


@pytest.mark.parametrize("estimator", [e for e in EstimatorName if e != EstimatorName.MINE])
def test_discrete_codes_are_at_their_entropy(estimator):
    codes = np.random.default_rng(0).integers(0, 8, 1500)
    points = np.random.default_rng(1).standard_normal((8, 2))[codes]
    dims = 1 if estimator == EstimatorName.KSG else 2
    options = EstimatorOptions(estimator=estimator, dimensions=dims, repeats=10)
    found = measure(points, points**3, inputs=Inputs.of_codes(codes), options=options)
    if estimator == EstimatorName.GAUSSIAN:
        assert 0.5 < found.value <= 3  # it sees the linear part only
        linear = measure(points, 2 * points, inputs=Inputs.of_codes(codes), options=options)
        assert linear.raw == np.inf
        assert (linear.value, linear.at_ceiling) == (3, True)
        assert np.isnan(linear.interval).all()
    else:
        assert found.value == pytest.approx(3, abs=0.02)


def test_codes_tell_no_more_than_the_samples_can():
    """1,500 different states: the plug-in less its bias says 11.26 bits, log2 of what was seen is 10.55."""
    states = np.arange(1500)[:, None]
    found = measure(
        states, states, inputs=Inputs(300_000), options=EstimatorOptions(estimator="codes", repeats=4)
    )
    assert found.raw == pytest.approx(11.27, abs=0.01)
    assert found.ceiling == pytest.approx(np.log2(1500))
    assert (found.value, found.at_ceiling) == (found.ceiling, True)
    few = measure(states, states % 7, options=EstimatorOptions(estimator="codes", repeats=4))
    assert few.ceiling == pytest.approx(np.log2(7))
    assert (
        measure(states, states, inputs=Inputs(64), options=EstimatorOptions(estimator="codes")).ceiling == 6
    )


def test_mine_of_discrete_codes_is_at_their_entropy():
    codes = np.random.default_rng(0).integers(0, 8, 800)
    options = EstimatorOptions(estimator=EstimatorName.MINE, repeats=5)
    found = measure(np.eye(8)[codes], np.eye(8)[codes], inputs=Inputs.of_codes(codes), options=options)
    assert found.value == pytest.approx(3, abs=0.2)
    assert found.ceiling == 3


def test_mine_meets_the_closed_form_on_samples_that_it_has_not_seen():
    found = mine_information(*correlated(4000, 5, 0.9))
    assert found.value == pytest.approx(KNOWN[5, 0.9], abs=0.45)
    assert found.scores.shape == (1000, 1000)


def test_mine_learns_what_is_not_linear():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (800, 1))
    y = x**2 + 0.1 * rng.standard_normal((800, 1))
    assert gaussian_information(x, y) < 0.02
    found = mine_information(x, y, options=MineOptions(steps=350, batch=128))
    assert found.value == pytest.approx(ksg_information(x, y), abs=0.35)


@pytest.mark.parametrize("permutations", [0, 3])
def test_mine_of_independent_vectors_is_nothing(permutations):
    options = EstimatorOptions(
        estimator=EstimatorName.MINE, dimensions=10, repeats=20, mine=MineOptions(permutations=permutations)
    )
    found = measure(*correlated(500, 50, 0.0), options=options)
    assert np.isnan(found.interval).all()  # a lower bound: nothing says how far below
    assert -0.3 < found.value < 0.3


def test_one_permutation_is_refused():
    with pytest.raises(UsageError, match="unlimited"):
        MineOptions(permutations=1)


@given(st.integers(0, 10**6), st.integers(2, 40))
@settings(max_examples=30)
def test_the_bound_is_its_definition_and_below_the_ceiling(seed, n):
    rng = np.random.default_rng(seed)
    scores = 5 * rng.standard_normal((n, n))
    off = [np.exp(scores[i, j]) for i in range(n) for j in range(n) if i != j]
    own = np.exp(np.diag(scores))
    product = 0.9 * np.mean(off) + 0.1 * own.mean()
    assert bound(scores, 0.1) == pytest.approx((np.diag(scores).mean() - np.log(product)) * BITS, abs=1e-9)
    # a critic that knows every pair by heart gains no more than log2 N for N equally likely inputs
    assert bound(scores + 1e3 * np.eye(n), 1 / 64) <= 6 + 1e-9
    # weights are repeats that never make a pair of different samples
    weights = rng.integers(0, 3, n).astype(float)
    if (weights > 0).sum() > 1:
        drawn = np.repeat(np.arange(n), weights.astype(int))
        pairs = [np.exp(scores[i, j]) for i in drawn for j in drawn if i != j]
        expected = (scores[drawn, drawn].mean() - np.log(np.mean(pairs))) * BITS
        assert bound(scores, 0.0, weights) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("estimator", [EstimatorName.GAUSSIAN, EstimatorName.KSG])
def test_independent_vectors_have_zero_in_their_interval(estimator):
    inside = 0
    for seed in range(8):
        options = EstimatorOptions(estimator=estimator, dimensions=1, repeats=40, seed=seed)
        low, high = measure(*correlated(400, 1, 0.0, seed), options=options).interval
        inside += low <= 0 <= high
    assert inside >= 6


def test_intervals_are_as_wide_as_the_scatter():
    options = EstimatorOptions(dimensions=2, repeats=60)
    found = [measure(*correlated(500, 2, 0.6, seed), options=options) for seed in range(60)]
    scatter = np.std([estimate.raw for estimate in found])
    told = np.mean([estimate.deviations.std() for estimate in found])
    assert told == pytest.approx(scatter, rel=0.3)


def test_inputs_of_a_sample_without_repeats_and_with():
    once = Inputs.of_codes(np.arange(100), population=1000)
    assert (once.ceiling, once.collision) == (pytest.approx(np.log2(1000)), 1 / 1000)
    often = Inputs.of_codes(np.repeat(np.arange(4), 50))
    assert (often.ceiling, often.collision) == (2, pytest.approx(0, abs=0.01))
    assert Inputs().ceiling == np.inf


def test_projection_keeps_the_large_directions():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((300, 6)) * [9, 5, 1, 0.1, 0.1, 0.1]
    found = project(values, 2)
    assert found.values.shape == (300, 2)
    assert found.share == pytest.approx((values.var(axis=0)[:2].sum() / values.var(axis=0).sum()), abs=0.01)
    assert project(values, 6).values is values
    random = project(values, 2, how=Projection.RANDOM, seed=1)
    assert random.share < found.share
    assert affordable_dimensions(1000) == 20
    with pytest.raises(UsageError, match="at least 1"):
        project(values, 0)


def test_random_projections_scatter_over_seeds():
    options = EstimatorOptions(dimensions=1, projection=Projection.RANDOM, seeds=4, repeats=40)
    found = measure(*correlated(800, 6, 0.9), options=options)
    assert len(found.diagnostics["seeds"]) == 4
    assert found.interval[0] < found.value < found.interval[1]


def test_samples_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="expected"):
        measure(np.zeros((5, 2)), np.zeros((6, 2)))
    with pytest.raises(UsageError, match="finite"):
        measure(np.full((50, 2), np.nan), np.zeros((50, 2)))


@pytest.mark.parametrize("estimator", [EstimatorName.GAUSSIAN, EstimatorName.KSG, EstimatorName.CODES])
@pytest.mark.parametrize("factor", [1e-90, 1e90])
def test_the_scale_of_samples_changes_nothing(estimator, factor):
    options = EstimatorOptions(estimator=estimator, dimensions=1, repeats=4)
    x, y = correlated(200, 3, 0.8)
    expected = measure(x, y, options=options).value
    assert measure(factor * x, y, options=options).value == pytest.approx(expected, rel=1e-6)


def test_samples_out_of_range_are_refused():
    x, y = correlated(50, 2, 0.5)
    x[0, 0] = LARGEST
    assert np.isfinite(measure(x, y).value)
    assert np.isfinite(measure(x.clip(-3, 3).astype(np.float32), y.astype(np.float16)).value)
    x[0, 0] = -1.01 * LARGEST
    with pytest.raises(UsageError, match="beyond 1e"):
        measure(x, y)
    with pytest.raises(UsageError, match="complex"):
        measure(y, y.astype(complex))


def test_truth_values_are_0_and_1():
    x, y = correlated(200, 2, 0.9)
    expected = measure((x > 0).astype(float), y).value
    assert measure(x > 0, y).value == pytest.approx(expected)
    assert measure(np.zeros((50, 2), bool), y[:50]).value == 0


@pytest.mark.parametrize("kind", ["continuous", "tied", "constant", "tiny", "huge"])
def test_neighbours_on_a_line_are_those_of_the_tree(kind):
    rng = np.random.default_rng(3)
    values = {
        "continuous": rng.standard_normal(200),
        "tied": np.round(rng.standard_normal(200), 1),
        "constant": np.ones(20),
        "tiny": rng.standard_normal(200) * 1e-300,
        "huge": rng.standard_normal(200) * 1e100,
    }[kind][:, None]
    tree = cKDTree(values)
    nearest = tree.query(values, k=4, p=np.inf)[0][:, -1]
    for radius in (np.nextafter(nearest, 0), nearest, np.zeros(len(values)), 7.3 * nearest):
        expected = tree.query_ball_point(values, radius, p=np.inf, return_length=True) - 1
        assert (_within(values, radius) == expected).all()
