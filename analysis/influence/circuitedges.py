"""Edges of a circuit: those without which it does not keep its share, left out one by one."""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.influence.edgesites import Sites
from emergraph.analysis.influence.results import CircuitEdges
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.steps import steps

Bools = NDArray[np.bool_]
Kept = Callable[[Bools], Estimate]
"""What is kept when only some of the edges go on."""


def needed_edges(sites: Sites, circuit: Kept, whole: Kept, *, share: float, most: int) -> CircuitEdges:
    """Leave out edges of a circuit as long as it keeps its share.

    The strongest edges that keep it are found by bisection; then edges go one by one, the weakest first, each
    ablation a run of its own.

    Args:
        sites: The candidates.
        circuit: What the circuit keeps with some of them.
        whole: What the whole model keeps with some of them.
        share: Share of the behaviour.
        most: Edges that are tried one by one at most.
    """
    n = len(sites.src)
    order = np.argsort(-sites.strength, kind="stable")

    def of(chosen: "set[int] | NDArray[np.int64]") -> Bools:
        flags = np.zeros(n, bool)
        flags[list(chosen)] = True
        return flags

    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if circuit(of(order[:middle])).mean >= share:
            high = middle
        else:
            low = middle + 1
    left = {int(k) for k in order[:low]}
    drops: dict[int, float] = {}
    is_tried = len(left) <= most
    removed = is_tried
    while removed:
        removed = False
        for edge in steps(sorted(left, key=lambda k: (sites.strength[k], k)), "edges left out"):
            drops[edge] = circuit(of(left - {edge})).mean
            if drops[edge] >= share:
                left.discard(edge)
                removed = True
    chosen = np.array(sorted(left), np.int64)
    others = np.setdiff1d(np.arange(n), chosen)
    kept = circuit(of(left))
    minimal = kept.mean >= share and all(drops[k] < share for k in left) if is_tried else None
    frame = pl.DataFrame(
        {"src": sites.src[chosen], "dst": sites.dst[chosen], "without": [drops.get(int(k)) for k in chosen]},
        schema={"src": pl.Int64, "dst": pl.Int64, "without": pl.Float64},
    )
    left_out = pl.DataFrame(
        {"src": sites.src[others], "dst": sites.dst[others]}, schema={"src": pl.Int64, "dst": pl.Int64}
    )
    return CircuitEdges(
        n_candidates=n,
        kept=kept,
        without=whole(~of(left)),
        minimal=minimal,
        frame=frame,
        left_out=left_out,
    )
