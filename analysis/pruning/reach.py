"""Which edges and units lie on a path from an input to an output, at every level of a nested removal.

With nested masks an edge is there at levels below `gone`. A unit is reached from an input at levels below
`F(v) = max over edges u -> v of min(F(u), gone(u, v))`: a widest path, so one pass over the edges answers all
levels. An edge lies on an input-output path at levels below `min(F(u), gone(u, v), B(v))`, with B the same
from the outputs. That is the effective sparsity of Vysogorets and Kempe (arXiv 2107.02306).
"""

from dataclasses import dataclass

import numpy as np

from emergraph.analysis.edgesets.edgetable import BlockTable, EdgeTable, Levels, Side
from emergraph.analysis.unitgraph import ROLES
from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind, Role

REACH_KINDS = (*PATH_KINDS, EdgeKind.RECURRENT, EdgeKind.OPAQUE)
"""Kinds that carry influence from unit to unit; `norm` would keep every unit of a group alive."""


@dataclass(frozen=True, eq=False)
class Reach:
    """Levels up to which units are on paths; at level index l a unit is on one where its entry is above l."""

    forward: Levels
    """(n_units,) reached from an input."""
    backward: Levels
    """(n_units,) reaches an output."""

    @property
    def units(self) -> Levels:
        """(n_units,) on an input-output path."""
        return np.minimum(self.forward, self.backward)

    def edges(self, block: BlockTable, gone: Levels) -> Levels:
        """(n_edges,) levels below which the block's edges lie on an input-output path."""
        return np.minimum(np.minimum(self.forward[block.src], gone), self.backward[block.dst])


def reach(table: EdgeTable, gone: Levels, *, n_levels: int, gone_units: Levels | None = None) -> Reach:
    """Forward and backward reach of all units at all levels.

    Paths start at input units and embeddings and end at output units, and run over all kinds of edges but
    `norm`. Without recurrent edges two passes over the edges, with them as many as it takes to settle.

    Args:
        table: The edges.
        gone: (n_edges,) first level index at which an edge is gone; n_levels for never.
        n_levels: Number of levels, at most 254.
        gone_units: (n_units,) the same for units; None: none is removed.
    """
    graph = table.graph
    cap = np.full(graph.n_units, n_levels, dtype=np.uint8) if gone_units is None else gone_units
    followed = table.of_kinds(REACH_KINDS)
    embedding = np.array([layer.kind == LayerKind.EMBEDDING for layer in graph.layers], dtype=bool)
    starts = (graph.role == ROLES.index(Role.INPUT)) | embedding[graph.unit_layer]
    ends = graph.role == ROLES.index(Role.OUTPUT)
    return Reach(
        forward=_settle(followed, gone, cap, np.where(starts, cap, 0).astype(np.uint8), "dst"),
        backward=_settle(followed, gone, cap, np.where(ends, cap, 0).astype(np.uint8), "src"),
    )


def _settle(table: EdgeTable, gone: Levels, cap: Levels, values: Levels, to: Side) -> Levels:
    blocks = table.blocks if to == "dst" else table.blocks[::-1]
    cyclic = any(block.block.kind is EdgeKind.RECURRENT for block in blocks)
    while True:
        changed = False
        for block in blocks:
            units = block.units(to)
            wide = np.minimum(block.widest(gone[block.edges], values, to), cap[units])
            if cyclic and not changed:
                changed = bool((wide > values[units]).any())
            values[units] = np.maximum(values[units], wide)
        if not cyclic or not changed:
            return values
