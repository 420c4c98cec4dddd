"""The spanning forest of edges in an order, against joining them one by one."""

import numpy as np
import pytest

from emergraph.analysis.edgesets.forest import find_merges, n_components, spanning_forest


def one_by_one(a, b, n):
    """Positions of edges that join, and components in the order of their first vertices."""
    parts = [{vertex} for vertex in range(n)]
    joining = []
    for position, (x, y) in enumerate(zip(a, b, strict=True)):
        of_x, of_y = (next(part for part in parts if end in part) for end in (x, y))
        if of_x is not of_y:
            joining.append(position)
            parts.remove(of_y)
            of_x |= of_y
    parts.sort(key=min)
    return joining, [next(k for k, part in enumerate(parts) if vertex in part) for vertex in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 4.0])
def test_the_same_edges_and_components(n, share):
    for seed in range(10):
        rng = np.random.default_rng([seed, n])
        a, b = rng.integers(0, n, (2, int(share * n)))
        joining, parts = one_by_one(a.tolist(), b.tolist(), n)
        positions, labels, count = spanning_forest(a, b, n)
        assert positions.tolist() == joining
        assert labels.tolist() == parts
        assert count == max(parts) + 1


@pytest.mark.parametrize("order", ["along", "against", "zigzag"])
def test_a_long_chain_takes_few_rounds(order):
    n = 50_000
    a = np.arange(n - 1)
    if order == "against":
        a = a[::-1]
    if order == "zigzag":
        a = np.concatenate([a[::2], a[1::2]])
    positions, labels, count = spanning_forest(a, a + 1, n)
    assert len(positions) == n - 1
    assert count == 1
    assert not labels.any()


def test_no_edge_is_looked_at_beyond_the_last_that_joins_where_units_stay_alone():
    class Watched:
        furthest = 0

        def __len__(self):
            return len(edges)

        def __getitem__(self, at):
            if isinstance(at, slice):
                self.furthest = max(self.furthest, min(at.stop, len(edges)))
            return edges[at]

    random = np.random.default_rng(0)
    edges, alone = random.permutation(200_000), 3
    src, dst = random.integers(0, 50, (2, len(edges)))
    components, sizes = np.arange(50 + alone), np.ones(50 + alone, dtype=np.int64)
    n_final = n_components([(src[:9], dst[:9]), (src[9:], dst[9:])], components, len(sizes))
    assert n_final == 1 + alone
    order = Watched()
    found = find_merges(src, dst, order, components, sizes, n_final=n_final)
    assert found.position.tolist() == find_merges(src, dst, edges, components, sizes).position.tolist()
    assert len(found.position) == 49
    assert order.furthest < len(edges) / 2
