"""Perturbing a unit changes exactly the units that the graph reaches from it."""

import pytest
from pathtruth import WITH_STATE, assert_norm_truth, assert_path_bounds, assert_path_truth, hub_tensors
from tracedmodel import trace_model
from zoo import FEED_FORWARD, NORMALISED, RECURRENT

from emergraph.graphstore.records import EdgeKind


@pytest.mark.parametrize("name", sorted(FEED_FORWARD))
def test_feed_forward(name):
    traced = trace_model(FEED_FORWARD[name]())
    # A condition flips only where a change takes it across its threshold.
    draws, size = (10, 4.0) if name == "maximum_and_choice" else (3, 1.0)
    reached = assert_path_truth(traced, draws=draws, size=size)
    assert 0 < reached.mean() < 1
    assert not traced.summary.opaque


@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_recurrent(name):
    assert_path_truth(trace_model(RECURRENT[name]()), WITH_STATE)


@pytest.mark.parametrize("name", sorted(NORMALISED))
def test_norm_edges_carry_the_group_statistic(name):
    traced = trace_model(NORMALISED[name]())
    assert traced.sink.count(EdgeKind.NORM)
    # For LRN onnxruntime keeps a running sum over channels: rounding reaches where influence does not.
    noise = 1e-5 if name == "lrn" else 0.0
    assert_path_bounds(traced, noise=noise)
    assert_norm_truth(traced, noise=noise)


@pytest.mark.parametrize("name", ["layer_norm_written_out", "rms_norm_written_out"])
def test_without_norm_edges_the_statistic_is_held_still(name):
    traced = trace_model(NORMALISED[name]())
    hubs = hub_tensors(traced)
    assert hubs
    assert_path_truth(traced, frozen=hubs)
