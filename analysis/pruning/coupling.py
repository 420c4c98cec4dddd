"""Which removed units other layers still need: the other end of a residual sum keeps the channel alive."""

import numpy as np

from emergraph.analysis.edgesets.edgetable import BlockTable, EdgeTable, Levels
from emergraph.graphstore.records import EdgeKind, LayerKind


def coupled_until(table: EdgeTable, units: Levels) -> Levels:
    """Level index below which a removed unit's channel is still needed by a sum with units that stay.

    A residual sum has one channel for all units that it adds: the channel can be cut out only when all of
    them are removed, and those of the sums that follow it. Until then a removed unit's channel is zero.

    Args:
        table: The edges.
        units: (n_units,) first level index at which each unit is gone.

    Returns:
        (n_units,); a unit is removed but coupled at levels l with `units <= l < coupled_until`.
    """
    graph = table.graph
    joins = np.array([layer.kind == LayerKind.JUNCTION for layer in graph.layers], dtype=bool)[
        graph.unit_layer
    ]
    blocks = [block for block in table.of_kinds((EdgeKind.IDENTITY,)).blocks if joins[block.dst].any()]
    alive = np.where(joins, 0, units).astype(np.uint8)
    for block in blocks:
        np.maximum.at(alive, block.dst[joins[block.dst]], alive[block.src][joins[block.dst]])
    needed = np.where(joins, alive, 0).astype(np.uint8)
    for block in reversed(blocks):
        _pull(block, joins, needed)
    return needed


def _pull(block: BlockTable, joins: np.ndarray, needed: Levels) -> None:
    into = joins[block.dst]
    np.maximum.at(needed, block.src[into], needed[block.dst[into]])
