"""The edges of a unit graph as flat arrays: those that are added one by one, and those that are given."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.percolation.options import Structure
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.options import member

MAX_EDGES = 200_000_000
"""Edges that are held in memory at once, about 40 bytes each while they are put in order."""

PARAMETER_KINDS = frozenset({EdgeKind.WEIGHT, EdgeKind.RECURRENT})
"""Kinds whose edges are parameters, and so have a strength to be ordered by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PercolationEdges:
    """Edges of the chosen kinds. Blocks lie one after the other, in order of their id."""

    graph: UnitGraph
    src: NDArray[np.int32]
    """(n_edges,) of the edges that are added one by one."""
    dst: NDArray[np.int32]
    weight: NDArray[np.float32]
    """(n_edges,) as stored; NaN where there is none."""
    blocks: tuple[UnitBlock, ...]
    """Blocks of those edges."""
    starts: NDArray[np.int64]
    """(n_blocks + 1,) where each block's edges begin; the last entry is n_edges."""
    given_src: NDArray[np.int32]
    """(n_given,) structural edges, there from the start."""
    given_dst: NDArray[np.int32]
    given_blocks: tuple[UnitBlock, ...]

    @property
    def n_edges(self) -> int:
        """Edges that are added one by one."""
        return len(self.src)

    def block_of_edge(self) -> NDArray[np.integer]:
        """(n_edges,) position in `blocks`, in the smallest type that holds it."""
        dtype = np.uint16 if len(self.blocks) <= 1 << 16 else np.int64
        return np.repeat(np.arange(len(self.blocks)).astype(dtype), np.diff(self.starts))


def read_edges(
    graph: UnitGraph, *, kinds: Sequence[EdgeKind | str] = PATH_KINDS, structure: str = Structure.GIVEN
) -> PercolationEdges:
    """Read the edges that percolate.

    Args:
        graph: The unit graph.
        kinds: Kinds of edges to follow. Those with parameters (weight, recurrent) are added one by one.
        structure: "given": the others (junctions, gates, attention) are there from the start, since they
            are wiring and have no strength; "absent": they are left out.

    Raises:
        UsageError: A word is unknown, or no edge of a chosen kind has parameters.
        LimitError: There are more edges than fit in memory.
    """
    structure = member(Structure, structure, "structure")
    wanted = {member(EdgeKind, kind, "edge kind") for kind in kinds}
    chosen = sorted((block for block in graph.blocks if block.kind in wanted), key=lambda block: block.id)
    moving = tuple(block for block in chosen if block.kind in PARAMETER_KINDS and block.n_edges)
    given = tuple(b for b in chosen if b.kind not in PARAMETER_KINDS) if structure is Structure.GIVEN else ()
    total = sum(block.n_edges for block in moving)
    if total == 0:
        raise UsageError(
            f"graph '{graph.name}': no edges with parameters of kinds {', '.join(sorted(wanted))}"
        )
    if total > MAX_EDGES:
        raise LimitError(f"graph '{graph.name}': {total} edges, at most {MAX_EDGES} percolate in memory")
    src, dst = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int32)
    weight = np.empty(total, dtype=np.float32)
    starts = np.cumsum([0, *(block.n_edges for block in moving)])
    position = 0
    for block, columns in graph.iter_edges(moving, columns=("src", "dst", "weight")):
        part = slice(position, position + block.n_edges)
        src[part], dst[part], weight[part] = columns["src"], columns["dst"], columns["weight"]
        position += block.n_edges
    pairs = [(c["src"], c["dst"]) for _, c in graph.iter_edges(given, columns=("src", "dst"))]
    given_src, given_dst = (
        np.concatenate([np.empty(0, np.int32), *(pair[side] for pair in pairs)]).astype(np.int32)
        for side in (0, 1)
    )
    return PercolationEdges(
        graph=graph,
        src=src,
        dst=dst,
        weight=weight,
        blocks=moving,
        starts=starts.astype(np.int64),
        given_src=given_src,
        given_dst=given_dst,
        given_blocks=given,
    )
