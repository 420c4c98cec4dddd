"""Sums over all input-output paths of products of weights: path norms and SynFlow, at any depth.

`forward(v) = sum over u -> v of forward(u) s(u, v)`, 1 at the starts. The values of each layer are kept
divided by their largest, whose logarithm is kept beside them, so that no depth overflows or underflows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emergraph.analysis.edgesets.edgetable import BlockTable, EdgeTable, Floats
from emergraph.analysis.unitgraph import ROLES
from emergraph.graphstore.records import PATH_KINDS, LayerKind, Role

Strength = Callable[[BlockTable], Floats]
"""Gives a block's (n_edges,) factors, 0 where an edge is gone."""
Products = Callable[[BlockTable, Floats], Floats]
"""Gives for a block and values of all units (n_units, K) the sums of factor times value over the edges into
each of the block's targets, (n_targets, K)."""

LN10 = float(np.log(10.0))


@dataclass(frozen=True, eq=False)
class Flow:
    """Sums over paths from the starts to every unit."""

    value: Floats
    """(n_units,) in [0, 1], relative to the largest of the unit's layer."""
    log_scale: Floats
    """(n_layers,) natural logarithm of that largest value; -inf for a layer without paths."""
    log10_total: float
    """Decimal logarithm of the sum over output units; -inf for none."""


def forward_flow(table: EdgeTable, strength: Strength) -> Flow:
    """Sum over all paths from inputs of the product of strengths, for every unit.

    Follows the path kinds (`weight`, `identity`, `gate`, `attention`), not recurrent edges. Weights that are
    NaN or infinite are left out.

    Args:
        table: The edges.
        strength: Factors of a block's edges, non-negative.
    """

    def products(block: BlockTable, values: Floats) -> Floats:
        return block.sums(finite(strength(block)), values, "dst")

    value, scale = _forward(table, products, 1)
    return Flow(value=value[:, 0], log_scale=scale[:, 0], log10_total=_total(table, value[:, 0], scale[:, 0]))


def log_totals(table: EdgeTable, products: Products, n: int) -> Floats:
    """(n,) decimal logarithms of the sums over all input-output paths, for n sorts of factors in one pass.

    Args:
        table: The edges; those of path kinds are followed.
        products: Of values with n columns.
        n: How many.
    """
    value, scale = _forward(table, products, n)
    return np.array([_total(table, value[:, k], scale[:, k]) for k in range(n)])


def _forward(table: EdgeTable, products: Products, n: int) -> tuple[Floats, Floats]:
    """Values (n_units, n) and the logarithms of their scales (n_layers, n)."""
    graph = table.graph
    value = np.repeat(starting_units(table).astype(np.float64)[:, None], n, axis=1)
    scale = np.full((len(graph.layers), n), -np.inf)
    blocks = table.of_kinds(PATH_KINDS).by_layer
    weighted = np.zeros((graph.n_units, n))  # a block reads what was written for it
    for position, layer in enumerate(graph.layers):
        into = blocks[position]
        sources = [graph.unit_layer[block.rows] for block in into]
        own = np.where(value[layer.units].any(axis=0), 0.0, -np.inf)
        top = np.max([own, *(scale[np.unique(rows)].max(axis=0) for rows in sources)], axis=0)
        if (top == -np.inf).all():
            continue
        base = np.where(top == -np.inf, 0.0, top)
        total = value[layer.units] * np.exp(own - base)
        for block, rows in zip(into, sources, strict=True):
            known, which = np.unique(rows, return_inverse=True)
            weighted[block.rows] = value[block.rows] * np.exp(scale[known] - base)[which]
            total[block.columns - layer.first_unit] += products(block, weighted)
        largest = total.max(axis=0, initial=0.0)
        found = largest > 0
        value[layer.units, found] = total[:, found] / largest[found]
        scale[position, found] = base[found] + np.log(largest[found])
    return value, scale


def backward_flow(table: EdgeTable, strength: Strength, flow: Flow) -> Floats:
    """Sum over all paths from every unit to outputs, in the units of a forward flow.

    Returns:
        (n_units,) b with `flow.value[u] * s(u, v) * exp(log_scale[u] - log_scale[v]) * b[v]` the share of an
        edge in the total, up to one factor that all edges share.
    """
    graph = table.graph
    outputs = graph.role == ROLES.index(Role.OUTPUT)
    known = np.isfinite(flow.log_scale)
    top = max(
        (float(flow.log_scale[p]) for p in set(graph.unit_layer[outputs].tolist()) if known[p]), default=0.0
    )
    scale = np.where(known, flow.log_scale, -np.inf)
    with np.errstate(over="ignore"):
        back = np.where(outputs, np.exp(scale[graph.unit_layer] - top), 0.0)[:, None]
    blocks = table.of_kinds(PATH_KINDS).by_layer
    for position in reversed(range(len(graph.layers))):
        if not known[position]:
            continue
        for block in blocks[position]:
            rows = graph.unit_layer[block.rows]
            factor = np.exp(scale[rows] - scale[position])
            back[block.rows, 0] += factor * block.sums(finite(strength(block)), back, "src")[:, 0]
    return np.asarray(back[:, 0])


def edge_shares(
    block: BlockTable, strength: Floats, flow: Flow, back: Floats, layer_of: np.ndarray
) -> Floats:
    """SynFlow's saliency of each edge, `|w dR/dw|` (arXiv 2006.05467, eq. 3), up to one common factor."""
    with np.errstate(invalid="ignore"):
        factor = np.exp(flow.log_scale[layer_of[block.src]] - flow.log_scale[block.target])
    factor = np.nan_to_num(factor, nan=0.0, posinf=0.0)
    return np.asarray(flow.value[block.src] * finite(strength) * factor * back[block.dst])


def finite(strength: Floats) -> Floats:
    """Factors without those that are NaN or infinite."""
    if np.isfinite(strength).all():
        return strength
    return np.nan_to_num(strength, nan=0.0, posinf=0.0)


def starting_units(table: EdgeTable) -> np.ndarray:
    """(n_units,) bool: input units and embeddings."""
    graph = table.graph
    embedding = np.array([layer.kind == LayerKind.EMBEDDING for layer in graph.layers], dtype=bool)
    return np.asarray((graph.role == ROLES.index(Role.INPUT)) | embedding[graph.unit_layer])


def _total(table: EdgeTable, value: Floats, scale: Floats) -> float:
    graph = table.graph
    outputs = np.flatnonzero(graph.role == ROLES.index(Role.OUTPUT))
    logs = scale[graph.unit_layer[outputs]]
    top = logs.max(initial=-np.inf)
    if top == -np.inf:
        return -np.inf
    total = float((value[outputs] * np.exp(logs - top)).sum())
    return -np.inf if total == 0 else float((np.log(total) + top) / LN10)
