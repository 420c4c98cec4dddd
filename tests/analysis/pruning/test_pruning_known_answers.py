"""Known answers of the project's definitions, section 5."""

import numpy as np
import pytest

from emergraph.analysis.edgesets.edgetable import read_edge_table
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.pruning.criteria import UnitActivations, scores
from emergraph.analysis.pruning.items import prunable_items
from emergraph.analysis.pruning.measures import measure
from emergraph.analysis.pruning.options import Criterion, PruningOptions, PruningUnit
from emergraph.analysis.pruning.removal import (
    nested_removal,
    prune_by_scores,
    prune_by_synflow,
    prune_n_of_m,
)
from emergraph.analysis.pruning.selection import removal_levels
from emergraph.analysis.pruning.views import what_if_view
from emergraph.analysis.pruning.whatif import prune_graph
from emergraph.errors import UsageError

W1, W2 = np.array([[1.0, -2.0], [3.0, 0.0]]), np.array([[2.0, -1.0]])
"""(out, in), as the definitions print them."""


def net(*matrices):
    return layered_net([np.asarray(m, dtype=float).T for m in matrices])


def masked(*masks):
    """All edges of a full net, removed where the masks (out, in) are 0."""
    graph = net(*(np.ones_like(np.asarray(m, dtype=float)) for m in masks))
    items = prunable_items(read_edge_table(graph), "edge")
    kept = np.concatenate([np.asarray(m).T.ravel() for m in masks])
    return measure(nested_removal(items, kept.astype(np.uint8), [0.5])).row(0, named=True)


def test_direct_and_effective_sparsity():
    row = masked([[1, 0], [0, 1], [0, 0]], [[1, 0, 0], [0, 0, 1]])
    assert row["sparsity"] == pytest.approx(2 / 3)
    assert row["compression"] == pytest.approx(3)
    assert row["effective_sparsity"] == pytest.approx(5 / 6)
    assert row["effective_compression"] == pytest.approx(6)
    assert not row["disconnected"]
    assert row["disconnected_outputs"] == 1
    assert row["bottleneck_width"] == 1


def test_disconnected():
    row = masked([[1, 0], [0, 1], [0, 0]], [[0, 0, 0], [0, 0, 1]])
    assert row["sparsity"] == pytest.approx(0.75)
    assert row["effective_sparsity"] == 1.0
    assert row["effective_compression"] == np.inf
    assert row["disconnected"]
    assert row["collapsed_layers"] == 0
    assert row["effectively_collapsed_layers"] == 2


def test_layer_collapse():
    row = masked([[0, 0], [0, 0], [0, 0]], [[1, 0, 0], [0, 0, 1]])
    assert row["collapsed_layers"] == 1
    assert row["effectively_collapsed_layers"] == 2


def test_global_threshold_keeps_two_of_four_ties():
    assert removal_levels(np.ones(4), np.zeros(4, dtype=int), [0.5]).tolist() == [0, 0, 1, 1]


def by_matrix(graph, scored):
    items = prunable_items(read_edge_table(graph), "edge")
    found = [np.zeros_like(W1), np.zeros_like(W2)]
    for block in items.table.blocks:
        first_src = graph.layers[block.target - 1].first_unit
        first_dst = graph.layers[block.target].first_unit
        found[block.target - 1][block.dst - first_dst, block.src - first_src] = scored[block.edges]
    return found


def test_synflow_scores_and_flow():
    graph = net(W1, W2)
    items = prunable_items(read_edge_table(graph), "edge")
    first, second = by_matrix(graph, scores(Criterion.SYNFLOW, items))
    factor = 9 / second.sum()
    np.testing.assert_allclose(first * factor, [[2, 4], [3, 0]])
    np.testing.assert_allclose(second * factor, [[6, 3]])
    row = measure(prune_by_scores(items, items.magnitude, [0.0])).row(0, named=True)
    assert 10 ** row["log10_path_norm_l1"] == pytest.approx(9)
    assert 10 ** row["log10_path_norm_l2"] == pytest.approx(5.385165, abs=1e-6)


def test_path_norms_do_not_change_under_rescaling():
    rescaled = net(W1 * [[10.0], [1.0]], W2 / [[10.0, 1.0]])
    row = prune_graph(rescaled, PruningOptions(levels=(0.0,))).frame.row(0, named=True)
    assert 10 ** row["log10_path_norm_l1"] == pytest.approx(9)
    assert 10 ** row["log10_path_norm_l2"] == pytest.approx(5.385165, abs=1e-6)


def test_flow_of_a_net_deeper_than_float64():
    row = prune_graph(net(*[np.full((3, 3), 1e30)] * 40), PruningOptions(levels=(0.0,))).frame.row(
        0, named=True
    )
    assert row["log10_path_norm_l1"] == pytest.approx(40 * 30 + 41 * np.log10(3))
    saliency = scores(
        Criterion.SYNFLOW, prunable_items(read_edge_table(net(*[np.full((3, 3), 1e30)] * 40)), "edge")
    )
    np.testing.assert_allclose(saliency, saliency[0])


def test_n_of_m_keeps_the_largest_and_counts_zeros():
    graph = net([[1.0, 0.5, 0.25, 2.0, 0.0, 3.0, 0.1, 4.0]])
    items = prunable_items(read_edge_table(graph), "edge")
    removal = prune_n_of_m(items, 2, 4)
    alive = removal.edges > 0
    kept = items.table.blocks[0].weight[alive]
    assert kept.tolist() == [1.0, 2.0, 3.0, 4.0]
    again = prunable_items(read_edge_table(net([[1.0, 0, 0, 2.0, 0, 3.0, 0, 4.0]])), "edge")
    assert prune_n_of_m(again, 2, 4).removed().tolist() == [0]


def test_iterative_synflow_avoids_the_layer_collapse_of_magnitude():
    random = np.random.default_rng(0)
    matrices = [random.normal(size=(8, 8)), 1e-3 * random.normal(size=(8, 8)), random.normal(size=(4, 8))]
    items = prunable_items(read_edge_table(net(*matrices)), "edge")
    collapsed = measure(prune_by_scores(items, items.magnitude, [0.9])).row(0, named=True)
    kept = measure(prune_by_synflow(items, 0.9, rounds=50)).row(0, named=True)
    assert collapsed["disconnected"]
    assert not kept["disconnected"]
    assert kept["removed_items"] == round(0.9 * items.n)


def test_wanda_multiplies_by_the_norm_of_the_input():
    graph = net([[1.0, 2.0]])
    items = prunable_items(read_edge_table(graph), "edge")
    activations = UnitActivations(mean_abs=np.ones(3), rms=np.array([10.0, 1.0, 1.0]))
    assert scores(Criterion.WANDA, items, activations=activations).tolist() == [10.0, 2.0]


def test_units_go_by_the_norm_of_their_incoming_weights():
    graph = net([[3.0, 4.0], [1.0, 1.0], [0.5, 6.0]], np.ones((1, 3)))
    items = prunable_items(read_edge_table(graph), PruningUnit.UNIT)
    np.testing.assert_allclose(scores(Criterion.L2, items), [5.0, 2**0.5, 36.25**0.5])
    row = prune_graph(graph, PruningOptions(criterion="l2", levels=(1 / 3,))).frame.row(0, named=True)
    assert row["kept_parameters"] == 9 - 3
    assert row["new_dead_units"] == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"levels": (1.0,)}, "level 1"),
        ({"levels": (-0.1,)}, "level -0.1"),
        ({"levels": (float("nan"),)}, "levels: expected a finite number, found nan"),
        ({"levels": ()}, "0 levels"),
        ({"criterion": "magic"}, "unknown criterion"),
        ({"criterion": "4:2"}, "0 < N < M"),
        ({"scope": "town"}, "unknown scope"),
        ({"unit": "brick"}, "unknown unit"),
        ({"seeds": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(change, expected):
    with pytest.raises(UsageError, match=expected):
        PruningOptions(**change)


@pytest.mark.parametrize(
    "options",
    [
        {"criterion": "wanda"},
        {"criterion": "activation"},
        {"criterion": "l2", "unit": "edge"},
        {"where": "1"},
    ],
    ids=lambda o: o.get("criterion", "where"),
)
def test_criteria_without_what_they_need_are_refused(options):
    with pytest.raises(UsageError):
        prune_graph(net(W1, W2), PruningOptions(**options))


def test_the_first_line_sets_both_scopes_beside_each_other():
    """The second layer is small as a whole, so that all layers together lose it first."""
    graph = layered_net([np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.1], [0.2]])])
    levels = (0.0, 0.4, 0.6, 0.8)
    together = prune_graph(graph, PruningOptions(levels=levels))
    assert together.reaches == {"global": 0.0, "layer": 0.6}
    assert "with the smallest of each layer 60 % (--scope layer)" in what_if_view(together).finding
    apart = prune_graph(graph, PruningOptions(levels=levels, scope="layer"))
    assert apart.reaches == {"layer": 0.6, "global": 0.0}
    assert apart.frame["disconnected_outputs"].to_list() == [0, 0, 0, 1]


@pytest.mark.parametrize("options", [{"criterion": "random"}, {"criterion": "2:4"}, {"levels": (0.5,)}])
def test_where_nothing_ranks_or_one_level_is_asked_for_no_scopes_are_compared(options):
    graph = layered_net([np.ones((4, 4)), np.ones((4, 1))])
    assert prune_graph(graph, PruningOptions(**options)).reaches == {}
