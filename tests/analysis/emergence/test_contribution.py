"""The contribution rule: its formula, its products, and what rescaling cannot do to it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.activity.contribution import contribution_scores
from emergraph.analysis.activity.scores import trace_scores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import InvalidInputError
from emergraph.graphstore.records import EdgeKind, LayerKind


def relu_net(weights):
    """The graph of a ReLU net; weights are (out, in)."""
    return layered_net([w.T for w in weights])


def run(weights, inputs):
    values, samples = inputs, [inputs]
    for k, w in enumerate(weights):
        values = values @ w.T
        values = np.maximum(values, 0) if k + 1 < len(weights) else values
        samples.append(values)
    return UnitTrace.from_samples(np.concatenate(samples, axis=1))


def naive(weights, trace):
    """The definition, unit by unit."""
    a = trace.statistic("mean_abs")
    firsts = np.cumsum([0, weights[0].shape[1], *(w.shape[0] for w in weights)])
    scores = np.zeros(len(a))
    for k, w in enumerate(weights):
        for i in range(w.shape[1]):
            for j in range(w.shape[0]):
                if w[j, i] == 0:
                    continue
                fan_in = np.count_nonzero(w[j])
                total = sum(a[firsts[k] + x] * abs(w[j, x]) for x in range(w.shape[1]))
                if total > 0:
                    share = fan_in * a[firsts[k] + i] * abs(w[j, i]) / total
                    scores[firsts[k] + i] = max(scores[firsts[k] + i], share)
    out = slice(firsts[-2], firsts[-1])
    scores[out] = a[out] / a[out].mean() if a[out].mean() > 0 else 0
    return scores


def random_net(seed, sizes=(6, 8, 7, 3)):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((n, m)) * (rng.random((n, m)) < 0.7) for m, n in pairwise(sizes)]
    return weights, rng.standard_normal((20, sizes[0]))


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_the_definition(seed):
    weights, inputs = random_net(seed)
    trace = run(weights, inputs)
    scores = contribution_scores(relu_net(weights), trace)
    assert scores.default_threshold == 1.0
    np.testing.assert_allclose(scores.values, naive(weights, trace), rtol=0, atol=1e-11)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), layer_wise=st.booleans())
def test_function_preserving_rescaling_changes_nothing(seed, layer_wise):
    weights, inputs = random_net(seed)
    rng = np.random.default_rng(seed)
    scaled = [w.copy() for w in weights]
    for k in range(len(weights) - 1):
        n = weights[k].shape[0]
        c = np.full(n, 10 ** rng.uniform(-3, 3)) if layer_wise else 10 ** rng.uniform(-3, 3, n)
        scaled[k] *= c[:, None]
        scaled[k + 1] /= c
    before, after = run(weights, inputs), run(scaled, inputs)
    out = slice(-weights[-1].shape[0], None)
    np.testing.assert_allclose(before.samples[:, out], after.samples[:, out], rtol=1e-9)
    scores = [contribution_scores(relu_net(w), t).values for w, t in ((weights, before), (scaled, after))]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-9)


def test_the_published_rule_is_not_invariant():
    weights, inputs = random_net(1)
    scaled = [weights[0] * 0.01, weights[1] / 0.01, weights[2]]
    rules = [trace_scores("mean", run(w, inputs)).above(0.05).active for w in (weights, scaled)]
    assert rules[0].tolist() != rules[1].tolist()


def test_factors_contribute_what_their_product_does():
    # value (1) and gate (2) of layer 1 meet in the product (3), which feeds output 5 beside neuron 4.
    layers = [
        UnitLayer(id=0, name="x", kind=LayerKind.INPUT, first_unit=0, n_units=1),
        UnitLayer(id=1, name="h", kind=LayerKind.DENSE, first_unit=1, n_units=2),
        UnitLayer(id=2, name="g", kind=LayerKind.GATE, first_unit=3, n_units=1),
        UnitLayer(id=3, name="s", kind=LayerKind.DENSE, first_unit=4, n_units=1),
        UnitLayer(id=4, name="y", kind=LayerKind.DENSE, first_unit=5, n_units=1),
    ]
    blocks = [
        UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=1, n_edges=2),
        UnitBlock(id=1, kind=EdgeKind.GATE, layer=2, n_edges=2),
        UnitBlock(id=2, kind=EdgeKind.WEIGHT, layer=3, n_edges=1),
        UnitBlock(id=3, kind=EdgeKind.WEIGHT, layer=4, n_edges=2),
    ]
    columns = {
        0: {"src": np.array([0, 0]), "dst": np.array([1, 2]), "weight": np.array([1.0, 1.0])},
        1: {"src": np.array([1, 2]), "dst": np.array([3, 3])},
        2: {"src": np.array([0]), "dst": np.array([4]), "weight": np.array([1.0])},
        3: {"src": np.array([3, 4]), "dst": np.array([5, 5]), "weight": np.array([-3.0, 1.0])},
    }
    graph = from_arrays(layers, blocks, columns)
    trace = UnitTrace.from_samples(np.array([[1.0, 2.0, 5.0, 10.0, 10.0, 20.0]]))
    scores = contribution_scores(graph, trace).values
    share = 2 * 10 * 3 / (10 * 3 + 10 * 1)
    np.testing.assert_allclose(scores[[3, 1, 2]], share)
    np.testing.assert_allclose(scores[4], 2 * 10 / 40)
    np.testing.assert_allclose(scores[0], 1.0)
    # A factor that was not measured still has its product's contribution.
    unmeasured = UnitTrace.from_samples(np.array([[1.0, np.nan, 5.0, 10.0, 10.0, 20.0]]))
    np.testing.assert_allclose(contribution_scores(graph, unmeasured).values[1], share)


def test_kernels_contribute_by_their_l1_norm():
    layers = [
        UnitLayer(id=0, name="x", kind=LayerKind.INPUT, first_unit=0, n_units=2),
        UnitLayer(id=1, name="y", kind=LayerKind.CONV, first_unit=2, n_units=1),
    ]
    block = UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=1, n_edges=2, has_kernels=True)
    columns = {
        0: {
            "src": np.array([0, 1]),
            "dst": np.array([2, 2]),
            "weight": np.array([0.0, 1.0]),
            "l1": np.array([3.0, 1.0]),
        }
    }
    trace = UnitTrace.from_samples(np.ones((1, 3)))
    np.testing.assert_allclose(
        contribution_scores(from_arrays(layers, [block], columns), trace).values[:2], [1.5, 0.5]
    )


def test_the_only_contributor_is_average_and_not_above_by_rounding():
    rng = np.random.default_rng(0)
    for value, weight in rng.random((200, 2)):
        weights = [np.array([[weight]])]
        scores = contribution_scores(relu_net(weights), run(weights, np.array([[value]])))
        assert scores.values.tolist() == [1.0, 1.0]
        assert not scores.above().active.any()


def test_a_unit_without_targets_contributes_nothing():
    weights = [np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 0.0]])]
    trace = run(weights, np.ones((3, 2)))
    assert contribution_scores(relu_net(weights), trace).values[3] == 0.0


def test_a_trace_of_another_graph_is_refused():
    weights, inputs = random_net(0)
    with pytest.raises(InvalidInputError, match="6 units, the graph 24"):
        contribution_scores(relu_net(weights), UnitTrace.from_samples(inputs))
