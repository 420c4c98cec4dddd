"""The printed closed forms, and that the count on a full graph equals them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph.analysis.emergence.closedforms import layered_form
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.errors import UsageError


def test_the_convolutional_form_as_printed():
    assert layered_form([10, 8, 4], [4, 3, 2], filters=[10, 2, 4]) == 52
    assert layered_form([10, 8, 4], [4, 3, 2], interior="active") == 64
    assert layered_form([10, 8, 4], [4, 3, 2], interior="any") == 124


@given(
    layers=st.lists(
        st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=6
    )
)
def test_full_graphs_follow_the_printed_sum(layers):
    sizes, on = zip(*layers, strict=True)
    active = np.concatenate([np.arange(n) < a for n, a in layers])
    result = path_count_emergence(dense_net(sizes), active, options=EmergenceOptions())
    for interior, between in (("active", on), ("any", sizes)):
        printed = sum(
            (sizes[i] - on[i]) * on[j] * int(np.prod(between[i + 1 : j]))
            for i in range(len(sizes))
            for j in range(i + 1, len(sizes))
        )
        assert layered_form(sizes, on, interior=interior) == printed
        assert result.count(interior).exact == printed


@pytest.mark.parametrize(
    ("interior", "best"), [("active", (0, 3, 3, 3)), ("any", (0, 0, 3, 3))], ids=["active", "any"]
)
def test_the_activity_with_most_paths_in_a_net_of_equal_widths(interior, best):
    sizes = (3, 3, 3, 3)
    every = product(range(4), repeat=4)
    counted = {active: layered_form(sizes, active, interior=interior) for active in every}
    top = max(counted.values())
    assert [active for active, count in counted.items() if count == top] == [best]


@pytest.mark.parametrize(("sizes", "active"), [([2, 2], [1]), ([2], [3]), ([2], [-1])], ids=str)
def test_impossible_layers_are_refused(sizes, active):
    with pytest.raises(UsageError):
        layered_form(sizes, active)
