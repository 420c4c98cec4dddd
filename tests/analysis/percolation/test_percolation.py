"""Percolation against step-by-step union, igraph, theory and simulation."""

import itertools

import igraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.edgesets.forest import find_merges, starting_components
from emergraph.analysis.edgesets.ordering import (
    descending,
    positions_by_block,
    shuffled_within_blocks,
)
from emergraph.analysis.layerednets import dense_net, layered_net
from emergraph.analysis.percolation import predictions
from emergraph.analysis.percolation.curve import merge_curve
from emergraph.analysis.percolation.edgelist import read_edges
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.percolation.predictions import (
    bipartite_giant,
    bipartite_threshold,
    branching_threshold,
    degree_threshold,
    layered_threshold,
)
from emergraph.analysis.percolation.reach import NEVER, first_reach
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind, LayerKind


def naive_sizes(n, src, dst, order, m):
    """Sizes of components after m edges, by igraph."""
    chosen = order[:m]
    graph = igraph.Graph(n=n, edges=list(zip(src[chosen].tolist(), dst[chosen].tolist(), strict=True)))
    return sorted(graph.connected_components(mode="weak").sizes())


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(0, 120))
@settings(max_examples=60, deadline=None)
def test_every_point_of_the_curve_is_what_igraph_finds(seed, n, m):
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, n, m), rng.integers(0, n, m)
    order = rng.permutation(m)
    curve = merge_curve(find_merges(src, dst, order, np.arange(n), np.ones(n, dtype=np.int64)))
    core = max(naive_sizes(n, src, dst, order, m))
    assert curve.n_core == core
    for k in range(m + 1):
        sizes = naive_sizes(n, src, dst, order, k)
        i = curve.at(k)
        assert curve.giant[i] == sizes[-1]
        assert curve.components[i] == len(sizes)
        if core == n:
            assert curve.susceptibility[i] == pytest.approx(sum(s * s for s in sizes[:-1]) / n)


def test_chunks_agree_with_one_edge_at_a_time():
    rng = np.random.default_rng(3)
    n, m = 3000, 60_000  # several chunks
    src, dst = rng.integers(0, n, m), rng.integers(0, n, m)
    order = rng.permutation(m)
    merges = find_merges(src, dst, order, np.arange(n), np.ones(n, dtype=np.int64))
    parent = list(range(n))

    def root(u):
        while parent[u] != u:
            parent[u] = u = parent[parent[u]]
        return u

    joined = []
    for position, edge in enumerate(order.tolist()):
        a, b = root(src[edge]), root(dst[edge])
        if a != b:
            parent[a] = b
            joined.append(position)
    assert merges.position.tolist() == joined


def test_units_outside_the_core_do_not_move_the_susceptibility():
    src, dst = np.array([0, 1, 2, 4]), np.array([1, 2, 3, 5])
    curve = merge_curve(
        find_merges(src, dst, np.array([3, 0, 1, 2]), np.arange(6), np.ones(6, dtype=np.int64))
    )
    assert curve.n_core == 4
    assert curve.giant.tolist() == [1, 2, 2, 3, 4]
    assert curve.susceptibility.tolist() == [0.75, 0.75, 0.5, 0.25, 0.0]


@given(
    st.lists(st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0])), max_size=50), st.booleans()
)
@settings(deadline=None)
def test_order_is_that_of_a_comparison_sort(values, wide):
    keys = np.array(values, dtype=np.float64 if wide else np.float32)
    ordered = descending(keys)
    expected = np.lexsort(
        (np.arange(len(keys)), -np.nan_to_num(keys, nan=0, posinf=np.inf, neginf=-np.inf), np.isnan(keys))
    )
    assert ordered.edges.tolist() == expected.tolist()
    assert len(ordered.group_end) == len(np.unique(keys, equal_nan=True))


def test_ties_are_shuffled_within_their_group_only():
    ordered = descending(np.array([2.0, 1.0, 1.0, 1.0, 3.0]))
    seen = {tuple(ordered.shuffled_ties(3, np.random.default_rng(seed))) for seed in range(60)}
    assert {order[:2] for order in seen} == {(4, 0)}
    assert len(seen) == 6
    assert sorted(ordered.ranks().tolist()) == [1, 2, 5, 5, 5]
    assert ordered.groups().tolist() == [0, 1, 2, 2, 2]


def test_shuffling_within_blocks_keeps_the_blocks_of_positions():
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(3), [4, 5, 6])
    order = rng.permutation(15)
    shuffled = shuffled_within_blocks(positions_by_block(order, block), np.array([0, 4, 9, 15]), rng)
    assert block[shuffled].tolist() == block[order].tolist()
    assert sorted(shuffled.tolist()) == list(range(15))
    assert shuffled.tolist() != order.tolist()


PUBLISHED = [
    (1000, 1000, 1.25, 0.371, 0.371, 0.138),
    (1000, 1000, 1.5, 0.583, 0.583, 0.340),
    (1000, 1000, 2, 0.797, 0.797, 0.635),
    (1000, 1000, 3, 0.940, 0.940, 0.884),
    (900, 18000, 1.25, 0.548, 0.1420, 0.0778),
    (900, 18000, 1.5, 0.790, 0.2328, 0.184),
    (900, 18000, 2, 0.955, 0.3477, 0.332),
    (900, 18000, 3, 0.999, 0.4882, 0.4875),
]


@pytest.mark.parametrize(("n_e", "n_k", "x", "s_e", "s_k", "pairs"), PUBLISHED)
def test_giant_shares_are_the_known_ones(n_e, n_k, x, s_e, s_k, pairs):
    found = bipartite_giant(n_e, n_k, x * bipartite_threshold(n_e, n_k))
    assert found == pytest.approx((s_e, s_k), abs=6e-4)
    assert found[0] * found[1] == pytest.approx(pairs, abs=6e-4)


def test_no_giant_below_threshold_and_its_slope_above():
    assert bipartite_giant(500, 2000, 999.9) == (0.0, 0.0)
    r = 2.0
    s_e, s_k = bipartite_giant(500, 2000, 1000 * 1.001)
    assert s_e == pytest.approx(4 * 0.001 * r / (1 + r), rel=0.01)
    assert s_k == pytest.approx(4 * 0.001 / (1 + r), rel=0.01)


@pytest.mark.parametrize(("n_e", "n_k"), [(500, 500), (500, 2000)])
def test_simulated_shares_and_peak_follow_the_theory(n_e, n_k):
    m_c = bipartite_threshold(n_e, n_k)
    rng = np.random.default_rng(1)
    runs, shares, peaks = 8, [], []
    for _ in range(runs):
        pairs = rng.permutation(n_e * n_k)
        src, dst = pairs // n_k, n_e + pairs % n_k
        n = n_e + n_k
        curve = merge_curve(
            find_merges(src, dst, np.arange(len(pairs)), np.arange(n), np.ones(n, dtype=np.int64))
        )
        peaks.append(curve.threshold / m_c)
        shares.append([curve.giant[curve.at(int(x * m_c))] / n for x in (1.5, 2, 3)])
    for x, share in zip((1.5, 2, 3), np.mean(shares, axis=0), strict=True):
        s_e, s_k = bipartite_giant(n_e, n_k, x * m_c)
        assert share == pytest.approx((n_e * s_e + n_k * s_k) / (n_e + n_k), abs=0.02)
    assert 1.0 < np.mean(peaks) < 1.15


def test_predictions_of_one_full_block():
    edges = read_edges(layered_net([np.ones((6, 24))]))
    assert layered_threshold(edges) * edges.n_edges == pytest.approx(bipartite_threshold(6, 24))
    assert degree_threshold(np.full(8, 2)) == 1.0
    assert degree_threshold(np.ones(4, dtype=np.int64)) == float("inf")
    (row,) = percolate(layered_net([np.ones((6, 24))])).layers.to_dicts()
    assert row["predicted"] == 12
    assert row["degree_threshold"] == pytest.approx(144 / (5 * 23) ** 0.5)


def test_random_regular_graph_percolates_where_the_degrees_say():
    rng = np.random.default_rng(5)
    graph = igraph.Graph.K_Regular(4000, 4)
    src, dst = np.array(graph.get_edgelist()).T
    peaks = []
    for _ in range(5):
        order = rng.permutation(len(src))
        curve = merge_curve(find_merges(src, dst, order, np.arange(4000), np.ones(4000, dtype=np.int64)))
        peaks.append(curve.threshold / len(src))
    assert np.mean(peaks) == pytest.approx(degree_threshold(np.full(4000, 4)), abs=0.04)


def residual_net(seed=0):
    """Two inputs, a dense layer, a junction with the inputs and an output; weights at random."""
    rng = np.random.default_rng(seed)
    layers = [
        UnitLayer(id=0, name="x", kind=LayerKind.INPUT, first_unit=0, n_units=2),
        UnitLayer(id=1, name="h", kind=LayerKind.DENSE, first_unit=2, n_units=2),
        UnitLayer(id=2, name="sum", kind=LayerKind.JUNCTION, first_unit=4, n_units=2),
        UnitLayer(id=3, name="y", kind=LayerKind.DENSE, first_unit=6, n_units=1),
    ]
    blocks = [
        UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=1, n_edges=4),
        UnitBlock(id=1, kind=EdgeKind.IDENTITY, layer=2, n_edges=4),
        UnitBlock(id=2, kind=EdgeKind.WEIGHT, layer=3, n_edges=2),
    ]
    columns = {
        0: {"src": np.array([0, 0, 1, 1]), "dst": np.array([2, 3, 2, 3]), "weight": rng.random(4)},
        1: {"src": np.array([0, 1, 2, 3]), "dst": np.array([4, 5, 4, 5])},
        2: {"src": np.array([4, 5]), "dst": np.array([6, 6]), "weight": rng.random(2)},
    }
    return from_arrays(layers, blocks, columns)


@pytest.mark.parametrize("seed", range(8))
def test_inputs_reach_outputs_when_a_path_is_complete(seed):
    edges = read_edges(residual_net(seed))
    ranks = np.random.default_rng(seed).permutation(edges.n_edges) + 1
    found = first_reach(edges, ranks)
    for unit, first in enumerate(found.tolist()):
        for m in range(edges.n_edges + 1):
            there = ranks <= m
            pairs = [*zip(edges.src[there].tolist(), edges.dst[there].tolist(), strict=True)]
            pairs += zip(edges.given_src.tolist(), edges.given_dst.tolist(), strict=True)
            reached = 6 in igraph.Graph(n=7, edges=pairs, directed=True).subcomponent(unit, mode="out")
            assert reached == (m >= first)


def test_structural_edges_are_there_or_left_out():
    given_edges = read_edges(residual_net())
    _, sizes = starting_components(7, given_edges.given_src, given_edges.given_dst)
    assert sorted(sizes.tolist()) == [1, 3, 3]
    absent = read_edges(residual_net(), structure="absent")
    assert len(absent.given_src) == 0
    assert (first_reach(absent, np.arange(1, absent.n_edges + 1)) == NEVER).all()
    assert percolate(residual_net()).n_given == 4


def test_orders_and_their_refusals():
    net = layered_net([np.array([[4.0, -9.0], [1.0, 0.0]]), np.array([[0.5], [2.0]])])
    assert percolate(net).observed.curves[0].edges.tolist() == [0, 1, 2, 3, 4]
    trace = UnitTrace.from_samples(np.array([[0.0, 1.0, 1.0, 1.0, 1.0]]))
    by_activity = percolate(net, "activity", trace=trace, options=PercolationOptions(seeds=2))
    assert by_activity.has_ties  # both edges of the silent input
    own = percolate(net, "mine", keys=np.array([1.0, 2.0, np.nan, 4.0, np.nan]))
    assert own.order == "mine"
    assert own.n_without_key == 2
    assert by_activity.n_without_key == 0
    assert [each.name for each in percolate(net, "random").series] == ["observed"]
    assert percolate(net, "degree").n_edges == 5
    with pytest.raises(
        UsageError,
        match="unknown order 'heaviest'; available: weight, random, degree, activity, contribution, or keys",
    ):
        percolate(net, "heaviest")
    with pytest.raises(UsageError, match="trace"):
        percolate(net, "activity")
    with pytest.raises(UsageError, match="expected one for each of 5 edges"):
        percolate(net, "mine", keys=np.zeros(4))
    with pytest.raises(UsageError, match="unknown structure 'some'; available: given, absent"):
        read_edges(net, structure="some")
    with pytest.raises(UsageError, match=r"unknown edge kind '.*'; available: weight"):
        read_edges(net, kinds=["wait"])
    with pytest.raises(UsageError, match="no edges with parameters"):
        read_edges(net, kinds=["gate"])
    with pytest.raises(UsageError, match="at least"):
        PercolationOptions(seeds=0)


def test_equal_weights_are_as_good_as_random():
    net = dense_net([30, 30])
    options = PercolationOptions(seeds=20, nulls=20)
    result = percolate(net, "mine", keys=np.zeros(900), options=options)
    low, high = result.observed.estimate.low, result.observed.estimate.high
    assert low < high
    assert low <= result.series[2].threshold <= high
    assert [row["state"] for row in result.comparisons()] == ["ok", "ok"]
    assert abs(result.comparisons()[1]["z"]) < 1.5


def test_a_null_without_variance_is_degenerate():
    result = percolate(layered_net([np.array([[1.0]]), np.array([[2.0]])]))
    assert {row["state"] for row in result.comparisons()} == {"degenerate"}


def test_a_strong_corner_grows_together_by_itself():
    """The strong weights are a full bipartite graph of 20 + 20 units: threshold near 20, not near 60."""
    rng = np.random.default_rng(0)
    weights = rng.random((60, 60))
    weights[:20, :20] += 1
    result = percolate(layered_net([weights]))
    assert result.observed.threshold == pytest.approx(20, abs=8)
    assert result.series[1].threshold == pytest.approx(60, abs=20)
    curve = result.curve().filter(series="observed")
    assert curve["giant"].is_sorted()
    assert curve["components"][-1] == 1
    assert curve["reach"][-1] == 1
    assert result.to_dict()["thresholds"][0]["half_reach"] == result.observed.half_reach


def branching(net):
    edges = read_edges(net)
    return branching_threshold(edges, components_of(edges)[0]) * edges.n_edges


def components_of(edges):
    components, sizes = starting_components(edges.graph.n_units, edges.given_src, edges.given_dst)
    return components, len(sizes)


def test_degrees_are_counted_on_each_side_of_each_block():
    dense = layered_net([np.ones(shape) for shape in ((784, 32), (32, 16), (16, 10))])
    result = percolate(dense, "random", options=PercolationOptions(seeds=15, nulls=0))
    assert result.layered_threshold == pytest.approx(161, abs=0.5)
    assert result.degree_threshold == pytest.approx(163.7, abs=0.5)  # both sides in one: 62
    # a graph of this size peaks a tenth to a quarter later, see docs/percolation.md
    assert 1.05 < result.observed.threshold / result.degree_threshold < 1.35
    assert branching(layered_net([np.ones((6, 24))])) == pytest.approx(144 / (5 * 23) ** 0.5)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_uneven_degrees_move_the_threshold_that_layers_alone_predict(scale):
    rng = np.random.default_rng(scale)
    sizes = [600 * scale, 300 * scale, 150 * scale]
    weights = []
    for n, m in itertools.pairwise(sizes):
        chance = rng.lognormal(0, 0.8, size=(n, 1)) * rng.lognormal(0, 0.8, size=(1, m))
        weights.append((rng.random((n, m)) < np.minimum(chance / chance.mean() * 6 / m, 1)).astype(float))
    result = percolate(layered_net(weights), "random", options=PercolationOptions(seeds=10, nulls=0))
    assert 1.0 < result.observed.threshold / result.degree_threshold < 1.45
    assert result.degree_threshold < 0.8 * result.layered_threshold


def test_a_unit_with_one_edge_leads_nowhere():
    assert branching(layered_net([np.eye(5)])) == float("inf")


def test_many_blocks_have_the_same_largest_eigenvalue_without_all_the_others(monkeypatch):
    net = layered_net([np.ones((3, 4)), np.ones((4, 5)), np.ones((5, 2))])
    exact = branching(net)
    monkeypatch.setattr(predictions, "DENSE_SIDES", 5)
    assert branching(net) == pytest.approx(exact)


def test_structure_that_is_given_joins_the_degrees_of_its_units():
    net = residual_net()
    edges = read_edges(net)
    components, n = components_of(edges)
    assert n < edges.graph.n_units
    counts = np.bincount(np.concatenate([components[edges.src], components[edges.dst]]), minlength=n)
    assert counts.sum() == 2 * edges.n_edges
    assert 0 < branching(net) < np.inf


@pytest.mark.parametrize("order", ["weight", "degree", "random"])
def test_orders_that_are_made_gradually_give_the_same_answers(monkeypatch, order):
    rng = np.random.default_rng(3)
    weights = [np.round(rng.normal(size=shape), 2) for shape in ((12, 20), (20, 20), (20, 6))]
    weights[1][rng.random((20, 20)) < 0.4] = 0.0
    net = layered_net(weights)
    whole = percolate(net, order)
    for module in ("edgelist", "percolate"):
        monkeypatch.setattr(f"emergraph.analysis.percolation.{module}.GRADUAL_EDGES", 10)
    gradually = percolate(net, order)
    for name in ("n_edges", "has_ties", "degree_threshold", "layered_threshold", "n_without_key"):
        assert getattr(gradually, name) == pytest.approx(getattr(whole, name))
    if order != "random":  # draws are others
        ours, theirs = gradually.observed, whole.observed
        assert np.array_equal(ours.reach, theirs.reach)
        assert len(ours.curves) == len(theirs.curves)
        for one, other in zip(ours.curves, theirs.curves, strict=True):
            assert one.edges[-1] == pytest.approx(other.edges[-1], rel=0.1)
        exact = ["block", "n_src", "n_dst", "n_edges", "predicted", "degree_threshold"]
        assert gradually.layers.select(exact).equals(whole.layers.select(exact))


def test_thresholds_of_many_layers_and_of_few_are_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    edges = read_edges(layered_net([rng.normal(size=shape) for shape in ((6, 9), (9, 5), (5, 8))]))
    few = layered_threshold(edges), branching_threshold(edges, np.arange(28))
    monkeypatch.setattr(predictions, "DENSE_SIDES", 0)
    many = layered_threshold(edges), branching_threshold(edges, np.arange(28))
    assert many == pytest.approx(few, rel=1e-9)
    assert few[0] == pytest.approx(0.0908436, rel=1e-6)
