"""Activity by contribution: a rule that function-preserving rescaling cannot change.

Multiplying a ReLU unit's incoming weights by c and its outgoing weights by 1/c leaves the network's function
as it is, and moves every unit across a fixed threshold on activations. A unit's share in its targets' inputs
stays.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import DEFAULT_CONTRIBUTION_THRESHOLD, ActivityScores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.paths.edgesums import group_edges
from emergraph.analysis.unitgraph import ROLES, EdgeColumns, UnitBlock, UnitGraph
from emergraph.errors import InvalidInputError
from emergraph.graphstore.records import EdgeKind, Role

Floats = NDArray[np.float64]

SUM_KINDS = frozenset({EdgeKind.WEIGHT, EdgeKind.IDENTITY})
"""Kinds whose target adds up its sources."""
DECIMALS = 12
"""Scores are rounded, so that a target's only contributor has exactly 1 and is not above average by
rounding."""
PRODUCT_KINDS = frozenset({EdgeKind.GATE, EdgeKind.ATTENTION})
"""Kinds whose target multiplies its sources: each factor contributes what the product contributes."""


def contribution_scores(graph: UnitGraph, trace: UnitTrace) -> ActivityScores:
    """Largest share that a unit has in any of its targets, relative to the average contributor.

    `C(i) = max over targets j of fan_in(j) |a_i| |w_ji| / sum_k |a_k| |w_jk|`, with |a| the mean absolute
    activation over samples and positions. For kernels |w| is their l1 norm; an edge without a weight counts
    as 1. Where i is a factor of a product j (a gate, an attention score) its contribution is `C(j)`. Output
    units also have `|a_i| / mean |a|` over their layer. Edges of other kinds, and units without measured
    activity, are left out of sums and counts.

    Args:
        graph: The graph; its edges are streamed twice, with weights.
        trace: Activations (the statistic mean_abs).

    Returns:
        Scores with default threshold 1; NaN for units without measured activity that no product makes known.

    Raises:
        InvalidInputError: The trace has another number of units.
    """
    size = trace.statistic("mean_abs")
    if size.shape != (graph.n_units,):
        raise InvalidInputError(f"The trace has {len(size)} units, the graph {graph.n_units}")
    per_target = _share_per_strength(graph, size)
    scores = _largest_shares(graph, size, per_target)
    scores = np.asarray(np.fmax(scores, _output_scores(graph, size)), dtype=np.float64).round(DECIMALS)
    return ActivityScores(
        values=scores,
        rule=ActivityRule.CONTRIBUTION,
        text=f"contribution to some target > {{t}} times the average, |a| over {trace.text}",
        default_threshold=DEFAULT_CONTRIBUTION_THRESHOLD,
    )


def _share_per_strength(graph: UnitGraph, size: Floats) -> Floats:
    """(n_units,) fan_in(j) / sum_k |a_k||w_jk|; 0 where nothing comes in."""
    measured = ~np.isnan(size)
    strength = np.zeros(graph.n_units)
    fan_in = np.zeros(graph.n_units)
    blocks = [block for block in graph.blocks if block.kind in SUM_KINDS and block.n_edges]
    for block, edges in _weighted_edges(graph, blocks):
        layer = graph.layer_of(block.layer)
        counted = measured[edges["src"]]
        arriving = np.where(counted, size[edges["src"]], 0.0) * _strengths(block, edges)
        target = edges["dst"] - layer.first_unit
        strength[layer.units] += np.bincount(target, weights=arriving, minlength=layer.n_units)
        fan_in[layer.units] += np.bincount(target, weights=counted, minlength=layer.n_units)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(strength > 0, fan_in / strength, 0.0)


def _largest_shares(graph: UnitGraph, size: Floats, per_target: Floats) -> Floats:
    scores = np.where(np.isnan(size), np.nan, 0.0)
    kinds = SUM_KINDS | PRODUCT_KINDS
    position = {block.id: graph.layer_position(block.layer) for block in graph.blocks}
    blocks = [block for block in graph.blocks if block.kind in kinds and block.n_edges]
    # Later layers first: a factor needs the score of its product.
    blocks.sort(key=lambda block: -position[block.id])
    for block, edges in _weighted_edges(graph, blocks):
        grouped = group_edges(edges["src"], edges["dst"], first_target=0)
        source, target = grouped.sources, grouped.targets
        if block.kind in PRODUCT_KINDS:
            best = np.fmax.reduceat(scores[target], grouped.starts)
        else:
            strengths = _strengths(block, edges)
            ordered = strengths if grouped.order is None else strengths[grouped.order]
            with np.errstate(invalid="ignore"):  # no share of a strength that is not finite
                shares = per_target[target] * ordered
            best = np.maximum.reduceat(shares, grouped.starts) * size[source]
        scores[source] = np.fmax(scores[source], best)
    return scores


def _output_scores(graph: UnitGraph, size: Floats) -> Floats:
    scores = np.full(graph.n_units, np.nan)
    is_output = graph.role == ROLES.index(Role.OUTPUT)
    for layer in graph.layers:
        chosen = np.flatnonzero(is_output[layer.units]) + layer.first_unit
        chosen = chosen[~np.isnan(size[chosen])]
        if len(chosen):
            mean = float(size[chosen].mean())
            scores[chosen] = size[chosen] / mean if mean > 0 else 0.0
    return scores


def _weighted_edges(graph: UnitGraph, blocks: list[UnitBlock]) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
    return graph.iter_edges(blocks, columns=("src", "dst", "weight", "l1"))


def _strengths(block: UnitBlock, edges: EdgeColumns) -> Floats:
    """(n_edges,) |w|: the l1 norm of a kernel, 1 without a weight."""
    strengths = np.abs(edges["l1" if block.has_kernels else "weight"].astype(np.float64))
    return np.where(np.isnan(strengths), 1.0, strengths)
