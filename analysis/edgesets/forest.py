"""The few edges that join components, found without a step per edge.

Adding edges in a given order changes components only at the edges of the minimum spanning forest of the
ranks, at most n_units - 1 of them (Kruskal). They are found in chunks: a chunk is contracted by the
components so far, its own forest is found, and the components are updated. Edges within a component drop out
by one comparison of arrays.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.ends import Ends
from emergraph.analysis.edgesets.gradual import GradualSequence
from emergraph.analysis.edgesets.ordering import Order

_SMALLEST_CHUNK = 1 << 14
_LARGEST_CHUNK = 1 << 21


@dataclass(frozen=True, eq=False)
class Merges:
    """Where in an order of edges components join."""

    position: Order
    """(n_merges,) position of the joining edge, from 0, ascending."""
    a: NDArray[np.int64]
    """(n_merges,) one end of the edge, as a starting component."""
    b: NDArray[np.int64]
    """(n_merges,) the other end."""
    sizes: NDArray[np.int64]
    """(n_components,) units of each component before the first edge."""


def join_components(
    merges: Merges, sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Carry out the merges, the smaller component into the larger one.

    Args:
        merges: Which components join, in order.
        sizes: (n_components,) size of each before the first merge, in any measure that adds up.

    Returns:
        (n_merges,) size of the component that is taken in; (n_merges,) size of what comes out;
        (n_components,) the starting component that stands for each one's final component.
    """
    size = sizes.tolist()
    parent = list(range(len(size)))
    taken, made = [], []
    for a, b in zip(merges.a.tolist(), merges.b.tolist(), strict=True):
        root, other = a, b
        while parent[root] != root:
            parent[root] = root = parent[parent[root]]
        while parent[other] != other:
            parent[other] = other = parent[parent[other]]
        if size[root] < size[other]:
            root, other = other, root
        parent[other] = root
        taken.append(size[other])
        size[root] += size[other]
        made.append(size[root])
    roots = np.array(parent, dtype=np.int64)
    while not np.array_equal(roots, roots[roots]):  # doubles the steps each time
        roots = roots[roots]
    return np.array(taken, dtype=np.int64), np.array(made, dtype=np.int64), roots


def starting_components(
    n_units: int, src: NDArray[np.integer], dst: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Components of the units under edges that are there from the start.

    Returns:
        (n_units,) component of each unit; (n_components,) units of each.
    """
    _, labels, n_components = spanning_forest(src, dst, n_units)
    return labels, np.bincount(labels, minlength=n_components)


def find_merges(
    src: NDArray[np.integer] | Ends,
    dst: NDArray[np.integer] | Ends,
    order: Order | GradualSequence,
    components: NDArray[np.int64],
    sizes: NDArray[np.int64],
    *,
    n_final: int = 1,
) -> Merges:
    """Find the edges that join components when edges are added in an order.

    Args:
        src: (n_edges,) units.
        dst: (n_edges,) units.
        order: (n,) edges in the order in which they are added.
        components: (n_units,) component of each unit before the first edge.
        sizes: (n_components,) units of each.
        n_final: How many components are left in the end, see `n_components`; then no edge is looked at.

    Example:
        >>> src, dst = np.array([0, 0, 1]), np.array([1, 1, 2])
        >>> one_each = np.ones(3, dtype=np.int64)
        >>> find_merges(src, dst, np.arange(3), np.arange(3), one_each).position.tolist()
        [0, 2]
    """
    n = len(sizes)
    current = np.arange(n)
    found: list[Order] = []
    n_current, position = n, 0
    while position < len(order) and n_current > n_final:
        size = min(max(2 * n_current, _SMALLEST_CHUNK, position // 4), _LARGEST_CHUNK)
        chunk = order[position : position + size]
        a, b = current[components[src[chunk]]], current[components[dst[chunk]]]
        apart = np.flatnonzero(a != b)
        if len(apart):
            kept, labels, n_current = spanning_forest(a[apart], b[apart], n_current)
            found.append(position + apart[kept])
            current = labels[current]
        position += size
    at = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    return Merges(at, components[src[order[at]]], components[dst[order[at]]], sizes)


def n_components(
    ends: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]], components: NDArray[np.int64], n: int
) -> int:
    """Count the components that are left when all edges are there.

    Args:
        ends: Both ends of edges, some at a time.
        components: (n_units,) component of each unit before the first edge.
        n: How many those are.
    """
    current, n_current = np.arange(n), n
    for src, dst in ends:
        position = 0
        while position < len(src) and n_current > 1:
            part = slice(position, position + max(2 * n_current, _SMALLEST_CHUNK))
            position = part.stop
            a, b = current[components[src[part]]], current[components[dst[part]]]
            apart = np.flatnonzero(a != b)
            if len(apart):
                _, labels, n_current = spanning_forest(a[apart], b[apart], n_current)
                current = labels[current]
    return n_current


def spanning_forest(
    a: NDArray[np.integer], b: NDArray[np.integer], n: int
) -> tuple[Order, NDArray[np.int64], int]:
    """Find the edges that join components when edges are added in the order given, all at once (Boruvka).

    In each round, every component takes the first edge that leaves it.

    Args:
        a: (n_edges,) one end of each edge.
        b: (n_edges,) the other end.
        n: Vertices.

    Returns:
        Positions of those edges, ascending; (n,) the component of each vertex, numbered in the order of their
        first vertices; how many components there are.

    Example:
        >>> spanning_forest(np.array([0, 1, 0, 3]), np.array([1, 0, 2, 3]), 4)
        (array([0, 2]), array([0, 0, 0, 1]), 2)
    """
    labels = np.arange(n)
    edges = np.arange(len(a))
    found: list[Order] = []
    n_left = n
    while len(apart := np.flatnonzero(a != b)):
        a, b, edges = a[apart], b[apart], edges[apart]
        first = np.full(n_left, len(a))
        first[b[::-1]] = np.arange(len(a))[::-1]  # the last to be written is the first edge
        other = np.full(n_left, len(a))
        other[a[::-1]] = np.arange(len(a))[::-1]
        first = np.minimum(first, other)
        vertices = np.flatnonzero(first < len(a))
        taken = first[vertices]
        found.append(edges[np.unique(taken)])
        target = np.arange(n_left)
        target[vertices] = np.where(a[taken] == vertices, b[taken], a[taken])
        roots = np.flatnonzero((target[target] == np.arange(n_left)) & (np.arange(n_left) < target))
        target[roots] = roots  # of two that take the same edge, one stays
        while not np.array_equal(target, further := target[target]):
            target = further
        kept, renamed = np.unique(target, return_inverse=True)
        labels, a, b, n_left = renamed[labels], renamed[a], renamed[b], len(kept)
    _, firsts = np.unique(labels, return_index=True)
    numbers = np.empty(n_left, dtype=np.int64)
    numbers[np.argsort(firsts)] = np.arange(n_left)
    positions = np.sort(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
    return positions, numbers[labels], n_left
