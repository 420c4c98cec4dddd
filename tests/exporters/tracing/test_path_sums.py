"""In a net of sums, path sums of |w| are what the net with |W| gives on ones."""

import numpy as np
import pytest
from pathsums import assert_path_sums, enumerated_path_sums, path_sums
from tracedmodel import trace_model
from zoo import SUMS


@pytest.mark.parametrize("name", sorted(SUMS))
def test_path_sums_equal_the_absolute_net_on_ones(name):
    assert_path_sums(trace_model(SUMS[name]()))


@pytest.mark.parametrize("name", ["dense_chain", "residual_sums", "channel_shuffle", "dense_net_sums"])
def test_sweep_over_layers_equals_path_enumeration(name):
    sink = trace_model(SUMS[name]()).sink
    np.testing.assert_allclose(path_sums(sink), enumerated_path_sums(sink), rtol=1e-12)
