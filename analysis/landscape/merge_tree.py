"""Merge tree of a sampled plane: minima, the saddles where their basins meet, persistence, SMAD, basins.

Sublevel filtration of the grid graph with the elder rule: where two components meet at a saddle s, the one
whose minimum m is higher dies, with persistence f(s) - f(m); the global minimum never dies (Edelsbrunner
and Harer, Computational Topology, VII.1). The saddle-minimum average distance (SMAD, arXiv 2602.07135) is
the mean, over the leaf edges (minimum, first saddle above it), of f(saddle) - f(minimum), the global
minimum included.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.landscape.extrema import RING, as_grid
from emergraph.analysis.statistics.estimate import plain
from emergraph.errors import UsageError

if TYPE_CHECKING:
    import igraph


@dataclass(frozen=True, kw_only=True)
class MergeTree:
    """The merge tree of one grid, after cancelling every pair that does not persist above the floor.

    Cells are flat indices of the grid in C order. Nodes count minima first (0 .. n_minima - 1, lowest first),
    then saddles in the order in which they join basins.
    """

    shape: tuple[int, int]
    floor: float
    """Persistence that a pair must exceed to be kept."""
    minima: NDArray[np.int64]
    """(n_minima,) cells, ascending by loss; the first is the global minimum."""
    minimum_values: NDArray[np.float64]
    """(n_minima,) losses."""
    persistence: NDArray[np.float64]
    """(n_minima,) f(saddle) - f(minimum); infinite for the first."""
    death: NDArray[np.int64]
    """(n_minima,) cell of the saddle at which the minimum dies; -1 for the first."""
    saddles: NDArray[np.int64]
    """(n_saddles,) cells."""
    saddle_values: NDArray[np.float64]
    """(n_saddles,) losses."""
    parent: NDArray[np.int64]
    """(n_minima + n_saddles,) node above; -1 for the root."""
    basin: NDArray[np.int64]
    """(rows, columns) minimum that steepest descent from each cell leads to; -1 for non-finite cells."""
    value_range: float
    """Largest less smallest finite loss."""
    n_cancelled: int
    """Pairs that did not exceed the floor, flat ones (persistence 0) not counted."""

    @property
    def n_minima(self) -> int:
        """Number of minima that persist above the floor."""
        return len(self.minima)

    def to_igraph(self) -> "igraph.Graph":
        """Return the barrier tree: a directed igraph tree from minima up to the root saddle.

        Vertex attributes: kind ("minimum", "saddle"), row, column, loss, persistence (None for saddles,
        infinite for the global minimum), basin_cells (0 for saddles). Edge attribute: weight, the climb in
        loss.
        """
        import igraph

        cells = np.concatenate([self.minima, self.saddles])
        losses = np.concatenate([self.minimum_values, self.saddle_values])
        children = np.flatnonzero(self.parent >= 0)
        n_saddles = len(self.saddles)
        return igraph.Graph(
            n=len(cells),
            edges=list(zip(children.tolist(), self.parent[children].tolist(), strict=True)),
            directed=True,
            vertex_attrs={
                "kind": ["minimum"] * self.n_minima + ["saddle"] * n_saddles,
                "row": (cells // self.shape[1]).tolist(),
                "column": (cells % self.shape[1]).tolist(),
                "loss": losses.tolist(),
                "persistence": self.persistence.tolist() + [None] * n_saddles,
                "basin_cells": self.basin_cells().tolist() + [0] * n_saddles,
            },
            edge_attrs={"weight": (losses[self.parent[children]] - losses[children]).tolist()},
        )

    def basin_cells(self) -> NDArray[np.int64]:
        """Return how many cells drain into each minimum, (n_minima,)."""
        inside = self.basin[self.basin >= 0]
        return np.bincount(inside, minlength=self.n_minima).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Persistence:
    """Numbers that sum up one merge tree."""

    n_minima: int
    smad: float
    """Mean climb from a minimum to its first saddle, in units of the loss; 0 for a single minimum."""
    smad_normalised: float
    """SMAD divided by the range of the losses."""
    smad_weighted: float
    """Mean of climb times share of cells in the basin."""
    total_persistence: float
    """Sum over all minima but the global one."""
    max_persistence: float
    """Highest barrier that closes off a minimum other than the global one."""
    persistence_entropy: float
    """-sum p ln p of the normalised persistences; 0 for fewer than two pairs."""
    floor: float

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


@dataclass(slots=True)
class _Forest:
    """Union-find over the padded grid that records merges as they happen."""

    parent: list[int]
    top: dict[int, int]
    """Tree node on top of each component, by component root; saddles are numbered after the cells."""
    above: dict[int, int]
    """Tree node -> node above it."""
    saddle_cells: list[int]
    deaths: dict[int, int]
    """Dead minimum (padded cell) -> saddle cell."""
    alias: dict[int, int]
    """Cancelled minimum -> minimum that took it over."""
    n_cancelled: int = 0

    def find(self, cell: int) -> int:
        parent = self.parent
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    def merge(self, elder: int, younger: int, cell: int, *, persistence: float, floor: float) -> None:
        """Join two components at a saddle cell; a pair that does not exceed the floor is forgotten."""
        self.parent[younger] = elder
        if not persistence > floor:
            self.alias[younger] = elder
            self.n_cancelled += persistence > 0
            return
        self.deaths[younger] = cell
        n_cells = len(self.parent)
        if not (self.saddle_cells and self.saddle_cells[-1] == cell and self.top[elder] >= n_cells):
            node = n_cells + len(self.saddle_cells)
            self.saddle_cells.append(cell)
            self.above[self.top[elder]] = node
            self.top[elder] = node
        self.above[self.top[younger]] = self.top[elder]


def _offsets(width: int, neighbours: int) -> list[int]:
    if neighbours not in (4, 8):
        raise UsageError(f"neighbours: expected 4 or 8, found {neighbours}")
    return [r * width + c for r, c in RING if neighbours == 8 or r == 0 or c == 0]


def _ranks(flat: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return every cell's place in the order from low to high, ties broken by the order of cells."""
    rank = np.empty(flat.size, dtype=np.int64)
    rank[np.argsort(flat, kind="stable")] = np.arange(flat.size)
    return rank


def _steepest_descent(
    flat: NDArray[np.float64], rank: NDArray[np.int64], offsets: list[int]
) -> NDArray[np.int64]:
    """Return for every padded cell the minimum that it drains into; walls keep themselves."""
    inner = np.flatnonzero(np.isfinite(flat))
    around = np.stack([inner, *(inner + offset for offset in offsets)])
    target = np.arange(flat.size)
    target[inner] = around[np.argmin(rank[around], axis=0), np.arange(inner.size)]
    while True:
        further = target[target]
        if np.array_equal(further, target):
            return target
        target = further


def _sweep(
    flat: NDArray[np.float64],
    rank: NDArray[np.int64],
    drain: NDArray[np.int64],
    offsets: list[int],
    floor: float,
) -> _Forest:
    """Merge components from low to high; roots are always the component's minimum.

    A cell joins the component of the minimum that it drains into. Components can only meet at a cell with a
    lower neighbour that drains elsewhere, so no other cell is looked at one by one.
    """
    inner = np.flatnonzero(np.isfinite(flat))
    around = inner + np.array(offsets)[:, None]
    elsewhere = (rank[around] < rank[inner]) & (drain[around] != drain[inner])
    minima = inner[drain[inner] == inner].tolist()
    forest = _Forest(list(range(flat.size)), dict(zip(minima, minima, strict=True)), {}, [], {}, {})
    meeting = np.flatnonzero(elsewhere.any(axis=0))
    meeting = meeting[np.argsort(rank[inner[meeting]])]
    own = drain[inner[meeting]]
    joined = np.vstack([own, np.where(elsewhere[:, meeting], drain[around[:, meeting]], own)])
    ranks, values = rank.tolist(), flat.tolist()
    for cell, basins in zip(inner[meeting].tolist(), joined.T.tolist(), strict=True):
        elder, *younger = sorted({forest.find(m) for m in set(basins)}, key=ranks.__getitem__)
        for root in reversed(younger):
            forest.merge(elder, root, cell, persistence=values[cell] - values[root], floor=floor)
    return forest


def merge_tree(values: ArrayLike, *, floor: float = 0.0, neighbours: int = 4) -> MergeTree:
    """Build the merge tree of a plane or line of losses.

    Args:
        values: (rows, columns) or (n,); non-finite cells are walls.
        floor: Pairs with persistence at most this are cancelled; `extrema.noise_floor` for computed losses.
        neighbours: 4 or 8.

    Returns:
        The tree; O(n log n), about 1 ms for 41 x 41 cells. Where walls cut the plane apart, the lowest
        minimum of every part has infinite persistence.

    Raises:
        UsageError: Not a grid, no finite value, or a negative floor.

    Example:
        >>> x = np.linspace(-1.5, 1.5, 61)
        >>> tree = merge_tree((x[:, None] ** 2 - 1) ** 2 + x**2)
        >>> tree.n_minima, round(float(tree.persistence[1]), 6)
        (2, 1.0)
    """
    grid = as_grid(values)
    if not floor >= 0:
        raise UsageError(f"floor: expected a non-negative loss difference, found {floor}")
    padded = np.pad(np.where(np.isfinite(grid), grid, np.inf), 1, constant_values=np.inf)
    width = padded.shape[1]
    offsets = _offsets(width, neighbours)
    flat = padded.ravel()
    rank = _ranks(flat)
    drain = _steepest_descent(flat, rank, offsets)
    forest = _sweep(flat, rank, drain, offsets, floor)
    kept = sorted((cell for cell in forest.top if cell not in forest.alias), key=lambda c: (flat[c], c))
    number = {cell: i for i, cell in enumerate(kept)}
    n_cells = flat.size
    nodes = [*kept, *(n_cells + i for i in range(len(forest.saddle_cells)))]
    index = {node: i for i, node in enumerate(nodes)}
    survivor = np.full(n_cells, -1)
    for cell in forest.top:
        heir = cell
        while heir in forest.alias:
            heir = forest.alias[heir]
        survivor[cell] = number[heir]
    basin = np.where(np.isfinite(flat), survivor[drain], -1)
    deaths = np.array([forest.deaths.get(cell, -1) for cell in kept])
    saddles = np.array(forest.saddle_cells, dtype=np.int64)

    def unpad(cells: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray((cells // width - 1) * (width - 2) + cells % width - 1)

    finite = grid[np.isfinite(grid)]
    return MergeTree(
        shape=(grid.shape[0], grid.shape[1]),
        floor=floor,
        minima=unpad(np.array(kept, dtype=np.int64)),
        minimum_values=flat[kept],
        persistence=np.where(deaths >= 0, flat[deaths] - flat[kept], np.inf),
        death=np.where(deaths >= 0, unpad(deaths), -1),
        saddles=unpad(saddles),
        saddle_values=flat[saddles],
        parent=np.array([index[forest.above[node]] if node in forest.above else -1 for node in nodes]),
        basin=basin.reshape(padded.shape)[1:-1, 1:-1],
        value_range=float(np.ptp(finite)),
        n_cancelled=forest.n_cancelled,
    )


def leaf_climbs(tree: MergeTree) -> NDArray[np.float64]:
    """Return f(first saddle above) - f(minimum) for every minimum that has a saddle above it."""
    parents = tree.parent[: tree.n_minima]
    joined = parents >= 0
    return tree.saddle_values[parents[joined] - tree.n_minima] - tree.minimum_values[joined]


def summarise(tree: MergeTree) -> Persistence:
    """Sum up a merge tree: SMAD, total and largest persistence, persistence entropy.

    Example:
        >>> x = np.linspace(-1, 1, 21)
        >>> summarise(merge_tree(x[:, None] ** 2 + x**2)).smad
        0.0
    """
    climbs = leaf_climbs(tree)
    pairs = tree.persistence[np.isfinite(tree.persistence)]
    total = float(pairs.sum())
    shares = pairs / total if total > 0 else pairs
    joined = tree.parent[: tree.n_minima] >= 0
    weights = tree.basin_cells()[joined] / max(int(np.sum(tree.basin >= 0)), 1)
    smad = float(climbs.mean()) if climbs.size else 0.0
    return Persistence(
        n_minima=tree.n_minima,
        smad=smad,
        smad_normalised=smad / tree.value_range if tree.value_range > 0 else 0.0,
        smad_weighted=float(np.mean(climbs * weights)) if climbs.size else 0.0,
        total_persistence=total,
        max_persistence=float(pairs.max(initial=0.0)),
        persistence_entropy=float(-np.sum(shares * np.log(shares))) if pairs.size > 1 else 0.0,
        floor=tree.floor,
    )
