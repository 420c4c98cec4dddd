"""Topology against closed forms, igraph and naive counts."""

import itertools

import igraph
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.topology.analysis import finding_of
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.analysis.topology.survey import backbone, disparity, survey_edges
from emergraph.analysis.topology.topology import (
    block_motifs,
    layer_fluctuation,
    neural_persistence,
    topology,
    unit_strengths,
)
from emergraph.analysis.topology.weightededges import WeightedEdges, igraph_of, weighted_edges
from emergraph.analysis.topology.weightspectra import power_law_tail, spectral_fit, squared_singular_values
from emergraph.analysis.topology.wholegraph import find_communities, rich_club, small_world
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import InvalidInputError, UsageError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind

NET = layered_net([np.array([[1.0, 3.0], [-2.0, 0.0]]), np.array([[2.0], [-1.0]])])


def of_pairs(pairs, weights, n):
    src, dst = np.array(pairs, dtype=np.int64).T
    return WeightedEdges(n_units=n, src=src, dst=dst, weight=np.array(weights, dtype=float), n_left_out=0)


def test_fluctuation_is_the_known_one_with_and_without_bias():
    bias = np.array([np.nan, np.nan, 10.0, 0.0, np.nan])
    units = unit_strengths(NET, bias=bias)
    assert units["strength"][2:4].to_list() == [1.0, 2.0]
    assert units["strength_with_bias"][2:4].to_list() == [11.0, 2.0]
    assert layer_fluctuation(NET, units["strength"].to_numpy())[1] == 0.5
    assert layer_fluctuation(NET, units["strength_with_bias"].to_numpy())[1] == 4.5
    assert units["in_degree"].to_list() == [0, 0, 2, 1, 2]
    assert units["out_abs"].to_list() == [4, 2, 2, 1, 0]
    assert units["strength_abs"].to_list() == [4, 2, 5, 4, 3]
    layers = topology(NET).layers
    assert layers["strength_median"].to_list() == [3.0, 4.5, 3.0]
    assert layers["strength_p05"].to_list() == pytest.approx([2.1, 4.05, 3.0])
    assert layers["strength_p95"].to_list() == pytest.approx([3.9, 4.95, 3.0])


def test_strengths_are_those_of_igraph():
    rng = np.random.default_rng(0)
    net = layered_net([rng.standard_normal((6, 5)) * (rng.random((6, 5)) < 0.6), rng.standard_normal((5, 4))])
    edges = weighted_edges(net)
    graph = igraph_of(edges, directed=True)
    units = unit_strengths(net)
    for mode in ("in", "out"):
        assert units[f"{mode}_strength"].to_list() == pytest.approx(
            graph.strength(mode=mode, weights=edges.weight.tolist())
        )
        assert units[f"{mode}_degree"].to_list() == graph.degree(mode=mode)


@pytest.mark.parametrize(
    ("matrix", "expected", "normalised"),
    [
        ([[1, 0.5], [0.25, 0]], 0.901388, 0.520416),
        ([[1, 1], [1, 1]], 0, 0),
        ([[1, 0], [0, 1]], 1, 3**-0.5),
        ([[1, 0.5], [0, 0]], 1.25**0.5, 0.645497),  # a unit without edges dies at 0
    ],
)
def test_neural_persistence_is_the_known_one(matrix, expected, normalised):
    matrix = np.array(matrix, dtype=float)
    src, dst = np.nonzero(matrix)
    found = neural_persistence(src, dst + 2, matrix[src, dst], n_units=4, w_max=1.0)
    assert found == pytest.approx((expected, normalised), abs=1e-6)


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_neural_persistence_is_that_of_the_spanning_tree_of_igraph(seed):
    matrix = np.random.default_rng(seed).standard_normal((5, 7))
    src, dst = np.nonzero(matrix)
    graph = igraph.Graph(n=12, edges=list(zip(src.tolist(), (dst + 5).tolist(), strict=True)))
    strength = np.abs(matrix[src, dst]) / np.abs(matrix).max()
    tree = graph.spanning_tree(weights=(-strength).tolist(), return_tree=False)
    expected = np.sqrt(((1 - strength[tree]) ** 2).sum())
    found, _ = neural_persistence(src, dst + 5, matrix[src, dst], n_units=12, w_max=np.abs(matrix).max())
    assert found == pytest.approx(expected)


@given(st.integers(0, 1000), st.floats(0.1, 1.0))
@settings(max_examples=25, deadline=None)
def test_motifs_are_what_counting_finds(seed, density):
    matrix = np.random.default_rng(seed).random((5, 6)) < density
    src, dst = np.nonzero(matrix)
    butterflies = sum(
        int(matrix[a, c] and matrix[a, d] and matrix[b, c] and matrix[b, d])
        for a, b in itertools.combinations(range(5), 2)
        for c, d in itertools.combinations(range(6), 2)
    )
    found = block_motifs(src, dst + 5)
    assert found["butterflies"] == butterflies
    assert found["diverging"] == sum(k * (k - 1) // 2 for k in matrix.sum(axis=1).tolist())
    assert found["converging"] == sum(k * (k - 1) // 2 for k in matrix.sum(axis=0).tolist())


def test_butterflies_of_a_sparse_block():
    src, dst = np.array([0, 1, 0, 1, 7]), np.array([100, 100, 163, 163, 120])
    spread = np.arange(2, 62)
    found = block_motifs(np.concatenate([src, spread]), np.concatenate([dst, 101 + spread]))
    assert found["butterflies"] == 1


def test_disparity_of_a_star_and_of_single_edges():
    star = of_pairs([(0, 1), (0, 2), (0, 3)], [8.0, 1.0, -1.0], 4)
    assert disparity(star) == pytest.approx([0.04, 0.81, 0.81])
    assert backbone(star, 0.05).dst.tolist() == [1]
    assert disparity(of_pairs([(0, 1)], [5.0], 2)).tolist() == [1.0]
    assert disparity(of_pairs([(0, 1), (0, 2)], [5.0, 0.0], 3)).tolist() == [0.0, 1.0]
    with pytest.raises(UsageError, match="alpha"):
        backbone(star, 0.0)


@pytest.mark.parametrize(
    ("z", "draws", "said"),
    [(4.0, 3, "not told apart from"), (6.0, 3, "more modular than"), (-4.0, 9, "less modular than")],
)
def test_the_finding_knows_how_few_draws_it_has(z, draws, said):
    names = ("units", "components", "communities", "modularity", "modularity, null mean", "modularity, z")
    finding = finding_of(dict(zip(names, (20, 1, 3, 0.4, 0.3, z), strict=True)), draws=draws)
    assert f"{said} the same edges with shuffled weights" in finding
    assert f"{draws} draws" in finding


def test_communities_are_found_and_compared_with_shuffled_weights():
    """Two groups of eight, strong inside and weak between."""
    pairs = list(itertools.combinations(range(16), 2))
    weights = [1.0 if (a < 8) == (b < 8) else 0.01 for a, b in pairs]
    graph = igraph.Graph(n=16, edges=pairs)
    found = find_communities(graph, np.array(weights), draws=5, seed=1)
    assert found.n_communities == 2
    assert len(set(found.membership[:8].tolist())) == 1
    assert found.modularity == pytest.approx(graph.modularity(found.membership.tolist(), weights=weights))
    assert found.modularity == pytest.approx(0.5 - 64 * 0.01 / (56 + 0.64), abs=1e-12)
    assert found.z > 5
    again = find_communities(graph, np.array(weights), draws=5, seed=1)
    assert again.null_modularities.tolist() == found.null_modularities.tolist()
    assert find_communities(graph, np.ones(len(pairs)), draws=3, seed=1).z is None


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_rich_club_is_that_of_networkx(seed):
    graph = igraph.Graph(n=15, edges=list(nx.gnm_random_graph(15, 40, seed=seed).edges))
    expected = nx.rich_club_coefficient(nx.Graph(graph.get_edgelist()), normalized=False)
    found = {row["k"]: row["phi"] for row in rich_club(graph).to_dicts()}
    for k, phi in found.items():
        if k in expected:
            assert phi == pytest.approx(expected[k])
    assert len(set(found) & set(expected)) >= 3


def test_small_world_of_a_ring_of_neighbours():
    ring = igraph.Graph.Watts_Strogatz(1, 60, 3, 0.0)
    found = small_world(ring, seed=0)
    assert found["transitivity"] == pytest.approx(0.6)
    assert found["mean_path"] == pytest.approx(ring.average_path_length())
    assert found["sigma"] > 1
    assert small_world(igraph.Graph.Full_Bipartite(3, 4), seed=0)["sigma"] is None


PLANTED = (1 - (np.arange(200) + 0.5) / 200) ** -0.5


def test_spectrum_with_a_planted_tail_is_the_known_one():
    fit = spectral_fit(PLANTED)
    assert fit.alpha == pytest.approx(3.008506, abs=1e-6)
    assert fit.d == pytest.approx(0.003364, abs=1e-6)
    assert fit.alpha_hat == pytest.approx(3.914156, abs=1e-6)
    assert fit.stable_rank == pytest.approx(19.572277, abs=1e-6)
    assert fit.log_alpha_norm == pytest.approx(np.log10((PLANTED**fit.alpha).sum()))
    assert (fit.status, fit.n_tail) == ("ok", 200)


def test_tail_fit_is_that_of_a_naive_search():
    values = np.random.default_rng(4).pareto(1.5, 60) + 0.2
    best = None
    for x_min in np.sort(values)[:-1]:
        tail = np.sort(values[values >= x_min])
        alpha = 1 + len(tail) / np.log(tail / x_min).sum()
        d = max(abs(1 - (x / x_min) ** (1 - alpha) - i / len(tail)) for i, x in enumerate(tail))
        if best is None or d < best[1]:
            best = (alpha, d, x_min, len(tail))
    assert power_law_tail(values) == pytest.approx(best)


def test_spectra_of_simple_matrices():
    assert squared_singular_values(np.diag([3.0, 4.0])).tolist() == [9.0, 16.0]
    tall = np.random.default_rng(0).standard_normal((600, 1800))
    svd = np.sort(np.linalg.svd(tall, compute_uv=False) ** 2)
    assert squared_singular_values(tall) == pytest.approx(svd, rel=1e-9)
    equal = spectral_fit(np.ones(8))
    assert (equal.alpha, equal.status) == (None, "no fit")
    assert equal.stable_rank == 8
    assert equal.entropy == pytest.approx(1)
    assert spectral_fit(np.array([1.0, 2.0, 3.0])).status == "short tail"
    with pytest.raises(InvalidInputError):
        spectral_fit(np.zeros(3))


def test_the_whole_table_agrees_with_igraph():
    rng = np.random.default_rng(2)
    net = layered_net([rng.standard_normal((8, 6)) * (rng.random((8, 6)) < 0.5), rng.standard_normal((6, 4))])
    result = topology(net)
    edges = weighted_edges(net).joined()
    graph, plain = igraph_of(edges, directed=True), igraph_of(edges, directed=False)
    assert result.units["pagerank"].to_list() == pytest.approx(
        graph.pagerank(weights=edges.strength.tolist())
    )
    assert result.units["betweenness"].to_list() == pytest.approx(graph.betweenness())
    assert result.units["coreness"].to_list() == plain.coreness()
    values = dict(result.measures.select("measure", "value").iter_rows())
    assert values["degree assortativity"] == pytest.approx(plain.assortativity_degree())
    assert values["pairs of units"] == edges.src.size
    assert result.layers["sources"].to_list() == [0, 1, 1]
    assert result.layers["betweenness"].to_list() == [0, 1, 0]


def test_limits_move_measures_to_the_backbone_and_say_so():
    weights = np.ones((6, 6))
    np.fill_diagonal(weights, 50.0)
    result = topology(layered_net([weights]), options=TopologyOptions(max_edges=10, max_paths=100))
    on = dict(result.measures.select("measure", "on").iter_rows())
    assert on["modularity"] == "backbone"
    assert on["betweenness, largest"] == "backbone"
    assert any("exceed the limit of 10" in note for note in result.notes)
    nothing = topology(layered_net([weights]), options=TopologyOptions(max_paths=0))
    assert nothing.units["betweenness"].null_count() == 12
    assert any("left out" in note for note in nothing.notes)


def test_weights_that_are_not_finite_are_left_out_and_counted():
    edges = weighted_edges(layered_net([np.array([[1.0, np.nan], [np.inf, -2.0]])]))
    assert edges.n_left_out == 2
    assert edges.strength.tolist() == [1.0, 2.0]
    assert topology(layered_net([np.array([[1.0, np.nan], [np.inf, -2.0]])])).notes[0].startswith("2 edges")


def test_repeated_pairs_are_joined():
    joined = of_pairs([(0, 1), (0, 2), (0, 1)], [1.0, 2.0, -3.0], 3).joined()
    assert joined.weight.tolist() == [4.0, 2.0]
    assert joined.dst.tolist() == [1, 2]


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="alpha"):
        TopologyOptions(alpha=0)
    with pytest.raises(UsageError, match="nulls: expected at least 0, found -1"):
        TopologyOptions(nulls=-1)
    with pytest.raises(UsageError, match=r"unknown kinds 'wait'"):
        topology(NET, options=TopologyOptions(kinds=("wait",)))


def test_neural_persistence_of_a_stored_block_counts_units_without_edges():
    net = layered_net([np.array([[1.0, 0.5], [0.0, 0.0]])])
    assert topology(net).blocks["persistence_normalised"].to_list() == pytest.approx([0.645497], abs=1e-6)


def test_pruning_never_lowers_neural_persistence():
    weights = np.random.default_rng(4).standard_normal((8, 6))
    weights[0, 0] = 5.0  # the largest weight stays
    found = []
    for share in (0.0, 0.3, 0.6, 0.9):
        kept = np.where(np.abs(weights) >= np.quantile(np.abs(weights), share), weights, 0.0)
        found += topology(layered_net([kept])).blocks["persistence"].to_list()
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.5


@pytest.mark.parametrize("most", [10_000, 30])
def test_edges_passed_over_in_pieces_tell_what_those_in_memory_do(monkeypatch, most):
    net = residual_net()
    whole = survey_edges(net, PATH_KINDS, alpha=0.3, most=10_000)
    monkeypatch.setattr("emergraph.analysis.topology.survey.MANY_EDGES", 10)
    pieces = survey_edges(net, PATH_KINDS, alpha=0.3, most=min(most, net.n_edges - 1))
    assert pieces.pairs is None
    assert (pieces.n_pairs, pieces.n_left_out) == (whole.n_pairs, whole.n_left_out)
    assert pieces.strength == pytest.approx(whole.strength)
    for name in ("src", "dst"):
        assert np.array_equal(getattr(pieces.links, name), getattr(whole.links, name))
    assert pieces.links.weight == pytest.approx(whole.links.weight)
    if most > len(whole.strong.src):
        assert pieces.alpha == 0.3
        assert np.array_equal(pieces.strong.src, whole.strong.src)
        assert np.array_equal(pieces.strong.dst, whole.strong.dst)
        assert pieces.strong.weight == pytest.approx(whole.strong.weight)
        return
    p = np.sort(disparity(whole.pairs))
    assert pieces.alpha == pytest.approx(p[most])
    assert len(pieces.strong.src) == most


def residual_net():
    """A net in which two blocks lead from one layer to another, one of them without weights."""
    rng = np.random.default_rng(4)
    layers = [
        UnitLayer(id=k, name=f"l{k}", kind=LayerKind.DENSE, first_unit=first, n_units=n)
        for k, (first, n) in enumerate([(0, 12), (12, 12), (24, 8)])
    ]
    full, last = np.arange(12), np.arange(24, 32)
    blocks = [
        UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=1, n_edges=144, src_units=full, dst_units=full + 12),
        UnitBlock(id=1, kind=EdgeKind.IDENTITY, layer=1, n_edges=12),
        UnitBlock(id=2, kind=EdgeKind.WEIGHT, layer=2, n_edges=96, src_units=full + 12),
        UnitBlock(id=3, kind=EdgeKind.WEIGHT, layer=2, n_edges=96, src_units=full),
    ]
    columns = {
        0: {"src": np.repeat(full, 12), "dst": np.tile(full + 12, 12), "weight": rng.normal(size=144)},
        1: {"src": full, "dst": full + 12, "weight": np.full(12, np.nan)},
        2: {"src": np.repeat(full + 12, 8), "dst": np.tile(last, 12), "weight": rng.normal(size=96)},
        3: {"src": np.repeat(full, 8), "dst": np.tile(last, 12), "weight": rng.normal(size=96)},
    }
    columns[3]["weight"][5] = np.inf
    return from_arrays(layers, blocks, columns)
