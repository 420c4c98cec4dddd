"""The edges of a unit graph with absolute finite weights, as arrays, and as an igraph graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.errors import LimitError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.options import member

if TYPE_CHECKING:
    import igraph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WITHOUT_PARAMETER = 1.0
"""Strength of an edge without a parameter: it passes on what it gets."""
MAX_EDGES = 200_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedEdges:
    """Edges between units; several blocks may hold the same pair."""

    n_units: int
    src: Ints
    dst: Ints
    weight: Floats
    """(n_edges,) signed, finite; 1 where an edge has no parameter."""
    n_left_out: int
    """Edges whose parameter is NaN or infinite; they are not among the others."""

    @property
    def strength(self) -> Floats:
        """(n_edges,) absolute weight."""
        return np.abs(self.weight)

    def joined(self) -> "WeightedEdges":
        """One edge per pair of units, with the sum of the absolute weights; pairs (src, dst) ascend."""
        code, inverse = np.unique(self.src * self.n_units + self.dst, return_inverse=True)
        return WeightedEdges(
            n_units=self.n_units,
            src=code // max(self.n_units, 1),
            dst=code % max(self.n_units, 1),
            weight=np.bincount(inverse, weights=self.strength, minlength=len(code)).astype(np.float64),
            n_left_out=self.n_left_out,
        )

    def only(
        self, keep: NDArray[np.bool_] | NDArray[np.integer], *, n_left_out: int | None = None
    ) -> "WeightedEdges":
        """The edges that a mask or positions name."""
        return WeightedEdges(
            n_units=self.n_units,
            src=self.src[keep],
            dst=self.dst[keep],
            weight=self.weight[keep],
            n_left_out=self.n_left_out if n_left_out is None else n_left_out,
        )


def chosen_blocks(graph: UnitGraph, kinds: Sequence[EdgeKind | str] = PATH_KINDS) -> list[UnitBlock]:
    """Blocks of the given kinds, by id.

    Raises:
        UsageError: A kind is unknown.
    """
    wanted = {member(EdgeKind, kind, "edge kind") for kind in kinds}
    return sorted((block for block in graph.blocks if block.kind in wanted), key=lambda block: block.id)


def weighted_edges(graph: UnitGraph, kinds: Sequence[EdgeKind | str] = PATH_KINDS) -> WeightedEdges:
    """Read edges with finite weights.

    Args:
        graph: The unit graph.
        kinds: Kinds of edges.

    Raises:
        UsageError: A kind is unknown.
        LimitError: More edges than memory is meant for.
    """
    blocks = chosen_blocks(graph, kinds)
    total = sum(block.n_edges for block in blocks)
    if total > MAX_EDGES:
        raise LimitError(f"graph '{graph.name}': {total} edges, at most {MAX_EDGES} are held in memory")
    src, dst = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
    weight = np.empty(total)
    position = 0
    for block, columns in graph.iter_edges(blocks, columns=("src", "dst", "weight")):
        part = slice(position, position + block.n_edges)
        src[part], dst[part] = columns["src"], columns["dst"]
        weight[part] = usable_weights(block, columns["weight"])
        position += block.n_edges
    finite = np.isfinite(weight)
    edges = WeightedEdges(n_units=graph.n_units, src=src, dst=dst, weight=weight, n_left_out=0)
    if finite.all():
        return edges
    return edges.only(finite, n_left_out=int((~finite).sum()))


def usable_weights(block: UnitBlock, weight: NDArray[np.floating]) -> Floats:
    """Weights of a block's edges as float64; `WITHOUT_PARAMETER` where an edge has no parameter."""
    own = weight.astype(np.float64)
    if block.kind in (EdgeKind.WEIGHT, EdgeKind.RECURRENT):
        return own
    return np.where(np.isfinite(own), own, WITHOUT_PARAMETER)


def igraph_of(edges: WeightedEdges, *, directed: bool) -> "igraph.Graph":
    """Return an igraph graph whose vertices are all units; no weights are attached."""
    import igraph

    pairs = zip(edges.src.tolist(), edges.dst.tolist(), strict=True)
    return igraph.Graph(n=edges.n_units, edges=pairs, directed=directed)
