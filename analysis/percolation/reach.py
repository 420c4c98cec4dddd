"""When inputs begin to reach outputs: one pass over the edges gives the whole curve.

An input reaches an output along directed paths as soon as the latest edge of some path is there. With the
rank of an edge being how many edges are there once it is added, that is the smallest, over all paths, of the
largest rank on the path (a minimax path), and obeys
`t(u) = min over edges (u, v) of max(rank(u, v), t(v))`, `t(output) = 0`. Layer ids are a topological order,
so one sweep over target layers from last to first computes it exactly.
"""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.percolation.edgelist import PIECE, PercolationEdges
from emergraph.analysis.unitgraph import ROLES
from emergraph.graphstore.records import EdgeKind, Role

NEVER = np.iinfo(np.int64).max
"""Rank of what no path reaches."""

BACKWARD_KINDS = frozenset({EdgeKind.RECURRENT, EdgeKind.NORM})
"""Kinds that may lead to a layer with a lower id; directed paths leave them out."""


def first_reach(edges: PercolationEdges, ranks: NDArray[np.signedinteger]) -> NDArray[np.int64]:
    """How many edges must be there for each input unit to reach an output unit.

    Args:
        edges: The edges; structural ones that are given have rank 0.
        ranks: (n_edges,) of the edges that are added, at least 1; the largest integer for one that is not.

    Returns:
        (n_inputs,) edges, `NEVER` where no path leads to an output; in order of unit.
    """
    graph = edges.graph
    blocks = [
        (graph.layer_position(block.layer), slice(int(first), int(first) + block.n_edges), True)
        for block, first in zip(edges.blocks, edges.starts, strict=False)
        if block.kind not in BACKWARD_KINDS
    ]
    position = 0
    for block in edges.given_blocks:
        part = slice(position, position + block.n_edges)
        position += block.n_edges
        if block.kind not in BACKWARD_KINDS:
            blocks.append((graph.layer_position(block.layer), part, False))
    reached = np.full(graph.n_units, NEVER, dtype=np.int64)
    reached[graph.role == ROLES.index(Role.OUTPUT)] = 0
    for _, whole, added in sorted(blocks, key=lambda entry: -entry[0]):
        src, dst = (edges.src, edges.dst) if added else (edges.given_src, edges.given_dst)
        for first in range(whole.start, whole.stop, PIECE):
            part = slice(first, min(first + PIECE, whole.stop))
            late = reached[dst[part]]
            if added:
                own = ranks[part].astype(np.int64)
                own[own == np.iinfo(ranks.dtype).max] = NEVER
                np.maximum(late, own, out=late)
            # edges of a source stand together, mostly
            units = src[part]
            runs = np.concatenate(([0], np.flatnonzero(units[1:] != units[:-1]) + 1))
            np.minimum.at(reached, units[runs], np.minimum.reduceat(late, runs))
    return np.asarray(reached[graph.role == ROLES.index(Role.INPUT)])
