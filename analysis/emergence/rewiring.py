"""Random counterparts of a block: its weights shuffled, or its edges rewired with all degrees kept."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.unitgraph import EdgeColumns, UnitBlock, UnitGraph
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.arrays import IntArray
from emergraph.graphstore.records import EdgeKind

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
    keep: frozenset[int] = frozenset()
    """Ids of blocks that stay as they are."""

    def iter_edges(
        self, blocks: Sequence[UnitBlock], *, columns: Sequence[str]
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Yield each block with its columns, ordered by (src, dst)."""
        payload = tuple(name for name in columns if name not in ("src", "dst", "origin"))
        originals = {block.id: block for block in self.graph.blocks}
        stream = self.graph.iter_edges([originals[b.id] for b in blocks], columns=("src", "dst", *payload))
        for block, (_, edges) in zip(blocks, stream, strict=True):
            if not is_randomised(block) or block.id in self.keep:
                yield block, {**edges, "origin": np.arange(block.n_edges)}
                continue
            root = block.id if block.shared_with is None else block.shared_with
            rng = np.random.default_rng([self.seed, self.draw, root])
            moved = randomise(block, edges, self.kind, rng, origins=bool(payload) or "origin" in columns)
            moved |= {name: edges[name][moved["origin"]] for name in payload}
            yield block, moved


def randomised_graph(
    graph: UnitGraph, kind: WeightNull, *, seed: int, draw: int, keep: Collection[int] = ()
) -> UnitGraph:
    """The graph with the edges of its parameter blocks randomised; no edge is held in memory.

    Args:
        graph: The graph.
        kind: How.
        seed: Seed of the draws.
        draw: Number of the draw.
        keep: Ids of blocks that stay as they are.
    """
    edges = RandomisedEdges(graph=graph, kind=kind, seed=seed, draw=draw, keep=frozenset(keep))
    return replace(graph, edges=edges)


def is_randomised(block: UnitBlock) -> bool:
    """Whether randomisation concerns the block: it holds parameters."""
    return block.kind in (EdgeKind.WEIGHT, EdgeKind.RECURRENT)


def randomise(
    block: UnitBlock, edges: EdgeColumns, kind: WeightNull, rng: np.random.Generator, *, origins: bool = True
) -> dict[str, NDArray[Any]]:
    """Edges of a randomised block, ordered by (src, dst).

    Args:
        block: The block.
        edges: Its columns src and dst.
        kind: How it is randomised.
        rng: Source of randomness.
        origins: Whether to say where weights go, which costs more than the edges do.

    Returns:
        Columns src, dst and, with `origins`, origin.
    """
    cells = _Cells.of(block, edges)
    if kind is WeightNull.REWIRE:
        at = _rewired(cells, rng)
    elif block.src_units is None:
        at = cells.at
    else:
        at = _some_of(len(cells.sources) * len(cells.targets), len(cells.at), rng)
    row, column = np.divmod(at, len(cells.targets))
    moved: dict[str, NDArray[Any]] = {"src": cells.sources[row], "dst": cells.targets[column]}
    if origins:
        if kind is WeightNull.REWIRE:
            # Rows keep their number of edges: shuffling within each row keeps weights with their source.
            origin = np.lexsort((rng.random(len(at)), cells.at // len(cells.targets)))
        else:
            origin = rng.permutation(len(at))
        moved["origin"] = origin if cells.order is None else cells.order[origin]
    if not (_increasing(cells.sources) and _increasing(cells.targets)):
        by_unit = np.lexsort((moved["dst"], moved["src"]))
        moved = {name: column[by_unit] for name, column in moved.items()}
    return moved


def _some_of(n: int, k: int, rng: np.random.Generator) -> IntArray:
    """Draw k of n places, increasing; the fewer of those taken and those left are drawn."""
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.choice(n, min(k, n - k), replace=False, shuffle=False)] = True
    return np.flatnonzero(chosen if k <= n - k else ~chosen)


def _increasing(values: IntArray) -> bool:
    return bool(np.all(values[1:] > values[:-1]))


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """A block's edges as places in its matrix, so that blocks that share a tensor look alike."""

    sources: IntArray
    targets: IntArray
    at: IntArray
    """(n_edges,) row * n_targets + column, increasing."""
    order: IntArray | None
    """(n_edges,) the edge at each place; None where edges came in order of place."""

    @classmethod
    def of(cls, block: UnitBlock, edges: EdgeColumns) -> "_Cells":
        src, dst = edges["src"].astype(np.int64), edges["dst"].astype(np.int64)
        sources = np.unique(src) if block.src_units is None else block.src_units
        targets = np.unique(dst) if block.dst_units is None else block.dst_units
        at = _positions(src, sources) * len(targets) + _positions(dst, targets)
        if _increasing(at):
            return cls(sources=sources, targets=targets, at=at, order=None)
        order = np.argsort(at, kind="stable")
        return cls(sources=sources, targets=targets, at=at[order], order=order)


def _positions(units: IntArray, among: IntArray) -> IntArray:
    first = int(among.min())
    place = np.zeros(int(among.max()) - first + 1, dtype=np.int64)
    place[among - first] = np.arange(len(among))
    return np.asarray(place[units - first])


def _rewired(cells: _Cells, rng: np.random.Generator) -> IntArray:
    shape = (len(cells.sources), len(cells.targets))
    if shape[0] * shape[1] > MAXIMUM_CELLS:
        raise LimitError(
            f"Rewiring a block of {shape[0]} x {shape[1]} pairs needs more than {MAXIMUM_CELLS} bytes: "
            "use the null weights_in_blocks instead"
        )
    matrix = np.zeros(shape[0] * shape[1], dtype=bool)
    matrix[cells.at] = True
    rewire(matrix.reshape(shape), rng)
    return np.flatnonzero(matrix)


def rewire(matrix: Bools, rng: np.random.Generator, *, trades: int = TRADES) -> None:
    """Randomise a 0/1 matrix in place with all row and column sums kept.

    Global curveball trades (Carstens, Berger, Strona, arXiv 1609.05137): rows are paired at random, and each
    pair deals out again the columns that only one of the two holds, each keeping its number. The chain is
    symmetric, so its limit is the uniform distribution over matrices with these sums. Cost of a trade: the
    cells of the matrix once, and a sort of those in which the rows of a pair differ.

    Args:
        matrix: (n_rows, n_columns) bool, changed.
        rng: Source of randomness.
        trades: How often all rows trade, at least 1; a few more than log2(n_rows) mix well.
    """
    if trades < 1:
        raise UsageError(f"Rewiring needs at least one trade, got {trades}")
    half = len(matrix) // 2
    for _ in range(trades):
        order = rng.permutation(len(matrix))
        left, right = order[:half], order[half : 2 * half]
        of_left = matrix[left]
        pair, column = np.nonzero(of_left ^ matrix[right])
        n_left = np.bincount(pair[of_left[pair, column]], minlength=half)
        per_pair = np.bincount(pair, minlength=half)
        dealt = np.lexsort((rng.random(len(pair)), pair))
        place = np.arange(len(pair)) - np.repeat(np.cumsum(per_pair) - per_pair, per_pair)
        to_left = place < n_left[pair]
        column = column[dealt]
        matrix[left[pair], column] = to_left
        matrix[right[pair], column] = ~to_left
