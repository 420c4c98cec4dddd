"""The disparity filter: the edges that are stronger than chance within a unit (Serrano 2009)."""

import numpy as np

from emergraph.analysis.topology.weightededges import Floats, WeightedEdges
from emergraph.errors import UsageError


def disparity(edges: WeightedEdges) -> Floats:
    """P-value of every edge under uniformly random splits of a unit's strength.

    `p = (1 - w / s)^(k - 1)` with s the strength and k the degree of the unit; the smaller of the source's
    value (over its outgoing edges) and the target's (over its incoming ones). A unit with one edge says
    nothing: p = 1. M. Á. Serrano, M. Boguñá, A. Vespignani, PNAS 106, 6483 (2009), eq. 2.

    Returns:
        (n_edges,) in [0, 1].

    Example:
        >>> star = WeightedEdges(n_units=3, src=np.array([0, 0]), dst=np.array([1, 2]),
        ...     weight=np.array([3.0, 1.0]), n_left_out=0)
        >>> disparity(star).tolist()
        [0.25, 0.75]
    """
    weight = edges.strength
    p = np.ones(len(weight))
    for units in (edges.src, edges.dst):
        strength = np.bincount(units, weights=weight, minlength=edges.n_units)[units]
        degree = np.bincount(units, minlength=edges.n_units)[units]
        share = np.divide(weight, strength, out=np.zeros_like(weight), where=strength > 0)
        own = np.where(degree > 1, (1 - np.minimum(share, 1.0)) ** (degree - 1), 1.0)
        np.minimum(p, own, out=p)
    return p


def backbone(edges: WeightedEdges, alpha: float) -> WeightedEdges:
    """The edges whose disparity p-value is below alpha.

    Raises:
        UsageError: alpha is not in (0, 1].
    """
    if not 0 < alpha <= 1:
        raise UsageError(f"alpha {alpha}: expected a number in (0, 1]")
    return edges.only(disparity(edges) < alpha)
