"""How entities and properties grow together as pairs are seen: the exact curve, at every merge."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.forest import find_merges
from emergraph.analysis.percolation.curve import MergeCurve, merge_curve

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCurve:
    """State after each merge; entry 0 is the state before the first pair."""

    merged: MergeCurve
    """Components of the bipartite graph, entities first."""
    connected: Counts
    """(n_merges + 1,) pairs, seen or not, whose ends lie in one component: sum of e_c k_c."""
    giant_entities: Counts
    """(n_merges + 1,) entities in the largest component."""
    giant_properties: Counts
    """(n_merges + 1,) properties in the largest component."""

    def at(self, pairs: Counts | int) -> Counts:
        """Entries of the curve that hold when so many pairs have been seen."""
        return self.merged.at(pairs)


def pair_curve(
    entity: Counts, prop: Counts, *, n_entities: int, n_properties: int, order: Counts | None = None
) -> PairCurve:
    """Follow the components as distinct pairs are added.

    Complexity: array passes over the pairs, and one union-find step per merge, at most
    n_entities + n_properties - 1 of them.

    Args:
        entity: (n_pairs,) in [0, n_entities).
        prop: (n_pairs,) in [0, n_properties).
        n_entities: |E|.
        n_properties: |K|.
        order: (n_pairs,) order in which the pairs are added; as they stand by default.

    Example:
        >>> curve = pair_curve(np.array([0, 1]), np.array([0, 0]), n_entities=2, n_properties=2)
        >>> curve.connected.tolist(), curve.giant_entities.tolist()
        ([0, 1, 2], [1, 1, 2])
    """
    n = n_entities + n_properties
    order = np.arange(len(entity)) if order is None else order
    merges = find_merges(entity, prop + n_entities, order, np.arange(n), np.ones(n, dtype=np.int64))
    connected, giant_e, giant_k = [0], [1 if n_entities else 0], [0 if n_entities else 1]
    parent = list(range(n))
    entities = [1] * n_entities + [0] * n_properties
    properties = [0] * n_entities + [1] * n_properties
    for a, b in zip(merges.a.tolist(), merges.b.tolist(), strict=True):
        root, other = a, b
        while parent[root] != root:
            parent[root] = root = parent[parent[root]]
        while parent[other] != other:
            parent[other] = other = parent[parent[other]]
        if entities[root] + properties[root] < entities[other] + properties[other]:
            root, other = other, root
        gained = entities[root] * properties[other] + entities[other] * properties[root]
        parent[other] = root
        entities[root] += entities[other]
        properties[root] += properties[other]
        connected.append(connected[-1] + gained)
        larger = entities[root] + properties[root] > giant_e[-1] + giant_k[-1]
        giant_e.append(entities[root] if larger else giant_e[-1])
        giant_k.append(properties[root] if larger else giant_k[-1])
    return PairCurve(
        merged=merge_curve(merges),
        connected=np.array(connected, dtype=np.int64),
        giant_entities=np.array(giant_e, dtype=np.int64),
        giant_properties=np.array(giant_k, dtype=np.int64),
    )
