"""What theory expects for edges that are added at random."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.percolation.edgelist import PercolationEdges

Floats = NDArray[np.float64]

DENSE_SIDES = 600
"""Sides of blocks up to which all eigenvalues are computed, and beyond which the largest alone is."""
_HALVINGS = 53
"""Of an interval of 1, until it is as short as a double tells."""


def degree_threshold(degrees: NDArray[np.integer]) -> float:
    """Share of edges at which a random graph with these degrees percolates.

    `p_c = <k> / (<k^2> - <k>)` (Molloy and Reed; Cohen et al., Phys. Rev. Lett. 85, 4626, eq. 6). Above 1:
    never.

    Args:
        degrees: (n,) of the complete graph.

    Example:
        >>> degree_threshold(np.full(10, 3))
        0.5
    """
    k = degrees.astype(np.float64)
    excess = float((k * k).sum() - k.sum())
    return float(k.sum()) / excess if excess > 0 else float("inf")


def bipartite_threshold(n_in: int, n_out: int) -> float:
    """Edges at which a random bipartite graph percolates, `sqrt(n_in n_out)` (arXiv 2408.12578, section 5).

    Example:
        >>> bipartite_threshold(900, 18000) == 16200000**0.5
        True
    """
    return float(np.sqrt(float(n_in) * float(n_out)))


def bipartite_giant(n_in: int, n_out: int, edges: float) -> tuple[float, float]:
    """Shares of both sides that are in the giant component of a random bipartite graph.

    Solves `S_E = 1 - exp(-x r S_K)`, `S_K = 1 - exp(-(x/r) S_E)` with x = edges / sqrt(n_in n_out) and
    r = sqrt(n_out / n_in); both are 0 for x <= 1. The share of connected pairs is their product.

    Args:
        n_in: Size of side E.
        n_out: Size of side K.
        edges: Distinct random pairs.

    Example:
        >>> [round(share, 3) for share in bipartite_giant(1000, 1000, 2000)]
        [0.797, 0.797]
    """
    sides = bipartite_giants(np.array([n_in]), np.array([n_out]), np.array([edges]))
    return float(sides[0][0]), float(sides[1][0])


def bipartite_giants(
    n_in: NDArray[np.int64], n_out: NDArray[np.int64], edges: NDArray[np.int64] | Floats
) -> tuple[Floats, Floats]:
    """Return `bipartite_giant` of many graphs at once, by bisection.

    Example:
        >>> side_e, _ = bipartite_giants(np.array([1000, 10]), np.array([1000, 10]), np.array([2000, 5]))
        >>> side_e.round(3).tolist()
        [0.797, 0.0]
    """
    x = edges / np.sqrt(n_in.astype(np.float64) * n_out)
    r = np.sqrt(n_out / n_in)

    def side_k(s: Floats) -> Floats:
        return np.asarray(-np.expm1(-(x / r) * s))

    def gap(s: Floats) -> Floats:
        return np.asarray(-np.expm1(-x * r * side_k(s)) - s)

    low, high = np.full(len(x), 1e-12), np.ones(len(x))
    none = (x <= 1) | (gap(low) <= 0)  # or so near the threshold that it is within rounding of zero
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = gap(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    side_e = np.where(none, 0.0, high)
    return side_e, np.where(none, 0.0, side_k(side_e))


def branching_threshold(edges: PercolationEdges, components: NDArray[np.int64]) -> float:
    """Share of edges at which a random graph with the same degrees on each side of each block percolates.

    An edge of a block ends at its two sides; following it to one of them leads to a starting component c with
    probability k_t(c) / sum k_t, where k_t(c) counts its ends of that side t, and from there along
    `k_u(c) - [u = t]` further edges by the side u. `p_c = 1 / largest eigenvalue` of the matrix of these mean
    numbers (the multi-type form of Newman, Strogatz and Watts, Phys. Rev. E 64, 026118). One bipartite block
    gives `(q_source q_target)^(-1/2)`, equal degrees about `layered_threshold`. A graph of finite size peaks
    later, see docs/percolation.md.

    Args:
        edges: The edges.
        components: (n_units,) component of each unit before the first edge.
    """
    sides = 2 * len(edges.blocks)
    ends, total = _ends_by_component(edges, components)
    further = (
        ends.join(ends, on="component")
        .group_by("side", "side_right")
        .agg((pl.col("k") * pl.col("k_right")).sum())
    )
    by, to, sums = (further[name].to_numpy() for name in ("side", "side_right", "k"))
    mean = np.where(by == to, sums - total[by], sums) / total[by]
    largest = _largest_eigenvalue(mean, by, to ^ 1, sides)
    return 1 / largest if largest > 0 else float("inf")


def _ends_by_component(edges: PercolationEdges, components: NDArray[np.int64]) -> tuple[pl.DataFrame, Floats]:
    """Ends of edges between components, by component and side of a block; and in all, by side."""
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    sides: list[int] = []
    for block in range(len(edges.blocks)):
        for part in edges.pieces(block):
            src, dst = components[edges.src[part]], components[edges.dst[part]]
            apart = src != dst
            found += [np.unique(units[apart], return_counts=True) for units in (src, dst)]
            sides += [2 * block, 2 * block + 1]
    sizes = [len(there) for there, _ in found]
    ends = pl.DataFrame(
        {
            "component": np.concatenate([np.empty(0, np.int64), *(there for there, _ in found)]),
            "side": np.repeat(np.array(sides, dtype=np.int64), sizes),
            "k": np.concatenate([np.empty(0), *(counts for _, counts in found)]),
        }
    )
    total = np.bincount(ends["side"], weights=ends["k"], minlength=2 * len(edges.blocks)).astype(np.float64)
    return ends.group_by("component", "side").agg(pl.col("k").sum()), total


def _largest_eigenvalue(
    values: Floats,
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    size: int,
    *,
    symmetric: bool = False,
) -> float:
    """Of a square matrix without negative entries: a real number, by Perron and Frobenius."""
    if size <= DENSE_SIDES:
        full = np.zeros((size, size))
        full[rows, columns] = values
        if symmetric:
            return float(np.linalg.eigvalsh(full)[-1])
        return float(np.linalg.eigvals(full).real.max(initial=0.0))
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import eigs, eigsh

    matrix = csc_array((values, (rows, columns)), shape=(size, size))
    start = np.ones(size)
    if symmetric:
        return float(eigsh(matrix, k=1, which="LA", v0=start, return_eigenvectors=False)[0])
    return float(eigs(matrix, k=1, which="LR", v0=start, return_eigenvectors=False)[0].real)


def layered_threshold(edges: PercolationEdges) -> float:
    """Share of edges at which a random graph with the same numbers of edges between layers percolates.

    Mean field: `p_c = 1 / largest eigenvalue of B`, where B[a, b] is the mean number of edges from a unit of
    layer a to units of layer b, in either direction. One bipartite layer gives `sqrt(n_in n_out)` edges.
    Structural edges are not part of it.
    """
    graph = edges.graph
    n = len(graph.layers)
    sizes = np.array([max(layer.n_units, 1) for layer in graph.layers], dtype=np.float64)
    # D^-1 C and D^-1/2 C D^-1/2 have the same eigenvalues, and the latter is symmetric.
    scale = 1 / np.sqrt(sizes)
    between: dict[tuple[int, int], float] = {}
    for position, block in enumerate(edges.blocks):
        out, _ = edges.degrees(position)
        per_layer = np.bincount(graph.unit_layer[out.units], weights=out.counts)
        target = graph.layer_position(block.layer)
        for source in np.flatnonzero(per_layer).tolist():
            for pair in ((source, target), (target, source)):
                between[pair] = between.get(pair, 0.0) + float(per_layer[source])
    rows, columns = np.array(list(between), dtype=np.int64).reshape(-1, 2).T
    values = np.array(list(between.values())) * scale[rows] * scale[columns]
    largest = _largest_eigenvalue(values, rows, columns, n, symmetric=True)
    return 1 / largest if largest > 0 else float("inf")
