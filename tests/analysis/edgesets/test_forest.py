"""The spanning forest of edges in an order, against joining them one by one."""

import numpy as np
import pytest

from emergraph.analysis.edgesets.forest import spanning_forest


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
