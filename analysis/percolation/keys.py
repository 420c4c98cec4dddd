"""The numbers by which edges are ordered."""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.percolation.edgelist import PercolationEdges
from emergraph.analysis.percolation.options import OrderName
from emergraph.errors import UsageError


def edge_keys(
    edges: PercolationEdges, order: OrderName, *, trace: UnitTrace | None = None
) -> NDArray[np.floating]:
    """(n_edges,) keys of a named order; the largest comes first, NaN last.

    Args:
        edges: The edges.
        order: Any but random, which has no keys.
        trace: For activity.

    Raises:
        UsageError: The order is random, or activity without a trace.
    """
    if order is OrderName.WEIGHT:
        return np.abs(edges.weight)
    if order is OrderName.DEGREE:
        n = edges.graph.n_units
        degree = np.bincount(edges.src, minlength=n) + np.bincount(edges.dst, minlength=n)
        return np.asarray(degree[edges.src].astype(np.float64) * degree[edges.dst])
    if order is OrderName.ACTIVITY and trace is not None:
        return np.asarray(np.abs(edges.weight) * trace.statistics["mean_abs"][edges.src])
    raise UsageError(f"order {order} has no keys without a trace; `emergraph trace` makes one")
