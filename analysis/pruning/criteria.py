"""Scores that decide what goes first: the lower, the sooner."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, EdgeTable, Floats
from emergraph.analysis.pruning.flow import Strength, backward_flow, edge_shares, forward_flow
from emergraph.analysis.pruning.items import Items
from emergraph.analysis.pruning.options import FOR_EDGES, FOR_UNITS, NEEDS_TRACE, Criterion, PruningUnit
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitActivations:
    """What scores need of a trace; NaN where a unit was not measured."""

    mean_abs: Floats
    """(n_units,)."""
    rms: Floats
    """(n_units,) root mean square over samples of the unit's value."""
    name: str = ""


def check_criterion(criterion: Criterion, unit: PruningUnit, activations: UnitActivations | None) -> None:
    """Refuse combinations that mean nothing.

    Raises:
        UsageError: The criterion does not score such items, or its trace is missing.
    """
    allowed = FOR_UNITS if unit is PruningUnit.UNIT else FOR_EDGES
    if criterion not in allowed:
        other = "unit" if unit is not PruningUnit.UNIT else "edge or parameter"
        raise UsageError(
            f"criterion {criterion} does not score {unit}s: choose --unit {other}, or another criterion"
        )
    if criterion in NEEDS_TRACE and activations is None:
        raise UsageError(
            f"criterion {criterion} needs an activation trace and the graph has none: "
            "`emergraph trace STORE INPUTS --model FILE` makes one"
        )


def scores(
    criterion: Criterion, items: Items, *, activations: UnitActivations | None = None, seed: int = 0
) -> NDArray[np.floating]:
    """(n_items,) scores of a criterion that scores once.

    Args:
        criterion: Any but `synflow-iterative`, `n:m`, `where`, and those of gradients (see `gradients`).
        items: What can be removed.
        activations: For activation and wanda.
        seed: For random.

    Raises:
        UsageError: The criterion does not fit the items, or its trace is missing.
    """
    check_criterion(criterion, items.unit, activations)
    if criterion is Criterion.RANDOM:
        return np.random.default_rng(seed).random(items.n)
    if criterion is Criterion.L2:
        return _unit_norms(items)
    if criterion is Criterion.ACTIVATION and activations is not None:
        return np.asarray(activations.mean_abs[items.edge])
    if criterion is Criterion.WANDA and activations is not None:
        return np.asarray(items.magnitude * activations.rms[edge_ends(items.table, "src")[items.edge]])
    if criterion is Criterion.SYNFLOW:
        return synflow_scores(items, None)
    if criterion is Criterion.MAGNITUDE:
        return items.magnitude
    raise UsageError(f"criterion {criterion} gives no scores")


def edge_ends(table: EdgeTable, side: str) -> NDArray[np.int32]:
    """(n_edges,) source or target unit of every edge."""
    ends = np.empty(table.n_edges, dtype=np.int32)
    for block in table.blocks:
        ends[block.edges] = block.src if side == "src" else block.dst
    return ends


def synflow_scores(items: Items, alive: NDArray[np.bool_] | None) -> Floats:
    """SynFlow saliency `|w| dR/d|w|` of each item, up to one common factor.

    R is the sum over input-output paths of the products of |w| (arXiv 2006.05467, section 5); gates and
    attention carry a factor of 1. A shared weight has the sum over its uses.

    Args:
        items: Edges or parameters.
        alive: (n_items,) which items are still there; None: all.
    """
    table = items.table
    strength = _alive_strength(items, alive)
    flow = forward_flow(table, strength)
    back = backward_flow(table, strength, flow)
    layer_of = table.graph.unit_layer
    saliency = np.zeros(table.n_edges)
    strengths = np.zeros(table.n_edges)
    for block in items.blocks:
        strengths[block.edges] = strength(block)
        saliency[block.edges] = edge_shares(block, strengths[block.edges], flow, back, layer_of)
    for number, (leader, order) in items.copies.items():
        own = next(b for b in table.blocks if b.block.id == number)
        more = edge_shares(own, strength(own), flow, back, layer_of)
        saliency[leader.edges] += np.bincount(order, weights=more, minlength=len(leader.src))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(strengths[items.edge] > 0, items.magnitude / strengths[items.edge], 0.0)
    scored = saliency[items.edge] * share
    if alive is not None:
        scored[~alive] = -1.0
    return np.asarray(scored)


def _alive_strength(items: Items, alive: NDArray[np.bool_] | None) -> Strength:
    total = np.zeros(items.table.n_edges)
    kept = items.magnitude if alive is None else np.where(alive, items.magnitude, 0.0)
    total += np.bincount(items.edge, weights=kept, minlength=items.table.n_edges)
    held = {block.block.id for block in items.blocks}

    def strength(block: BlockTable) -> Floats:
        if block.block.id in items.copies:
            leader, order = items.copies[block.block.id]
            return np.asarray(total[leader.edges][order])
        return np.asarray(total[block.edges]) if block.block.id in held else block.l1

    return strength


def _unit_norms(items: Items) -> Floats:
    squares = np.zeros(items.table.graph.n_units)
    weighted = {block.block.id for block in items.blocks} | set(items.copies)
    for block in items.table.blocks:
        if block.block.id in weighted:
            squares += np.bincount(block.dst, weights=block.l2**2, minlength=len(squares))
    return np.asarray(np.sqrt(squares[items.edge]))
