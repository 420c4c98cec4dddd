"""Layered nets from sizes and from matrices."""

import numpy as np
import pytest

from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.layerednets import dense_net, layered_net
from emergraph.errors import InvalidInputError


def test_full_matrices_are_a_dense_net():
    rng = np.random.default_rng(0)
    sizes = (5, 4, 3)
    net = layered_net([rng.standard_normal((5, 4)), rng.standard_normal((4, 3))], name="n")
    active = rng.random(12) < 0.5
    counts = [path_count_emergence(g, active).any.exact for g in (net, dense_net(sizes))]
    assert counts[0] == counts[1]
    assert all(block.dense for block in net.blocks)
    assert (net.name, net.n_params, net.n_nonzero) == ("n", 32, 32)


def test_zeros_are_no_edges():
    matrix = np.array([[1.0, 0.0], [0.0, -2.0], [0.0, 0.5]])
    net = layered_net([matrix])
    ((block, edges),) = net.iter_edges(columns=("src", "dst", "weight"))
    assert not block.dense
    assert edges["src"].tolist() == [0, 1, 2]
    assert edges["dst"].tolist() == [3, 4, 4]
    assert edges["weight"].tolist() == [1.0, -2.0, 0.5]
    assert (net.n_params, net.n_nonzero) == (6, 3)


@pytest.mark.parametrize("shapes", [[], [(2, 3), (2, 3)], [(3,)]], ids=str)
def test_matrices_that_do_not_fit_are_refused(shapes):
    with pytest.raises(InvalidInputError):
        layered_net([np.ones(shape) for shape in shapes])
