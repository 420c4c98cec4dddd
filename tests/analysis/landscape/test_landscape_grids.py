"""Extrema, slices and merge trees of sampled lines and planes."""

import time

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emergraph.analysis.landscape.extrema import count_extrema, noise_floor
from emergraph.analysis.landscape.merge_tree import leaf_climbs, merge_tree, summarise
from emergraph.analysis.landscape.slices import axis_positions, plane_convexity, summarise_slices
from emergraph.errors import UsageError

X = np.linspace(-1.5, 1.5, 61)
WELL = (X[:, None] ** 2 - 1) ** 2 + X**2
TILTED = WELL + 0.2 * X[:, None]
BOWL = X[:, None] ** 2 + 2 * X**2

small_grids = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 5))


def rastrigin(n):
    x = np.linspace(-5.12, 5.12, n)
    wave = x**2 - 10 * np.cos(2 * np.pi * x)
    return 20 + wave[:, None] + wave


def cells_around(grid, r, c, neighbours):
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            near = (dr or dc) and (neighbours == 8 or not (dr and dc))
            if near and 0 <= r + dr < grid.shape[0] and 0 <= c + dc < grid.shape[1]:
                yield r + dr, c + dc


def naive_zones(grid, neighbours):
    graph = nx.Graph()
    for r, c in np.ndindex(grid.shape):
        graph.add_node((r, c))
        for other in cells_around(grid, r, c, neighbours):
            if grid[other] == grid[r, c]:
                graph.add_edge((r, c), other)
    return list(nx.connected_components(graph))


def naive_minima(grid, neighbours):
    inside = rim = 0
    for zone in naive_zones(grid, neighbours):
        around = {o for cell in zone for o in cells_around(grid, *cell, neighbours)} - zone
        if around and all(grid[o] > grid[next(iter(zone))] for o in around):
            on_rim = any(
                c in (0, grid.shape[1] - 1) or (grid.shape[0] > 1 and r in (0, grid.shape[0] - 1))
                for r, c in zone
            )
            rim, inside = rim + on_rim, inside + (not on_rim)
    return inside, rim


def naive_pairs(grid, neighbours):
    """Persistence pairs by recomputing the components of every sublevel set from scratch."""
    order = sorted(np.ndindex(grid.shape), key=lambda c: (grid[c], c))
    rank = {c: i for i, c in enumerate(order)}
    alive, pairs = set(), []
    for i, cell in enumerate(order):
        level = set(order[: i + 1])
        graph = nx.Graph()
        graph.add_nodes_from(level)
        graph.add_edges_from((a, b) for a in level for b in cells_around(grid, *a, neighbours) if b in level)
        minima = {min(part, key=rank.__getitem__) for part in nx.connected_components(graph)}
        pairs += [grid[cell] - grid[dead] for dead in alive - minima]
        alive = minima
    return sorted(p for p in pairs if p > 0)


@given(small_grids, st.sampled_from([4, 8]))
@settings(max_examples=80, deadline=None)
def test_extrema_equal_the_naive_count(grid, neighbours):
    found = count_extrema(grid, neighbours=neighbours)
    assert (found.minima, found.boundary_minima) == naive_minima(grid, neighbours)
    assert (found.maxima, found.boundary_maxima) == naive_minima(-grid, neighbours)


@given(small_grids, st.sampled_from([4, 8]))
@settings(max_examples=80, deadline=None)
def test_persistence_equals_the_naive_filtration(grid, neighbours):
    tree = merge_tree(grid, neighbours=neighbours)
    assert sorted(tree.persistence[1:].tolist()) == pytest.approx(naive_pairs(grid, neighbours))
    assert np.isinf(tree.persistence[0])


@given(small_grids, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_floor_keeps_exactly_the_pairs_above_it(grid, floor):
    kept = [p for p in naive_pairs(grid, 4) if p > floor]
    tree = merge_tree(grid, floor=floor)
    assert sorted(tree.persistence[1:].tolist()) == kept
    assert tree.n_cancelled == len(naive_pairs(grid, 4)) - len(kept)


@given(small_grids)
@settings(max_examples=60, deadline=None)
def test_basins_cover_the_grid_and_hold_their_minimum(grid):
    tree = merge_tree(grid)
    assert tree.basin_cells().sum() == grid.size
    assert tree.basin.ravel()[tree.minima].tolist() == list(range(tree.n_minima))


@given(small_grids)
@settings(max_examples=60, deadline=None)
def test_barrier_tree_is_a_tree_that_climbs(grid):
    graph = merge_tree(grid).to_igraph()
    assert graph.is_tree(mode="in")
    assert all(weight >= 0 for weight in graph.es["weight"])
    assert sum(kind == "saddle" for kind in graph.vs["kind"]) <= max(
        sum(kind == "minimum" for kind in graph.vs["kind"]) - 1, 0
    )


@pytest.mark.parametrize("n", [41, 103, 205])
def test_rastrigin_has_121_minima(n):
    assert count_extrema(rastrigin(n)).minima == 121
    assert merge_tree(rastrigin(n)).n_minima == 121


def test_rastrigin_saddles_and_maxima():
    found = count_extrema(rastrigin(103))
    assert (found.maxima, found.saddles) == (100, 220)


@pytest.mark.parametrize(("neighbours", "density"), [(4, 1 / 5), (8, 1 / 9)])
def test_density_of_minima_in_noise(neighbours, density):
    grid = np.random.default_rng(0).normal(size=(402, 402))
    assert count_extrema(grid, neighbours=neighbours).minima / 400**2 == pytest.approx(density, rel=0.02)


def test_density_of_minima_in_one_dimension():
    line = np.random.default_rng(0).normal(size=60_002)
    assert count_extrema(line).minima / 60_000 == pytest.approx(1 / 3, rel=0.02)


@pytest.mark.parametrize(
    ("grid", "minima"),
    [(BOWL, 1), (X[:, None] + 0 * X, 1), (np.ones((9, 9)), 1)],
    ids=["bowl", "plane", "flat"],
)
def test_smooth_surfaces_have_no_pair_and_no_smad(grid, minima):
    tree = merge_tree(grid)
    assert tree.n_minima == minima
    found = summarise(tree)
    assert (found.smad, found.smad_normalised, found.smad_weighted, found.total_persistence) == (0, 0, 0, 0)


def test_extrema_of_smooth_surfaces():
    assert count_extrema(BOWL).minima == 1
    assert count_extrema(X[:, None] ** 2 - X**2).saddles == 1
    flat = count_extrema(np.ones((9, 9)))
    assert (flat.minima, flat.maxima, flat.boundary_minima, flat.boundary_maxima) == (0, 0, 0, 0)
    slope = count_extrema(X[:, None] + 0.5 * X)
    assert (slope.minima, slope.boundary_minima, slope.boundary_maxima) == (0, 1, 1)


def test_double_well():
    tree = merge_tree(WELL)
    assert tree.n_minima == 2
    assert tree.persistence[1] == pytest.approx(1.0)
    found = summarise(tree)
    assert found.smad == pytest.approx(1.0)
    assert found.smad_weighted == pytest.approx(0.5)
    assert sorted(tree.basin_cells()) == pytest.approx([61 * 30, 61 * 31])


def test_tilted_double_well():
    """Exact: barrier 0.8076, mean climb 1.0075; a grid of 61 gives 0.8055."""
    assert merge_tree(TILTED).persistence[1] == pytest.approx(0.8055, abs=1e-4)
    x = np.linspace(-1.5, 1.5, 1001)
    found = summarise(merge_tree((x**2 - 1) ** 2 + 0.2 * x))
    assert (found.max_persistence, found.smad) == pytest.approx((0.8076, 1.0075), abs=1e-4)


def test_smad_counts_the_first_saddle_of_every_minimum():
    line = [0.0, 5.0, 2.0, 3.0, 1.0]
    assert sorted(leaf_climbs(merge_tree(line))) == [1.0, 2.0, 5.0]
    assert sorted(merge_tree(line).persistence) == [1.0, 4.0, np.inf]


def test_persistence_is_unchanged_by_offset_and_scales_with_the_loss():
    plain, moved = summarise(merge_tree(TILTED)), summarise(merge_tree(3 * TILTED + 7))
    assert moved.total_persistence == pytest.approx(3 * plain.total_persistence)
    assert moved.smad_normalised == pytest.approx(plain.smad_normalised)


def test_noise_below_the_floor_makes_no_minima():
    """A fresh minibatch per point made 150 false minima; rounding is left, which the floor cancels."""
    flat_bottom = 1 + 1e-6 * BOWL + np.random.default_rng(1).normal(scale=2e-8, size=BOWL.shape)
    assert merge_tree(flat_bottom).n_minima > 20
    assert merge_tree(flat_bottom, floor=noise_floor(flat_bottom)).n_minima == 1


def test_noise_floor_takes_the_larger_of_rounding_and_repeats():
    assert noise_floor([-3.0, 2.0, np.inf]) == 12 * np.finfo(np.float32).eps
    assert noise_floor([1.0], repeats=[1.0, 1.5]) == 0.5


def test_broken_cells_are_walls_and_are_counted():
    """36 of 441 NaN cells were silently filled with the mean by another tool."""
    grid = BOWL.copy()
    grid[:, 30] = np.nan
    found = count_extrema(grid)
    assert (found.nonfinite, found.minima) == (61, 2)
    tree = merge_tree(grid)
    assert (tree.basin[:, 30] == -1).all()
    assert np.isinf(tree.persistence).sum() == 2
    with pytest.raises(UsageError, match="finite"):
        merge_tree(np.full((3, 3), np.nan))


def test_the_same_plane_gives_the_same_answer_and_is_not_changed():
    grid = rastrigin(41)
    kept = grid.copy()
    assert summarise(merge_tree(grid)) == summarise(merge_tree(grid))
    assert np.array_equal(grid, kept)


def test_topology_of_41_by_41_takes_milliseconds():
    grid = np.random.default_rng(0).normal(size=(41, 41))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        summarise(merge_tree(grid))
        times.append(time.perf_counter() - start)
    # 3 ms on an idle machine; the test machine may be busy.
    assert min(times) < 0.03


def test_axis_holds_an_exact_zero_and_its_stated_reach():
    x = axis_positions(0.7, 21)
    assert (x[0], x[10], x[20], x.size) == (-0.7, 0.0, 0.7, 21)
    with pytest.raises(UsageError, match="odd"):
        axis_positions(1.0, 20)


def test_slices_of_bowls_and_waves():
    x = axis_positions(1.0, 41)
    bowls = summarise_slices(np.outer([1.0, 2.0, 3.0], x**2), x, seed=3)
    assert (bowls.convexity.mean, bowls.asymmetry.mean, bowls.rise.mean) == (1.0, 0.0, 2.0)
    assert bowls.curvature.mean == pytest.approx(4.0)
    assert (bowls.rise.n, bowls.rise.seed) == (3, 3)
    assert summarise_slices(np.cos(2 * np.pi * x + 0.3), x).convexity.mean == pytest.approx(0.5, abs=0.05)
    assert summarise_slices(x, x).asymmetry.mean == 1.0


def test_broken_points_of_slices_are_counted():
    x = axis_positions(1.0, 5)
    found = summarise_slices([[1.0, 0, 0, 0, np.inf], [1, 0, 0, 0, 1]], x)
    assert (found.nonfinite, found.rise.n, found.rise.mean) == (1, 1, 1.0)


def test_convexity_of_planes():
    x = axis_positions(1.0, 21)
    assert plane_convexity(x[:, None] ** 2 + x**2 + 0.5 * np.outer(x, x)).convex_share == 1.0
    assert plane_convexity(x[:, None] ** 2 - x**2).convex_share == 0.0
    assert plane_convexity(x[:, None] ** 2 + x**2 + 3 * np.outer(x, x)).convex_share == 0.0
    assert plane_convexity(x[:, None] ** 2 + 0 * x).rise > 0
