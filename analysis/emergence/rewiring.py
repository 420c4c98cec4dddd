"""Random counterparts of a block: its weights shuffled, or its edges rewired with all degrees kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.unitgraph import EdgeColumns, UnitBlock, UnitGraph
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.records import EdgeKind, IntArray

Bools = NDArray[np.bool_]

MAXIMUM_CELLS = 1 << 28
"""Pairs of a block whose edges are rewired: they are held as one boolean each."""
TRADES = 20
"""Global trades of a rewiring; every source trades with another in each."""


class WeightNull(StrEnum):
    """How a block's edges are randomised."""

    SHUFFLE = "weights_in_blocks"
    """The entries of each block's matrix, zeros included, in random order. Blocks that are not matrices keep
    their edges and shuffle the weights among them."""
    REWIRE = "rewired"
    """Every unit keeps its number of edges in and out of each block; weights stay with their source."""


@dataclass(frozen=True, kw_only=True)
class RandomisedEdges:
    """Edges of a graph after randomisation, made again from the seed each time they are streamed.

    Column `origin` gives, for every edge, the place in the original block of the edge that its weight came
    from. Blocks that share a tensor are randomised alike.
    """

    graph: UnitGraph
    kind: WeightNull
    seed: int
    draw: int

    def iter_edges(
        self, blocks: Sequence[UnitBlock], *, columns: Sequence[str]
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Yield each block with its columns, ordered by (src, dst)."""
        wanted = tuple(dict.fromkeys(("src", "dst", *(name for name in columns if name != "origin"))))
        originals = {block.id: block for block in self.graph.blocks}
        chosen = [originals[block.id] for block in blocks]
        for block, (_, edges) in zip(blocks, self.graph.iter_edges(chosen, columns=wanted), strict=True):
            if not is_randomised(block):
                yield block, {**edges, "origin": np.arange(block.n_edges)}
                continue
            root = block.id if block.shared_with is None else block.shared_with
            rng = np.random.default_rng([self.seed, self.draw, root])
            src, dst, origin = randomise(block, edges, self.kind, rng)
            moved: dict[str, NDArray[Any]] = {"src": src, "dst": dst, "origin": origin}
            moved |= {name: edges[name][origin] for name in wanted if name not in ("src", "dst")}
            yield block, moved


def randomised_graph(graph: UnitGraph, kind: WeightNull, *, seed: int, draw: int) -> UnitGraph:
    """The graph with the edges of its parameter blocks randomised; no edge is held in memory."""
    return replace(graph, edges=RandomisedEdges(graph=graph, kind=kind, seed=seed, draw=draw))


def is_randomised(block: UnitBlock) -> bool:
    """Whether randomisation concerns the block: it holds parameters."""
    return block.kind in (EdgeKind.WEIGHT, EdgeKind.RECURRENT)


def randomise(
    block: UnitBlock, edges: EdgeColumns, kind: WeightNull, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray]:
    """Source, target and origin of every edge of a randomised block, ordered by (src, dst)."""
    cells = _Cells.of(block, edges)
    if kind is WeightNull.SHUFFLE:
        if block.src_units is None:
            at, origin = np.sort(cells.at), rng.permutation(len(cells.at))
        else:
            size = len(cells.sources) * len(cells.targets)
            at = np.sort(rng.choice(size, len(cells.at), replace=False, shuffle=False))
            origin = rng.permutation(len(at))
    else:
        at, origin = _rewired(cells, rng)
    origin = cells.order[origin]
    row, column = np.divmod(at, len(cells.targets))
    src, dst = cells.sources[row], cells.targets[column]
    by_unit = np.lexsort((dst, src))
    return src[by_unit], dst[by_unit], origin[by_unit]


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """A block's edges as places in its matrix, so that blocks that share a tensor look alike."""

    sources: IntArray
    targets: IntArray
    at: IntArray
    """(n_edges,) row * n_targets + column, increasing."""
    order: IntArray
    """(n_edges,) the edge at each place."""

    @classmethod
    def of(cls, block: UnitBlock, edges: EdgeColumns) -> "_Cells":
        src, dst = edges["src"].astype(np.int64), edges["dst"].astype(np.int64)
        sources = np.unique(src) if block.src_units is None else block.src_units
        targets = np.unique(dst) if block.dst_units is None else block.dst_units
        at = _positions(src, sources) * len(targets) + _positions(dst, targets)
        order = np.argsort(at, kind="stable")
        return cls(sources=sources, targets=targets, at=at[order], order=order)


def _positions(units: IntArray, among: IntArray) -> IntArray:
    by_unit = np.argsort(among, kind="stable")
    return np.asarray(by_unit[np.searchsorted(among, units, sorter=by_unit)])


def _rewired(cells: _Cells, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    shape = (len(cells.sources), len(cells.targets))
    if shape[0] * shape[1] > MAXIMUM_CELLS:
        raise LimitError(
            f"Rewiring a block of {shape[0]} x {shape[1]} pairs needs more than {MAXIMUM_CELLS} bytes: "
            "use the null weights_in_blocks instead"
        )
    matrix = np.zeros(shape[0] * shape[1], dtype=bool)
    matrix[cells.at] = True
    matrix = matrix.reshape(shape)
    rewire(matrix, rng)
    at = np.flatnonzero(matrix)
    # Rows keep their number of edges: shuffling origins within each row keeps weights with their source.
    row = cells.at // len(cells.targets)
    origin = np.lexsort((rng.random(len(row)), row))
    return at, origin


def rewire(matrix: Bools, rng: np.random.Generator, *, trades: int = TRADES) -> None:
    """Randomise a 0/1 matrix in place with all row and column sums kept.

    Global curveball trades (Carstens, Berger, Strona, arXiv 1609.05137): rows are paired at random, and each
    pair deals out again the columns that only one of the two holds, each keeping its number. The chain is
    symmetric, so its limit is the uniform distribution over matrices with these sums.

    Args:
        matrix: (n_rows, n_columns) bool, changed.
        rng: Source of randomness.
        trades: How often all rows trade, at least 1.
    """
    if trades < 1:
        raise UsageError(f"Rewiring needs at least one trade, got {trades}")
    n_rows = len(matrix)
    for _ in range(trades):
        order = rng.permutation(n_rows)
        for left, right in zip(order[: n_rows // 2], order[n_rows // 2 : 2 * (n_rows // 2)], strict=True):
            only_one = np.flatnonzero(matrix[left] ^ matrix[right])
            if not len(only_one):
                continue
            n_left = int(np.count_nonzero(matrix[left, only_one]))
            dealt = rng.permutation(only_one)
            matrix[left, only_one] = False
            matrix[right, only_one] = True
            matrix[left, dealt[:n_left]] = True
            matrix[right, dealt[:n_left]] = False
