"""Whatever the pieces a net is made of, its graph tells what influences what."""

from hypothesis import HealthCheck, given, settings
from pathsums import assert_path_sums
from pathtruth import assert_path_truth
from randomnets import image_nets, sum_nets, token_nets
from tracedmodel import trace_model

_FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@_FEW
@given(sum_nets())
def test_path_sums_of_random_nets(model):
    traced = trace_model(model)
    assert_path_sums(traced)
    assert_path_truth(traced, draws=1)


@_FEW
@given(image_nets())
def test_path_truth_of_random_image_nets(model):
    assert_path_truth(trace_model(model), draws=2, size=3.0)


@_FEW
@given(token_nets())
def test_path_truth_of_random_token_nets(model):
    assert_path_truth(trace_model(model), draws=2, size=3.0)
