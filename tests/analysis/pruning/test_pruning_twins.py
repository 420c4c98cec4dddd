"""Fast routines against naive twins, on random masked nets with residuals, concats and convolutions."""

import dataclasses

import networkx as nx
import numpy as np
import pytest
from clifiles import DEMO
from hypothesis import given, settings
from hypothesis import strategies as st
from inplacemodels import export_twice, residual_onnx
from polars.testing import assert_frame_equal
from randomnets import image_nets, token_nets
from tracedmodel import trace_model

import emergraph
from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.edgesets.edgetable import read_edge_table
from emergraph.analysis.edgesets.gradual import GRADUAL_EDGES
from emergraph.analysis.emergence.edgeform import removed_in_degree
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.pruning.components import giant_shares
from emergraph.analysis.pruning.emergencelevels import emergence_levels
from emergraph.analysis.pruning.flow import forward_flow
from emergraph.analysis.pruning.items import prunable_items
from emergraph.analysis.pruning.measures import measure, reach_of
from emergraph.analysis.pruning.options import PruningOptions, PruningUnit
from emergraph.analysis.pruning.removal import nested_removal, prune_by_scores
from emergraph.analysis.pruning.storedwhatif import prune_stored
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.analysis.unitgraph import from_arrays
from emergraph.errors import UsageError
from emergraph.exporters.modeltensors import open_model
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.store import open_store

LEVELS = (0.0, 0.3, 0.6, 0.9)


def random_removal(graph, unit, seed):
    items = prunable_items(read_edge_table(graph), unit)
    return prune_by_scores(items, np.random.default_rng(seed).random(items.n), LEVELS)


def masked_graph(removal, level):
    """The graph without what is gone, as a graph of its own."""
    graph = removal.items.table.graph
    blocks, columns = [], {}
    for block in removal.items.table.blocks:
        kept = removal.edges[block.edges] > level
        blocks.append(dataclasses.replace(block.block, n_edges=int(kept.sum()), dense=False))
        columns[block.block.id] = {
            "src": block.src[kept].astype(np.int64),
            "dst": block.dst[kept].astype(np.int64),
            "weight": block.weight[kept],
        }
    return from_arrays(graph.layers, blocks, columns, neuron=graph.neuron, role=graph.role)


def check_reach(graph, naive, unit, seed):
    removal = random_removal(graph, unit, seed)
    reached = reach_of(removal)
    twin = naive(graph)
    for level in range(len(LEVELS)):
        expected = twin.on_paths(removal.edges > level, removal.units > level)
        found = {
            number
            for block in removal.items.table.blocks
            for number, until in enumerate(reached.edges(block, removal.edges[block.edges]), block.first)
            if until > level
        }
        norm = {
            n
            for b in removal.items.table.blocks
            if b.block.kind == "norm"
            for n in range(b.first, b.edges.stop)
        }
        assert found - norm == expected


@settings(deadline=None, max_examples=12)
@given(
    model=st.one_of(image_nets(), token_nets()),
    seed=st.integers(0, 99),
    unit=st.sampled_from(["edge", "unit"]),
)
def test_effective_edges_equal_search(model, seed, unit, sink_graph, naive):
    graph = sink_graph(trace_model(model).sink)
    check_reach(graph, naive, unit if _has_hidden(graph) else "edge", seed)


def _has_hidden(graph):
    try:
        prunable_items(read_edge_table(graph), "unit")
    except UsageError:
        return False
    return True


@settings(deadline=None, max_examples=8)
@given(model=st.one_of(image_nets(), token_nets()), seed=st.integers(0, 99))
def test_emergence_at_every_level_equals_the_count_on_the_masked_graph(model, seed, sink_graph):
    graph = sink_graph(trace_model(model).sink)
    removal = random_removal(graph, "edge", seed)
    activity = Activity.given(np.random.default_rng(seed).random(graph.n_units) < 0.5)
    found = emergence_levels(removal, activity)
    for level in range(len(LEVELS)):
        masked = masked_graph(removal, level)
        expected = path_count_emergence(masked, activity, removed=removed_in_degree(masked, graph))
        for at, count in enumerate((expected.active, expected.any)):
            assert 10 ** found.log10[at, level] == pytest.approx(count.emergence.value, rel=1e-9)
            assert 10 ** found.edge_form_log10[at, level] == pytest.approx(count.edge_form.value, rel=1e-9)


@settings(deadline=None, max_examples=8)
@given(model=st.one_of(image_nets(), token_nets()), seed=st.integers(0, 99))
def test_giant_component_equals_networkx(model, seed, sink_graph, naive):
    graph = sink_graph(trace_model(model).sink)
    removal = random_removal(graph, "edge", seed)
    everything = np.ones(graph.n_units, dtype=bool)
    for level, share in enumerate(giant_shares(removal)):
        pieces = nx.weakly_connected_components(naive(graph).digraph(removal.edges > level, everything))
        assert share == pytest.approx(max(map(len, pieces)) / graph.n_units)


@given(seed=st.integers(0, 999), scope=st.sampled_from(["global", "layer", "block", "unit"]))
def test_exactly_the_asked_number_goes_and_levels_nest(seed, scope):
    random = np.random.default_rng(seed)
    graph = layered_net([np.round(random.normal(size=(5, 7)), 1), random.normal(size=(7, 3))])
    items = prunable_items(read_edge_table(graph), "edge")
    removal = prune_by_scores(items, items.magnitude, LEVELS, scope=scope)
    for group in np.unique(items.group[scope]):
        mine = items.group[scope] == group
        for level, share in enumerate(LEVELS):
            gone = mine & (removal.gone <= level)
            assert gone.sum() == round(share * mine.sum())
            lost = sorted(zip(items.magnitude[mine], np.flatnonzero(mine), strict=True))[: int(gone.sum())]
            assert sorted(position for _, position in lost) == np.flatnonzero(gone).tolist()


def test_masks_equal_those_of_torch():
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    random = np.random.default_rng(3)
    matrices = [random.normal(size=(6, 5)), random.normal(size=(5, 4))]
    items = prunable_items(read_edge_table(layered_net(matrices)), "edge")
    removal = prune_by_scores(items, items.magnitude, (0.37,))
    modules = [torch.nn.Linear(m.shape[0], m.shape[1], bias=False, dtype=torch.float64) for m in matrices]
    for module, matrix in zip(modules, matrices, strict=True):
        module.weight.data = torch.tensor(np.ascontiguousarray(matrix.T))
    prune.global_unstructured([(m, "weight") for m in modules], prune.L1Unstructured, amount=0.37)
    expected = np.concatenate([m.weight_mask.numpy().T.ravel() for m in modules])
    np.testing.assert_array_equal(removal.edges > 0, expected.astype(bool))


@settings(deadline=None, max_examples=6)
@given(model=image_nets(), seed=st.integers(0, 99))
def test_path_norm_equals_dynamic_programming_edge_by_edge(model, seed, sink_graph):
    graph = sink_graph(trace_model(model).sink)
    removal = random_removal(graph, "edge", seed)
    table = removal.items.table
    for level in range(len(LEVELS)):
        total = np.where(graph.role == 0, 1.0, 0.0)
        for block in table.blocks:
            if block.block.kind in ("weight", "identity", "gate", "attention"):
                for e, (s, d) in enumerate(zip(block.src, block.dst, strict=True)):
                    if removal.edges[block.first + e] > level:
                        total[d] += total[s] * block.l1[e]
        expected = total[graph.role == 2].sum()
        found = forward_flow(table, lambda b, at=level: removal.strength(b, at)).log10_total
        assert 10**found == pytest.approx(expected, rel=1e-9)


def test_units_take_their_edges_with_them():
    random = np.random.default_rng(0)
    graph = layered_net([random.normal(size=(3, 4)), random.normal(size=(4, 2))])
    items = prunable_items(read_edge_table(graph), PruningUnit.UNIT)
    gone = np.array([0, 1, 1, 1], dtype=np.uint8)
    removal = nested_removal(items, gone, [0.25])
    for block in items.table.blocks:
        touches = (block.src == items.edge[0]) | (block.dst == items.edge[0])
        np.testing.assert_array_equal(removal.edges[block.edges] == 0, touches)
    assert measure(removal)["kept_parameters"].to_list() == [20 - 5]


def test_kernels_removed_as_wholes_share_a_note(tmp_path):
    emergraph.export(DEMO / "digits_conv.onnx", tmp_path / "net.duckdb")
    with open_store(tmp_path / "net.duckdb") as store:
        items = prunable_items(read_edge_table(read_unit_graph(store.graph())), "parameter")
    (note,) = items.notes
    assert note.startswith("kernels of stem/conv2d, block/conv2d_1, wide/conv2d_2 and 1 more are removed as")


@pytest.mark.parametrize("scope", ["global", "layer", "block"])
def test_sweeps_of_very_many_weights_are_those_of_few(scope, tmp_path, monkeypatch):
    """Matrices with zeros and kernels, as rows and in the model file, with many equal magnitudes."""
    model = residual_onnx(tmp_path / "model.onnx", width=30, decimals=1)
    options = PruningOptions(levels=(0.0, 0.3, 0.31, 0.9), scope=scope)
    sweeps = []
    for limit in (GRADUAL_EDGES, 10):
        monkeypatch.setattr("emergraph.analysis.pruning.whatif.GRADUAL_EDGES", limit)
        for path in export_twice(model, tmp_path / str(limit)):
            with model_given(open_model(model)), open_store(path) as store:
                sweeps.append(prune_stored(store.graph(), options))
    for sweep in sweeps:
        assert np.array_equal(sweep.removals[0].gone, sweeps[0].removals[0].gone)
        assert_frame_equal(sweep.frame, sweeps[0].frame, rel_tol=1e-12)
