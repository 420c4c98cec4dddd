"""Baselines and effective complexity on nets whose answers are known."""

import numpy as np
import pytest

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.baselines import baselines
from emergraph.analysis.emergence.fullreport import effective_complexity, held_out_share
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind, LayerKind


def two_layers(*, shared=False, kernels=False):
    layers = [
        UnitLayer(id=0, name="x", kind=LayerKind.INPUT, first_unit=0, n_units=2),
        UnitLayer(id=1, name="y", kind=LayerKind.DENSE, first_unit=2, n_units=2, n_params=4, n_zeros=1),
    ]
    blocks = [
        UnitBlock(id=0, kind=EdgeKind.WEIGHT, layer=1, n_edges=3, has_kernels=kernels),
        UnitBlock(id=1, kind=EdgeKind.WEIGHT, layer=1, n_edges=3, shared_with=0 if shared else None),
        UnitBlock(id=2, kind=EdgeKind.IDENTITY, layer=1, n_edges=1),
    ]
    edges = {"src": np.array([0, 0, 1]), "dst": np.array([2, 3, 3]), "weight": np.array([3.0, -4.0, np.inf])}
    kernel = {"l1": np.array([5.0, 6, 7]), "l2": np.array([3.0, 4, 12]), "max_abs": np.array([3.0, 2, 1])}
    one = {"src": np.array([0]), "dst": np.array([2]), "weight": np.array([100.0])}
    return from_arrays(layers, blocks, {0: edges | (kernel if kernels else {}), 1: edges, 2: one})


def test_norms_count_a_tensor_once_and_only_finite_weights():
    activity = Activity.given(np.array([True, False, False, False]))
    result = baselines(two_layers(shared=True), activity)
    assert result.weight_l1 == 7.0
    assert result.weight_l2 == 5.0
    assert result.weight_max_abs == 4.0
    assert result.weight_sparsity == 0.25
    assert result.activity_sparsity == 0.75
    assert baselines(two_layers(), activity).weight_l1 == 14.0


def test_norms_of_kernels_are_those_of_their_parameters():
    result = baselines(two_layers(shared=True, kernels=True), Activity.given(np.zeros(4, dtype=bool)))
    assert (result.weight_l1, result.weight_l2, result.weight_max_abs) == (18.0, 13.0, 3.0)


def test_activity_sparsity_is_of_the_units_that_count():
    activity = Activity.given(np.array([[1, 1], [0, 1], [1, 0], [1, 1]], dtype=bool))
    assert baselines(two_layers(), activity).activity_sparsity == 0.25
    hidden = baselines(two_layers(), activity, options=EmergenceOptions(layers="hidden"))
    assert hidden.activity_sparsity is None


def relu_trace(n=300, seed=0, nonlinear=np.abs):
    """3 inputs; a linear layer of 2; a layer of 2 that no linear map of its input explains."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    y = x @ rng.standard_normal((3, 2)) + 1.0
    z = nonlinear(y - 1.0)
    return UnitTrace.from_samples(np.concatenate([x, y, z], axis=1))


def test_a_linear_layer_has_no_complexity_and_an_even_function_has_all():
    frame = effective_complexity(dense_net([3, 2, 2]), relu_trace())
    assert frame["layer"].to_list() == [1, 2]
    assert frame["unexplained"][0] == pytest.approx(0.0, abs=1e-9)
    assert frame["unexplained"][1] == pytest.approx(1.0, abs=0.1)
    assert frame["n_inputs"].to_list() == [3, 2]


def test_relu_of_one_symmetric_input_leaves_what_theory_says():
    # For y = relu(x), x ~ N(0,1): best line explains 1/4 of 1/2 - 1/(2 pi); 1 - 0.25/(0.5 - 1/(2 pi)) =
    # 0.2664.
    x = np.random.default_rng(1).standard_normal((20_000, 1))
    fold = np.arange(20_000) % 5
    share = held_out_share(x, np.maximum(x, 0), fold)
    assert share == pytest.approx(1 - 0.25 / (0.5 - 1 / (2 * np.pi)), abs=0.01)


def test_noise_is_not_explained_by_more_inputs_than_samples():
    rng = np.random.default_rng(2)
    share = held_out_share(rng.standard_normal((40, 200)), rng.standard_normal((40, 5)), np.arange(40) % 4)
    assert share == pytest.approx(1.0, abs=0.15)


def test_what_cannot_be_measured_says_why():
    trace = relu_trace()
    samples = trace.samples.copy()
    samples[:, 4] = np.nan
    samples[:, 6] = 2.0
    frame = effective_complexity(dense_net([3, 2, 2]), UnitTrace.from_samples(samples))
    assert frame["status"].to_list() == ["ok", "sources not measured"]
    samples[:, 3:5] = 7.0
    frame = effective_complexity(dense_net([3, 2, 2]), UnitTrace.from_samples(samples))
    assert frame["status"].to_list() == ["units do not vary", "ok"]
    samples[:, 3:5] = np.nan
    frame = effective_complexity(dense_net([3, 2, 2]), UnitTrace.from_samples(samples))
    assert frame["status"][0] == "units not measured"


def test_too_few_samples_are_refused():
    with pytest.raises(UsageError, match="at least 10 samples"):
        effective_complexity(dense_net([3, 2, 2]), relu_trace(n=9))
    with pytest.raises(UsageError, match="folds"):
        effective_complexity(dense_net([3, 2, 2]), relu_trace(n=20), n_folds=1)
