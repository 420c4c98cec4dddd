"""Baselines beside emergence.

Is E more than activity sparsity, weight sparsity or the size of the weights?
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.activity.weightchange import PARAMETER_KINDS
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.paths.states import classify
from emergraph.analysis.unitgraph import UnitGraph


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Simple figures that a claim about emergence has to beat."""

    activity_sparsity: float | None
    """Share of the units that count that are inactive, 0 to 1; mean over samples for per_sample."""
    weight_sparsity: float | None
    """Share of the parameters that are exactly zero, 0 to 1."""
    weight_l1: float
    """Sum of the absolute weights; a tensor that is used several times counts once."""
    weight_l2: float
    """Root of the sum of the squared weights."""
    weight_max_abs: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def baselines(graph: UnitGraph, activity: Activity, *, options: EmergenceOptions | None = None) -> Baselines:
    """Sparsities and norms of a graph; one pass over its weights.

    Args:
        graph: The graph, with weights. Weights that are not finite are left out of the norms.
        activity: The activity that emergence was counted with.
        options: The conventions that emergence was counted with, which say what units count.
    """
    classes = classify(graph, activity.known, options or EmergenceOptions())
    active = classes.active(activity.active)
    counting = ~classes.transparent
    sparsity = 1 - float(active[counting].mean()) if counting.any() else None
    l1 = squares = largest = 0.0
    blocks = [b for b in graph.blocks if b.kind in PARAMETER_KINDS and b.shared_with is None and b.n_edges]
    for block, edges in graph.iter_pieces(blocks, columns=("weight", "l1", "l2", "max_abs")):
        names = ("l1", "l2", "max_abs") if block.has_kernels else ("weight",) * 3
        each_l1, each_l2, each_max = (np.abs(edges[name].astype(np.float64)) for name in names)
        finite = np.isfinite(each_l2)
        l1 += float(each_l1[finite].sum())
        squares += float((each_l2[finite] ** 2).sum())
        largest = max(largest, float(each_max[finite].max(initial=0.0)))
    return Baselines(
        activity_sparsity=sparsity,
        weight_sparsity=1 - graph.n_nonzero / graph.n_params if graph.n_params else None,
        weight_l1=l1,
        weight_l2=math.sqrt(squares),
        weight_max_abs=largest,
    )
