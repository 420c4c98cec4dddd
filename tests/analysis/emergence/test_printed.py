"""The count as the paper prints it, beside the counts on the graph."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import ActivityScores, trace_scores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.printed import magnitude
from emergraph.analysis.emergence.thresholds import threshold_sweep
from emergraph.analysis.layerednets import dense_net, layered_net
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.graphstore.records import EdgeKind, LayerKind


@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_it_is_any_where_every_pair_is_connected(sizes, seed):
    active = np.random.default_rng(seed).random(sum(sizes)) < 0.5
    found = path_count_emergence(dense_net(sizes), active)
    assert found.printed.exact == found.any.exact
    assert found.printed.per_density.value == pytest.approx(found.any.per_density.value)


def test_masks_do_not_enter_it():
    """At 70 % pruning with the activity kept, printed E stays, and relative E rises by .52 decades."""
    rng = np.random.default_rng(0)
    sizes = (40, 30, 20, 10)
    dense = [rng.standard_normal(shape) for shape in itertools.pairwise(sizes)]
    pruned = [np.where(np.abs(w) >= np.quantile(np.abs(w), 0.7), w, 0.0) for w in dense]
    active = rng.random(sum(sizes)) < 0.4
    before, after = (path_count_emergence(layered_net(weights), active) for weights in (dense, pruned))
    assert after.printed.exact == before.printed.exact == before.any.exact
    gained = after.printed.per_density.log10 - before.printed.per_density.log10
    assert gained == pytest.approx(np.log10(1 / 0.3), abs=0.01)
    assert after.any.per_density.log10 - before.any.per_density.log10 < -0.3


def test_layers_that_are_no_chain_have_none():
    result = path_count_emergence(skipping_net(), np.array([True, False, True, False]))
    assert result.printed is None
    assert result.not_printed == "the layers are not a chain"
    by_weights = EmergenceOptions(paths="weights")
    weights = path_count_emergence(dense_net([2, 2]), np.ones(4, bool), options=by_weights)
    assert weights.printed is None


def skipping_net():
    firsts = [(0, 1), (1, 1), (2, 2)]
    layers = [
        UnitLayer(id=k, name="", kind=LayerKind.DENSE, first_unit=first, n_units=n)
        for k, (first, n) in enumerate(firsts)
    ]
    pairs = [(0, 1, 1), (1, 2, 2), (0, 3, 2)]
    blocks = [
        UnitBlock(id=key, kind=EdgeKind.WEIGHT, layer=layer, n_edges=1)
        for key, (_, _, layer) in enumerate(pairs)
    ]
    columns = {
        key: {"src": np.array([src]), "dst": np.array([dst]), "weight": np.ones(1)}
        for key, (src, dst, _) in enumerate(pairs)
    }
    return from_arrays(layers, blocks, columns)


def test_hidden_layers_alone_are_a_shorter_chain():
    options = EmergenceOptions(layers="hidden")
    active = np.array([0, 0, 1, 0, 0, 1, 1, 0, 1], dtype=bool)
    found = path_count_emergence(dense_net([2, 3, 2, 2]), active, options=options)
    expected = {found.any.exact, None}
    assert (None if found.printed is None else found.printed.exact) in expected


def test_a_sweep_has_it_at_every_threshold():
    sizes = (8, 6, 4)
    net = dense_net(sizes)
    samples = np.abs(np.random.default_rng(1).standard_normal((9, sum(sizes))))
    scores: ActivityScores = trace_scores(ActivityRule.MEAN, UnitTrace.from_samples(samples))
    frame = threshold_sweep(net, scores, [0.5, 0.8, 1.1]).frame
    assert frame["emergence_printed"].to_list() == frame["emergence_any"].to_list()
    assert frame["log10_printed"].to_list() == pytest.approx(frame["log10_any"].to_list())


def test_integers_of_any_size_have_a_magnitude():
    assert magnitude(0).value == 0
    assert magnitude(10**400).log10 == pytest.approx(400)
    assert magnitude(2**53).value == 2.0**53
