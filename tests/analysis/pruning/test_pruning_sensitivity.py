"""Each layer alone: the flow that is lost equals a count on the pruned graph; runs say what outputs do."""

import json

import numpy as np
import pytest
from clifiles import DEMO
from hypothesis import given, settings
from hypothesis import strategies as st
from randomnets import image_nets, token_nets
from tracedmodel import trace_model

import emergraph
from emergraph.analysis.edgesets.edgetable import read_edge_table
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.flow import forward_flow
from emergraph.analysis.pruning.items import prunable_items
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.analysis.pruning.sensitivity import layer_sweeps
from emergraph.errors import UsageError

LEVELS = (0.2, 0.5, 0.8)


@settings(deadline=None, max_examples=10)
@given(model=st.one_of(image_nets(), token_nets()), unit=st.sampled_from(["edge", "unit"]))
def test_flow_lost_equals_the_flow_of_the_masked_graph(model, unit, sink_graph):
    table = read_edge_table(sink_graph(trace_model(model).sink))
    try:
        items = prunable_items(table, unit)
    except UsageError:
        items = prunable_items(table, "edge")
    whole = forward_flow(table, lambda block: block.l1).log10_total
    for sweep in layer_sweeps(items, PruningOptions(levels=LEVELS)):
        for level in range(len(LEVELS)):
            left = forward_flow(table, lambda b, at=level, s=sweep: s.removal.strength(b, at)).log10_total
            lost = 1 - 10 ** (left - whole) if np.isfinite(whole) else 0.0  # of no flow, nothing is lost
            assert sweep.flow_lost[level] == pytest.approx(lost, abs=1e-9)


def test_known_answer_of_a_small_net():
    # R = 9: through W1 row 1 [1, 2] * 2 = 6 and row 2 [3] * 1 = 3
    net = layered_net([np.array([[1.0, 3.0], [-2.0, 0.0]]), np.array([[2.0], [-1.0]])])
    items = prunable_items(read_edge_table(net), "edge")
    first, second = layer_sweeps(items, PruningOptions(levels=(1 / 3, 0.5)))
    assert first.flow_lost[0] == pytest.approx(2 / 9)
    assert second.flow_lost[1] == pytest.approx(3 / 9)
    assert first.removal.removed().tolist() == [1, 2]


def test_runs_say_which_layer_is_fragile(tmp_path):
    graph = emergraph.export(DEMO / "digits_dense.onnx", tmp_path / "net.duckdb")
    pixels = np.load(DEMO / "digits.npz")["pixels"][:60]
    labels = np.load(DEMO / "labels.npz")["labels"][:60].astype(np.int64)
    files = ModelFiles(model=DEMO / "digits_dense.onnx", inputs={"pixels": pixels}, labels=labels)
    result = graph.prune(PruningOptions(levels=(0.0, 0.9)), files=files, sensitivity=True)
    assert result.measure == "accuracy_lost"
    assert set(result.frame.filter(level=0.0)["relative_mse"]) == {0.0}
    worst = result.frame.filter(level=0.9).sort("accuracy_lost", descending=True)["accuracy_lost"][0]
    assert worst > 0.1
    kept = emergraph.open(tmp_path / "net.duckdb").sql("SELECT * FROM pruning_sensitivity")
    assert kept.height == result.frame.height
    alone = graph.prune(PruningOptions(levels=(0.9,), scope="layer"), save=False).frame["removed_items"][0]
    assert result.frame.filter(level=0.9)["removed_items"].sum() == alone


def test_heat_map_has_a_column_per_level(tmp_path):
    graph = emergraph.export(DEMO / "digits_conv.onnx", tmp_path / "net.duckdb")
    result = graph.prune(save=False, sensitivity=True)
    assert result.measure == "flow_lost"
    assert result.heat_map.columns == ["layer", "items", "10%", "30%", "50%", "70%", "90%"]
    assert (np.diff(result.heat_map.select("10%", "50%", "90%").to_numpy()) >= 0).all()
    assert len(result.fragile) <= 3
    json.dumps(result.to_dict())


@pytest.mark.parametrize("criterion", ["2:4", "synflow-iterative"])
def test_criteria_that_do_not_rank_a_layer_are_refused(tmp_path, criterion):
    graph = emergraph.export(DEMO / "digits_dense.onnx", tmp_path / "net.duckdb")
    with pytest.raises(UsageError, match="ranks what is in a layer"):
        graph.prune(PruningOptions(criterion=criterion), sensitivity=True)
