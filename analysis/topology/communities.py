"""Communities by Leiden, and how far their modularity is from chance (arXiv 1810.08473)."""

from dataclasses import dataclass

import igraph
import numpy as np

from emergraph.analysis.topology.seeding import seeded
from emergraph.analysis.topology.weightededges import Floats, Ints
from emergraph.steps import steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Communities:
    """A partition of the units, and modularities of the same graph with shuffled weights."""

    membership: Ints
    """(n_units,) community, numbered from the largest on."""
    modularity: float
    """Q in [-0.5, 1], undirected, weights absolute."""
    null_modularities: Floats
    """(n_draws,) Q that Leiden finds after the weights were shuffled among the edges."""

    @property
    def n_communities(self) -> int:
        """Communities of more than one unit."""
        return int((np.bincount(self.membership) > 1).sum())

    @property
    def z(self) -> float | None:
        """(Q - mean of the nulls) / their standard deviation; None where they have none (degenerate)."""
        if len(self.null_modularities) < 2:
            return None
        sd = float(self.null_modularities.std(ddof=1))
        return (self.modularity - float(self.null_modularities.mean())) / sd if sd > 1e-12 else None


def find_communities(
    graph: igraph.Graph, weight: Floats, *, draws: int, seed: int, iterations: int = 2
) -> Communities:
    """Partition an undirected graph.

    Args:
        graph: Undirected.
        weight: (n_edges,) finite and not negative.
        draws: Null draws: weights shuffled among the edges, the topology as it is.
        seed: Of Leiden and of the shuffles.
        iterations: Of Leiden.
    """
    rng = np.random.default_rng(seed)

    def partition(weights: Floats) -> tuple[list[int], float]:
        with seeded(seed):
            clusters = graph.community_leiden(
                objective_function="modularity", weights=weights.tolist(), n_iterations=iterations
            )
        return clusters.membership, graph.modularity(clusters.membership, weights=weights.tolist())

    membership, modularity = partition(weight)
    nulls = [partition(rng.permutation(weight))[1] for _ in steps(range(draws), "null models")]
    return Communities(
        membership=_by_size(np.array(membership, dtype=np.int64)),
        modularity=_number(modularity),
        null_modularities=np.array(nulls, dtype=np.float64),
    )


def _by_size(membership: Ints) -> Ints:
    sizes = np.bincount(membership)
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.asarray(rank[membership])


def _number(value: float) -> float:
    return 0.0 if np.isnan(value) else float(value)
