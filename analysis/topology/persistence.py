"""Neural persistence of layers (Rieck et al., arXiv 1812.09764)."""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.forest import find_merges
from emergraph.analysis.edgesets.ordering import descending


def neural_persistence(
    src: NDArray[np.integer],
    dst: NDArray[np.integer],
    weight: NDArray[np.floating],
    *,
    n_units: int,
    w_max: float,
    p: float = 2.0,
) -> tuple[float, float]:
    """Persistence of the components of one layer as edges appear from the strongest to the weakest.

    With `w' = |w| / w_max`, every unit is born at 1 and dies at the w' of the edge of the maximum spanning
    forest that joins it: `NP = (sum (1 - w')^p)^(1/p)` (eq. 1). All units of both layers are vertices: those
    without edges, and parts that no edge joins, die at 0 as behind a weight of 0, so that removing edges
    never lowers the persistence. The normalised form divides by the upper bound `(n - 1)^(1/p)` (eq. 2).

    Args:
        src: (n_edges,) units of one side.
        dst: (n_edges,) units of the other side.
        weight: (n_edges,) finite.
        n_units: n, all units of both sides, with or without edges.
        w_max: Largest absolute weight of the network.
        p: Exponent, at least 1.

    Returns:
        NP and its normalised form in [0, 1]; zeros for fewer than two units.

    Example:
        >>> edges = np.array([0, 0, 1]), np.array([2, 3, 2]), np.array([1.0, 0.5, 0.25])
        >>> [round(value, 6) for value in neural_persistence(*edges, n_units=4, w_max=1.0)]
        [0.901388, 0.520416]
    """
    if n_units < 2:
        return 0.0, 0.0
    joined, ends = np.unique(np.concatenate([src, dst]), return_inverse=True)
    strength = np.abs(weight.astype(np.float64)) / w_max
    order = descending(strength).edges
    n = len(joined)
    merges = find_merges(ends[: len(src)], ends[len(src) :], order, np.arange(n), np.ones(n, dtype=np.int64))
    deaths = strength[order[merges.position]]
    total = float(((1 - deaths) ** p).sum()) + (n_units - 1 - len(deaths))
    return total ** (1 / p), (total / (n_units - 1)) ** (1 / p)
