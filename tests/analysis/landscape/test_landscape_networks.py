"""Local-optima networks, sampled ones, mask hypercubes and NK landscapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nk import expected_rho, nk_landscape
from scipy.optimize import minimize

from emergraph.analysis.landscape.evaluator import FunctionEvaluator
from emergraph.analysis.landscape.hypercube import (
    attractors,
    epistasis,
    exact_autocorrelation,
    hypercube_lon,
    main_effects,
    pair_effects,
    summarise_hypercube,
    walsh_coefficients,
    walsh_spectrum,
)
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.lon import build_lon, compressed, monotonic, summarise_lon
from emergraph.analysis.landscape.optima import matching_key, position_key, sample_lon
from emergraph.analysis.landscape.tasks import mask_tasks
from emergraph.errors import UsageError


def popcount(x):
    return bin(x).count("1")


def onemax(n):
    return np.array([float(popcount(x)) for x in range(2**n)])


def number_partitioning(n, seed):
    weights = np.random.default_rng(seed).integers(1, 2**n, size=n)
    signs = np.array([[1 - 2 * (x >> i & 1) for i in range(n)] for x in range(2**n)])
    return np.abs(signs @ weights).astype(float)


def direct_rho(values, s):
    """Correlation along all s-step random walks, by powers of the transition matrix."""
    m = len(values).bit_length() - 1
    states = np.arange(len(values))
    transition = np.zeros((len(values), len(values)))
    for i in range(m):
        transition[states, states ^ (1 << i)] += 1 / m
    centred = values - values.mean()
    return centred @ np.linalg.matrix_power(transition, s) @ centred / (centred @ centred)


values_of_bits = st.integers(1, 5).flatmap(
    lambda m: st.lists(st.integers(-5, 5), min_size=2**m, max_size=2**m).map(lambda v: np.array(v, float))
)


@given(values_of_bits)
@settings(max_examples=50, deadline=None)
def test_walsh_transform_equals_the_definition_and_inverts(values):
    n = len(values)
    signs = np.array([[(-1) ** popcount(x & s) for x in range(n)] for s in range(n)])
    w = walsh_coefficients(values)
    assert w == pytest.approx(signs @ values / n)
    assert signs @ w == pytest.approx(values)


@given(values_of_bits)
@settings(max_examples=50, deadline=None)
def test_autocorrelation_from_the_spectrum_is_exact(values):
    found = exact_autocorrelation(values, max_lag=4)
    if np.ptp(values) == 0:
        assert np.isnan(found).all()
        return
    assert walsh_spectrum(values).sum() == pytest.approx(1)
    assert found == pytest.approx([direct_rho(values, s) for s in range(5)], abs=1e-12)


def test_the_identity_holds_to_the_last_digits_on_nk():
    values = nk_landscape(10, 3, seed=5)
    assert exact_autocorrelation(values, max_lag=1)[1] == pytest.approx(direct_rho(values, 1), abs=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_nk_autocorrelation_follows_the_corrected_formula(k):
    rho = [exact_autocorrelation(nk_landscape(10, k, seed=s), max_lag=1)[1] for s in range(300)]
    error = np.std(rho) / np.sqrt(len(rho))
    # The formula is a ratio of expectations: a small bias remains beside the sampling error.
    assert np.mean(rho) == pytest.approx(expected_rho(10, k), abs=4 * error + 0.006)
    if k in (1, 2, 3):
        assert abs(np.mean(rho) - (1 - (k + 1) / 10)) > 8 * error


def test_nk_without_interaction_is_exactly_additive():
    for seed in range(5):
        values = nk_landscape(10, 0, seed=seed)
        assert exact_autocorrelation(values, max_lag=1)[1] == pytest.approx(1 - 2 / 10, abs=1e-12)
        found = summarise_hypercube(values, eps=1e-12)
        assert found.n_minima == 1
        assert found.additive_share == pytest.approx(1)
        assert found.epistasis.none == 1.0
        assert hypercube_lon(values).vcount() == 1


def test_nk_with_all_interactions_has_two_to_the_n_over_n_plus_one_optima():
    counts = [summarise_hypercube(nk_landscape(10, 9, seed=s)).n_minima for s in range(150)]
    assert np.mean(counts) == pytest.approx(2**10 / 11, abs=4 * np.std(counts) / np.sqrt(len(counts)))


def test_nk_value_is_the_mean_of_its_tables():
    tables = np.random.default_rng(7).uniform(size=(5, 8))
    x = 0b10110
    bits = [x >> i & 1 for i in range(5)]
    expected = np.mean([tables[i, sum(bits[(i + j) % 5] << j for j in range(3))] for i in range(5)])
    assert nk_landscape(5, 2, seed=7)[x] == pytest.approx(expected)


def test_onemax_is_one_node_without_edges():
    graph = hypercube_lon(onemax(6))
    assert (graph.vcount(), graph.ecount()) == (1, 0)
    assert graph.vs["basin"] == [64]
    found = summarise_lon(graph)
    assert (found.n_optima, found.n_funnels, found.sink_strength, found.global_funnel_size) == (1, 1, None, 1)


@pytest.mark.parametrize("seed", range(5))
def test_number_partitioning_against_an_exhaustive_search(seed):
    values = number_partitioning(6, seed)
    attractor, lon = attractors(values), hypercube_lon(values, flips=2)
    for x in range(64):
        here = x
        while True:
            best = min((x2 for x2 in (here ^ (1 << i) for i in range(6))), key=lambda y: values[y])
            if values[best] >= values[here]:
                break
            here = best
        assert values[attractor[x]] == values[here]
    minima = [x for x in range(64) if all(values[x ^ (1 << i)] >= values[x] for i in range(6))]
    assert set(lon.vs["state"]) <= set(minima)
    assert sum(lon.vs["basin"]) == 64
    node = {state: i for i, state in enumerate(lon.vs["state"])}
    weights = {}
    for state in lon.vs["state"]:
        for kick in range(1, 64):
            if popcount(kick) <= 2:
                pair = node[state], node[int(attractor[state ^ kick])]
                if pair[0] != pair[1]:
                    weights[pair] = weights.get(pair, 0) + 1
    assert dict(zip(lon.get_edgelist(), lon.es["weight"], strict=True)) == weights


def test_epistasis_of_known_faces():
    assert epistasis([0.0, 1.0, 1.0, 3.0]).magnitude == 1.0
    assert epistasis([0.0, 1.0, 2.0, 1.5]).sign == 1.0
    assert epistasis([0.0, 1.0, 1.0, 0.0]).reciprocal_sign == 1.0
    assert epistasis([0.0, 1.0, 1.0, 2.1], eps=0.2).none == 1.0


@given(values_of_bits)
@settings(max_examples=40, deadline=None)
def test_effects_are_means_over_backgrounds(values):
    m = len(values).bit_length() - 1
    main, pairs = main_effects(values), pair_effects(values)
    for i in range(m):
        off = [x for x in range(2**m) if not x >> i & 1]
        assert main[i] == pytest.approx(np.mean([values[x | 1 << i] - values[x] for x in off]))
        for j in range(i):
            both = [x for x in off if not x >> j & 1]
            faces = [
                values[x | 1 << i | 1 << j] - values[x | 1 << i] - values[x | 1 << j] + values[x]
                for x in both
            ]
            assert pairs[i, j] == pytest.approx(np.mean(faces))


def test_masks_are_enumerated_and_the_weights_left_alone():
    base = np.array([1.0, 2, 4, 8], dtype=np.float32)
    evaluator = FunctionEvaluator(lambda t: float(t.sum()), base, Layout.of_shapes([(4,)]))
    tasks = mask_tasks((np.array([0]), np.array([1, 3])), chunk=3)
    values = np.concatenate([task.run(evaluator) for task in tasks])
    assert values.tolist() == [15.0, 14.0, 5.0, 4.0]
    assert base.tolist() == [1, 2, 4, 8]
    with pytest.raises(UsageError, match="share"):
        mask_tasks((np.array([0]), np.array([0])))
    with pytest.raises(UsageError, match="14"):
        mask_tasks(tuple(np.array([i]) for i in range(15)))


def test_funnels_of_a_hand_made_network():
    # 0 <-> 1 equal losses, both lead to 2 (global); 3 is a sink of its own, reached from 4.
    lon = build_lon([2.0, 2, 0, 1, 3], [0, 1, 1, 4, 4, 2], [1, 0, 2, 3, 2, 4], [1, 1, 3, 2, 1, 1])
    mlon = monotonic(lon)
    assert (lon.ecount(), mlon.ecount()) == (6, 5)
    cmlon = compressed(mlon)
    assert (cmlon.vcount(), sorted(cmlon.vs["optima"])) == (4, [1, 1, 1, 2])
    found = summarise_lon(lon, final_losses=[0.0, 1.0])
    assert (found.n_funnels, found.n_global_funnels, found.neutral) == (2, 1, pytest.approx(1 / 5))
    assert found.sink_strength == pytest.approx(4 / 6)
    assert found.global_strength == pytest.approx(4 / 6)
    assert found.global_funnel_size == pytest.approx(4 / 5)
    assert (found.success, found.deviation) == (0.5, 0.5)


def test_returns_to_the_same_optimum_are_no_edges_and_repeats_add_up():
    lon = build_lon([1.0, 0.0], [0, 0, 0], [0, 1, 1])
    assert lon.es["weight"] == [2.0]
    with pytest.raises(UsageError, match="optima"):
        build_lon([1.0], [0], [1])


def test_rastrigin_has_one_funnel():
    def rastrigin(x):
        return float(20 + np.sum(x**2 - 10 * np.cos(2 * np.pi * x)))

    def slope(x):
        return 2 * x + 20 * np.pi * np.sin(2 * np.pi * x)

    def descend(x):
        found = minimize(rastrigin, x, jac=slope, method="L-BFGS-B", bounds=[(-5.12, 5.12)] * 2)
        return found.x, float(found.fun)

    rng = np.random.default_rng(0)
    lon = sample_lon(
        rng.uniform(-5.12, 5.12, size=(6, 2)),
        descend,
        lambda x, g: np.clip(x + g.uniform(-1.2, 1.2, size=2), -5.12, 5.12),
        position_key(1e-2),
        patience=60,
        seed=1,
    )
    found = summarise_lon(lon.graph, precision=1e-6, final_losses=lon.final_losses)
    assert found.n_funnels == found.n_global_funnels == 1
    assert found.n_optima > 10
    assert lon.positions.shape == (found.n_optima, 2)
    assert lon.descents > 6 * 61
    assert lon.unexplored > 0


def test_equal_functions_are_one_optimum():
    """Copies by symmetry (x and -x) are two positions and one function."""
    starts = np.array([[-1.3], [1.1]])

    def descend(x):
        return np.sign(x), 0.0

    def kick(x, _rng):
        return -0.5 * x

    by_position = sample_lon(starts, descend, kick, position_key(0.1), patience=3)
    by_function = sample_lon(starts, descend, kick, matching_key(lambda x: x**2, 0.1), patience=3)
    assert (by_position.graph.vcount(), by_function.graph.vcount()) == (2, 1)
