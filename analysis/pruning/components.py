"""The largest connected piece of the graph at every level of a sweep."""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import Floats
from emergraph.analysis.edgesets.forest import spanning_forest
from emergraph.analysis.pruning.reach import REACH_KINDS
from emergraph.analysis.pruning.removal import Removal


def giant_shares(removal: Removal) -> Floats:
    """Share of units in the largest weakly connected component, at every level.

    Edges of the kinds that reachability follows, without direction. From the highest level down, each level
    adds its edges between the components of the level before, so every edge is looked at once. Removed units
    count as units, each alone.

    Returns:
        (n_levels,) in (0, 1].
    """
    table = removal.items.table
    n_units = table.graph.n_units
    src, dst, gone = _ends(removal)
    order = np.argsort(gone, kind="stable")
    bounds = np.searchsorted(gone[order], np.arange(removal.n_levels + 1), side="right")
    labels = np.arange(n_units)
    sizes = np.ones(n_units, dtype=np.int64)
    shares = np.empty(removal.n_levels)
    stop = len(order)
    for level in reversed(range(removal.n_levels)):
        added = order[bounds[level] : stop]
        stop = int(bounds[level])
        a, b = labels[src[added]], labels[dst[added]]
        apart = a != b
        if apart.any():
            _, merged, n_parts = spanning_forest(a[apart], b[apart], len(sizes))
            sizes = np.bincount(merged, weights=sizes, minlength=n_parts).astype(np.int64)
            labels = merged[labels]
        shares[level] = sizes.max() / n_units
    return shares


def _ends(removal: Removal) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
    blocks = removal.items.table.of_kinds(REACH_KINDS).blocks
    return (
        np.concatenate([block.src for block in blocks]),
        np.concatenate([block.dst for block in blocks]),
        np.concatenate([removal.edges[block.edges] for block in blocks]),
    )
