"""Sharpness, connectivity, trajectories and symmetries, on quadratics with known answers."""

import itertools

import numpy as np
import pytest

from emergraph.analysis.landscape.canonical import DenseNet, balanced, canonical_dense, match_dense, permuted
from emergraph.analysis.landscape.curvature import (
    average_sharpness,
    keskar_sharpness,
    worst_case_ascent,
    worst_case_sampled,
)
from emergraph.analysis.landscape.lines import line_barrier, sample_line
from emergraph.analysis.landscape.trajectories import random_walk_share, trajectory_pca
from emergraph.errors import UsageError


@pytest.fixture
def quadratic():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(12, 12))
    a, centre = factor @ factor.T / 12, rng.normal(size=12)
    return a, centre, lambda t: float((t - centre) @ a @ (t - centre)) / 2, lambda t: a @ (t - centre)


def test_worst_case_on_a_quadratic_is_half_rho_squared_lambda_max(quadratic):
    a, centre, loss, gradient = quadratic
    found = worst_case_ascent(loss, gradient, centre, np.ones(12), rho=0.3, steps=200)
    assert found.rise == pytest.approx(0.3**2 * np.linalg.eigvalsh(a)[-1] / 2, rel=1e-6)
    assert found.method == "ascent"


def test_adaptive_worst_case_uses_the_metric_of_the_weights(quadratic):
    a, centre, loss, gradient = quadratic
    t = np.abs(centre)
    found = worst_case_ascent(loss, gradient, centre, t, rho=0.3, steps=200)
    assert found.rise == pytest.approx(
        0.3**2 * np.linalg.eigvalsh(t[:, None] * a * t)[-1] / 2,
        rel=1e-6,
    )


def test_sampled_worst_case_is_a_lower_bound_that_says_so(quadratic):
    a, centre, loss, _ = quadratic
    found = worst_case_sampled(loss, centre, np.ones(12), rho=0.3, n=200)
    assert 0 < found.rise < 0.3**2 * np.linalg.eigvalsh(a)[-1] / 2
    assert found.method == "sampled"
    assert found.rises.n == 200


def test_average_on_a_quadratic_is_half_sigma_squared_trace(quadratic):
    a, centre, loss, _ = quadratic
    scale = np.abs(centre)
    found = average_sharpness(loss, centre, scale, sigma=0.5, n=4000, seed=1)
    expected = 0.5**2 * np.sum(np.diag(a) * scale**2) / 2
    assert found.low <= expected <= found.high
    assert found.mean == pytest.approx(expected, rel=0.05)


def test_antithetic_pairs_cancel_the_slope_exactly():
    found = average_sharpness(lambda t: float(t.sum()), np.zeros(4), np.ones(4), sigma=1.0, n=5)
    assert found.mean == pytest.approx(0, abs=1e-15)


def test_keskar_box_on_a_separable_quadratic():
    base = np.array([1.0, -3.0])
    curvature = np.array([2.0, 1.0])

    def loss(t):
        return float(curvature @ (t - base + 1e-9) ** 2) / 2

    found = keskar_sharpness(loss, lambda t: curvature * (t - base + 1e-9), base, eps=0.1)
    box = 0.1 * (np.abs(base) + 1)
    assert found == pytest.approx(100 * float(curvature @ box**2) / 2, rel=1e-6)


def test_a_convex_line_has_no_barrier_and_the_exact_midpoint(quadratic):
    a, _, loss, _ = quadratic
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 12))
    found = line_barrier(*sample_line(loss, first, second, n=21))
    assert found.barrier == pytest.approx(0, abs=1e-12)
    assert found.midpoint_excess == pytest.approx(-(first - second) @ a @ (first - second) / 8)
    assert found.connectivity > 0


def test_double_well_has_barrier_one():
    found = line_barrier(
        *sample_line(lambda x: float((x[0] ** 2 - 1) ** 2), np.array([-1.0]), np.array([1.0]), n=41)
    )
    assert (found.barrier, found.at, found.connectivity) == (1.0, 0.5, -1.0)


def test_ends_of_a_line_are_bit_exact():
    seen = []
    first, second = np.array([0.1, 0.7]), np.array([0.3, 1 / 3])
    sample_line(lambda x: seen.append(x.copy()) or 0.0, first, second, n=7)
    assert np.array_equal(seen[0], first)
    assert np.array_equal(seen[-1], second)


def test_a_broken_line_is_refused():
    with pytest.raises(UsageError, match="not finite"):
        line_barrier([0, 0.5, 1], [0, np.nan, 1])
    with pytest.raises(UsageError, match="ascending"):
        line_barrier([0, 0.5, 0.9], [0, 1, 1])


def test_explained_variance_of_a_random_walk_is_the_null():
    assert [round(random_walk_share(k), 3) for k in (1, 2, 3)] == [0.608, 0.152, 0.068]
    walk = np.random.default_rng(0).normal(size=(200, 4000)).cumsum(axis=0)
    found = trajectory_pca(walk, k=3)
    assert found.explained == pytest.approx(found.random_walk, abs=0.02)
    assert found.random_walk == pytest.approx([random_walk_share(k) for k in (1, 2, 3)], abs=0.005)


def test_shares_of_a_finite_random_walk_are_the_mean_gram_spectrum():
    steps = np.tril(np.ones((6, 6)))
    centre = np.eye(6) - 1 / 6
    spectrum = np.sort(np.linalg.eigvalsh(centre @ steps @ steps.T @ centre))[::-1]
    expected = [random_walk_share(k, 6) for k in range(1, 7)]
    assert expected == pytest.approx(spectrum / spectrum.sum(), abs=1e-12)


def test_components_equal_the_singular_vectors():
    points = np.random.default_rng(1).normal(size=(8, 30))
    found = trajectory_pca(points, k=3)
    _, s, vt = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    assert np.abs(found.directions @ vt[:3].T) == pytest.approx(np.eye(3), abs=1e-9)
    assert found.explained == pytest.approx((s**2 / np.sum(s**2))[:3])
    rebuilt = found.mean + found.coordinates @ found.directions
    assert np.linalg.norm(points - rebuilt, axis=1) == pytest.approx(found.residual)


def test_a_trajectory_that_does_not_move_is_refused():
    with pytest.raises(UsageError, match="change"):
        trajectory_pca(np.ones((4, 3)))
    with pytest.raises(UsageError, match="more than 2"):
        trajectory_pca(np.ones((2, 3)))


@pytest.fixture
def net():
    rng = np.random.default_rng(5)
    sizes = [3, 6, 5, 2]
    weights = tuple(rng.normal(size=(b, a)) for a, b in itertools.pairwise(sizes))
    return DenseNet(weights, tuple(rng.normal(size=b) for b in sizes[1:]))


def forward(net, x):
    for k, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        x = x @ w.T + b
        x = np.maximum(x, 0) if k < len(net.weights) - 1 else x
    return x


def scrambled(net, seed):
    rng = np.random.default_rng(seed)
    copy = permuted(net, [rng.permutation(6), rng.permutation(5)])
    weights, biases = [w.copy() for w in copy.weights], [b.copy() for b in copy.biases]
    for k in range(2):
        c = rng.uniform(0.2, 5, size=len(biases[k]))
        weights[k], biases[k] = weights[k] * c[:, None], biases[k] * c
        weights[k + 1] = weights[k + 1] / c
    return DenseNet(tuple(weights), tuple(biases))


def test_copies_by_permutation_and_scale_have_one_canonical_form(net):
    x = np.random.default_rng(0).normal(size=(10, 3))
    reference = canonical_dense(net)
    for seed in range(5):
        copy = scrambled(net, seed)
        assert forward(copy, x) == pytest.approx(forward(net, x))
        assert canonical_dense(copy).flat() == pytest.approx(reference.flat(), rel=1e-6)
        assert forward(canonical_dense(copy), x) == pytest.approx(forward(net, x))


def test_balanced_units_have_equal_norms_on_both_sides(net):
    found = balanced(scrambled(net, 1))
    for k in range(2):
        incoming = np.sqrt(np.sum(found.weights[k] ** 2, axis=1) + found.biases[k] ** 2)
        assert incoming == pytest.approx(np.linalg.norm(found.weights[k + 1], axis=0), rel=1e-6)


def test_a_permuted_copy_has_a_barrier_that_matching_removes_exactly(net):
    x = np.random.default_rng(0).normal(size=(50, 3))
    target = forward(net, x)
    copy = permuted(net, [np.random.default_rng(1).permutation(6), np.random.default_rng(2).permutation(5)])

    def loss(flat):
        parts, at = [], 0
        for shape in [s for w, b in zip(net.weights, net.biases, strict=True) for s in (w.shape, b.shape)]:
            size = int(np.prod(shape))
            parts.append(flat[at : at + size].reshape(shape))
            at += size
        return float(np.mean((forward(DenseNet(tuple(parts[::2]), tuple(parts[1::2])), x) - target) ** 2))

    before = line_barrier(*sample_line(loss, net.flat(), copy.flat()))
    assert before.barrier > 0.1
    assert before.ends == pytest.approx((0, 0))
    matched = match_dense(net, copy)
    assert np.array_equal(matched.flat(), net.flat())
    assert line_barrier(*sample_line(loss, net.flat(), matched.flat())).barrier == pytest.approx(0, abs=1e-20)


def test_shapes_that_do_not_chain_are_refused(net):
    with pytest.raises(UsageError, match="layer 1"):
        DenseNet((np.ones((2, 3)), np.ones((1, 4))), (np.ones(2), np.ones(1)))
    with pytest.raises(UsageError, match="equal layer sizes"):
        match_dense(net, DenseNet((np.ones((2, 3)),), (np.ones(2),)))
