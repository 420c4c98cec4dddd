"""Groups of equal units count like the units themselves."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.grouping import group_equal_units
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.graphstore.records import EdgeKind, LayerKind


@st.composite
def overlapping_blocks(draw):
    """Dense blocks between arbitrary subsets of layers."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    firsts = np.cumsum([0, *sizes]).tolist()
    layers = [
        UnitLayer(id=k, name=f"l{k}", kind=LayerKind.DENSE, first_unit=firsts[k], n_units=n)
        for k, n in enumerate(sizes)
    ]
    blocks = []
    for number in range(draw(st.integers(1, 5))):
        target = draw(st.integers(1, len(sizes) - 1))
        src = draw(st.sets(st.integers(0, firsts[target] - 1), min_size=1))
        dst = draw(st.sets(st.integers(firsts[target], firsts[target + 1] - 1), min_size=1))
        blocks.append(
            UnitBlock(
                id=number, kind=EdgeKind.WEIGHT, layer=target, n_edges=len(src) * len(dst), dense=True,
                src_units=np.array(sorted(src)), dst_units=np.array(sorted(dst, reverse=True)),
            )
        )  # fmt: skip
    return from_arrays(layers, blocks)


@settings(max_examples=150, deadline=None)
@given(graph=overlapping_blocks(), data=st.data())
def test_groups_count_like_units(brute_force, graph, data):
    active = np.array(data.draw(st.lists(st.booleans(), min_size=graph.n_units, max_size=graph.n_units)))
    edges = [
        (int(s), int(d), 1) for _, e in graph.iter_edges() for s, d in zip(e["src"], e["dst"], strict=True)
    ]
    states = ["active" if on else "inactive" for on in active]
    result = path_count_emergence(graph, active, options=EmergenceOptions(by_end_layer=True))
    for interior in ("active", "any"):
        assert result.count(interior).exact == brute_force(edges, states, interior=interior, weights=False)


def test_a_dense_net_has_one_group_per_layer():
    net = dense_net([100, 50, 10])
    grouped = group_equal_units(net, net.blocks, multiplicity=False)
    assert grouped.size.tolist() == [100, 50, 10]
    assert grouped.graph.n_edges == 2
    above = grouped.count_above(
        np.r_[np.arange(100.0), np.full(50, np.nan), np.zeros(10)], np.array([-1.0, 0.0, 98.5])
    )
    assert above.tolist() == [[100, 99, 1], [0, 0, 0], [10, 0, 0]]


def test_a_masked_block_has_no_groups(small):
    graph = small([2, 2], [(0, 2, 1, EdgeKind.WEIGHT)]).graph()
    assert group_equal_units(graph, graph.blocks, multiplicity=False) is None
