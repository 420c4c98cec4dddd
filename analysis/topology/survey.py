"""What topology needs of all edges: strengths, the backbone, and the links between layers.

Up to `MANY_EDGES` edges are held in memory at once, as pairs of units. More of them are passed over twice, in
pieces: once for the strengths of units, once for the edges that the disparity filter keeps. Blocks that can
hold the same pair of units are read together, so that a pair is one edge either way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.topology.weightededges import (
    Floats,
    Ints,
    WeightedEdges,
    chosen_blocks,
    usable_weights,
    weighted_edges,
)
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind

MANY_EDGES = 4_000_000
"""Edges beyond which they are passed over in pieces."""
_NEARLY = 1e-9
"""By how much a limit is lowered that only picks candidates."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeSurvey:
    """What all edges of some kinds tell."""

    n_pairs: int
    """Pairs of units with an edge."""
    strength: float
    """Sum of the absolute weights."""
    n_left_out: int
    """Edges whose parameter is NaN or infinite; they are not among the others."""
    pairs: WeightedEdges | None
    """One edge per pair; None where there are too many."""
    strong: WeightedEdges
    """The backbone."""
    alpha: float
    """Level of the backbone: what was asked for, or less where that would leave too many edges."""
    links: WeightedEdges
    """Between positions of layers, with the sum of the absolute weights."""


def survey_edges(graph: UnitGraph, kinds: Sequence[EdgeKind | str], *, alpha: float, most: int) -> EdgeSurvey:
    """Survey the edges of a graph.

    Args:
        graph: The unit graph.
        kinds: Kinds of edges.
        alpha: Level of the backbone.
        most: Pairs that are wanted as a whole, and edges that the backbone of a graph with more may have.

    Raises:
        UsageError: A kind is unknown, or alpha is not in (0, 1].
        LimitError: More edges than memory is meant for.
    """
    blocks = chosen_blocks(graph, kinds)
    if sum(block.n_edges for block in blocks) > max(MANY_EDGES, most):
        return _Pieces(graph, blocks).survey(alpha, most)
    edges = weighted_edges(graph, kinds)
    pairs = edges.joined()
    return EdgeSurvey(
        n_pairs=len(pairs.src),
        strength=float(pairs.strength.sum()),
        n_left_out=edges.n_left_out,
        pairs=pairs,
        strong=backbone(pairs, alpha),
        alpha=alpha,
        links=_links(graph, edges.src, edges.dst, edges.strength),
    )


def disparity(edges: WeightedEdges) -> Floats:
    """P-value of every edge under uniformly random splits of a unit's strength.

    `p = (1 - w / s)^(k - 1)` with s the strength and k the degree of the unit; the smaller of the source's
    value (over its outgoing edges) and the target's (over its incoming ones). A unit with one edge says
    nothing: p = 1. M. Á. Serrano, M. Boguñá, A. Vespignani, PNAS 106, 6483 (2009), eq. 2.

    Returns:
        (n_edges,) in [0, 1].

    Example:
        >>> star = WeightedEdges(n_units=3, src=np.array([0, 0]), dst=np.array([1, 2]),
        ...     weight=np.array([3.0, 1.0]), n_left_out=0)
        >>> disparity(star).tolist()
        [0.25, 0.75]
    """
    sides = [_side(units, edges.strength, edges.n_units) for units in (edges.src, edges.dst)]
    return _p_values(edges.src, edges.dst, edges.strength, sides)


def backbone(edges: WeightedEdges, alpha: float) -> WeightedEdges:
    """The edges whose disparity p-value is below alpha.

    Raises:
        UsageError: alpha is not in (0, 1].
    """
    if not 0 < alpha <= 1:
        raise UsageError(f"alpha {alpha}: expected a number in (0, 1]")
    return edges.only(disparity(edges) < alpha)


_Side = tuple[Floats, Ints]
"""Strength and degree of every unit on one side of its edges."""


def _side(units: NDArray[np.integer], strength: Floats, n_units: int) -> _Side:
    sums = np.bincount(units, weights=strength, minlength=n_units).astype(np.float64)
    return sums, np.bincount(units, minlength=n_units)


def _p_values(src: Ints, dst: Ints, strength: Floats, sides: Sequence[_Side]) -> Floats:
    p = np.ones(len(strength))
    for units, (sums, degrees) in zip((src, dst), sides, strict=True):
        whole, degree = sums[units], degrees[units]
        share = np.divide(strength, whole, out=np.zeros_like(strength), where=whole > 0)
        own = np.where(degree > 1, (1 - np.minimum(share, 1.0)) ** (degree - 1), 1.0)
        np.minimum(p, own, out=p)
    return p


def _links(graph: UnitGraph, src: Ints, dst: Ints, strength: Floats) -> WeightedEdges:
    """The edges between layers, one per pair of layers."""
    n = len(graph.layers)
    code = graph.unit_layer[src].astype(np.int64) * n + graph.unit_layer[dst]
    pairs, inverse = np.unique(code, return_inverse=True)
    sums = np.bincount(inverse, weights=strength, minlength=len(pairs)).astype(np.float64)
    return WeightedEdges(n_units=n, src=pairs // max(n, 1), dst=pairs % max(n, 1), weight=sums, n_left_out=0)


def links_by_sums(graph: UnitGraph, blocks: Sequence[UnitBlock]) -> WeightedEdges:
    """The edges between layers, from the sums of blocks whose weights are not at hand and other edges."""
    parts = []
    for block in blocks:
        if graph.lacks_weights([block]):
            out = graph.side_sums(block).filter(pl.col("outgoing") & (pl.col("degree") > 0))
            target = np.full(out.height, graph.layer_of(block.layer).first_unit)
            parts.append(_links(graph, out["unit"].to_numpy(), target, out["l1"].to_numpy()))
        elif block.n_edges:
            parts += [
                _links(graph, piece.src, piece.dst, piece.weight) for piece in _one_block(graph, [block])
            ]
    return _joined(parts).joined()


class _Pieces:
    """Passes over very many edges."""

    def __init__(self, graph: UnitGraph, blocks: Sequence[UnitBlock]) -> None:
        self.graph = graph
        self.groups = _groups(graph, [block for block in blocks if block.n_edges])
        self.n_left_out = 0

    def survey(self, alpha: float, most: int) -> EdgeSurvey:
        n = self.graph.n_units
        sides = [(np.zeros(n), np.zeros(n, dtype=np.int64)) for _ in range(2)]
        links: list[WeightedEdges] = []
        n_pairs = 0
        for piece in self._pieces():
            n_pairs += len(piece.src)
            for side, units in zip(sides, (piece.src, piece.dst), strict=True):
                for total, more in zip(side, _side(units, piece.weight, n), strict=True):
                    np.add(total, more, out=total)
            links.append(_links(self.graph, piece.src, piece.dst, piece.weight))
            self.n_left_out += piece.n_left_out
        strong, level = self._strong(sides, alpha, most)
        return EdgeSurvey(
            n_pairs=n_pairs,
            strength=float(sides[0][0].sum()),
            n_left_out=self.n_left_out,
            pairs=None,
            strong=strong,
            alpha=level,
            links=_joined(links).joined(),
        )

    def _strong(self, sides: Sequence[_Side], alpha: float, most: int) -> tuple[WeightedEdges, float]:
        """The edges below a level, at most so many, and the level."""
        level = alpha
        kept: list[WeightedEdges] = []
        values: list[Floats] = []
        limits = [_least_weight(side, level) for side in sides]
        for piece in self._pieces():
            near = (piece.weight >= limits[0][piece.src]) | (piece.weight >= limits[1][piece.dst])
            some = piece.only(near)
            p = _p_values(some.src, some.dst, some.weight, sides)
            kept.append(some.only(p < level))
            values.append(p[p < level])
            if sum(map(len, values)) > 2 * most:
                level = float(np.partition(np.concatenate(values), most - 1)[most - 1]) if most else 0.0
                kept = [part.only(p < level) for part, p in zip(kept, values, strict=True)]
                values = [p[p < level] for p in values]
                limits = [_least_weight(side, level) for side in sides]
        found, p = _joined(kept), np.concatenate([np.empty(0), *values])
        if len(p) > most:
            level = float(np.partition(p, most)[most])
            found = found.only(p < level)
        order = np.lexsort((found.dst, found.src))
        return found.only(order), level

    def _pieces(self) -> Iterator[WeightedEdges]:
        """Edges with absolute weights, each pair of units once."""
        for group in self.groups:
            read = _one_block if len(group) == 1 else _together
            yield from read(self.graph, group)


def _groups(graph: UnitGraph, blocks: Sequence[UnitBlock]) -> list[list[UnitBlock]]:
    """Blocks that can hold the same pair of units: of one target layer, with sources that overlap."""
    by_layer: dict[int, list[UnitBlock]] = {}
    for block in blocks:
        by_layer.setdefault(block.layer, []).append(block)
    groups: list[list[UnitBlock]] = []
    for own in by_layer.values():
        end = -1
        spans = ((*_span(graph, block), block) for block in own)
        for first, last, block in sorted(spans, key=lambda span: span[:2]):
            if first <= end:
                groups[-1].append(block)
            else:
                groups.append([block])
            end = max(end, last)
    return groups


def _span(graph: UnitGraph, block: UnitBlock) -> tuple[int, int]:
    """First and last source that a block can have."""
    if block.src_units is None or not len(block.src_units):
        return 0, graph.n_units
    return int(block.src_units.min()), int(block.src_units.max())


def _one_block(graph: UnitGraph, group: Sequence[UnitBlock]) -> Iterator[WeightedEdges]:
    for block, columns in graph.iter_pieces(group, columns=("src", "dst", "weight")):
        weight = np.abs(usable_weights(block, columns["weight"]))
        finite = np.isfinite(weight)
        edges = WeightedEdges(
            n_units=graph.n_units, src=columns["src"], dst=columns["dst"], weight=weight, n_left_out=0
        )
        n_left_out = len(weight) - int(np.count_nonzero(finite))
        yield edges if not n_left_out else edges.only(finite, n_left_out=n_left_out)


def _together(graph: UnitGraph, group: Sequence[UnitBlock]) -> Iterator[WeightedEdges]:
    parts = [part for block in group for part in _one_block(graph, [block])]
    yield _joined(parts).joined()


def _joined(parts: Sequence[WeightedEdges]) -> WeightedEdges:
    """The edges of all parts, one part after the other."""
    return WeightedEdges(
        n_units=max((part.n_units for part in parts), default=0),
        src=np.concatenate([np.empty(0, np.int64), *(part.src for part in parts)]).astype(np.int64),
        dst=np.concatenate([np.empty(0, np.int64), *(part.dst for part in parts)]).astype(np.int64),
        weight=np.concatenate([np.empty(0), *(part.weight for part in parts)]),
        n_left_out=sum(part.n_left_out for part in parts),
    )


def _least_weight(side: _Side, level: float) -> Floats:
    """(n_units,) about the smallest weight whose p-value is below a level, on one side of each unit."""
    sums, degrees = side
    with np.errstate(divide="ignore"):
        share = 1 - level ** (1 / np.maximum(degrees - 1, 1))
    return np.where(degrees > 1, sums * (share - _NEARLY), np.inf)
