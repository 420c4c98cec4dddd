"""Measures of a whole graph that are one number or one small table."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import igraph
import numpy as np
import polars as pl

from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.topology.weightededges import Floats, Ints, WeightedEdges, igraph_of
from emergraph.analysis.unitgraph import UnitGraph
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


MAX_PATHS = 20_000
"""Units up to which mean path lengths are measured exactly, and beyond which they are left out."""


def rich_club(graph: igraph.Graph) -> pl.DataFrame:
    """Density among the units of degree above k, for every degree k that occurs.

    `phi(k) = 2 E_{>k} / (N_{>k} (N_{>k} - 1))` (V. Colizza et al., Nature Physics 2, 110, eq. 1).

    Args:
        graph: Undirected, without repeated edges.

    Returns:
        Columns k, n_units, phi; k from 0, at least two units each.

    Example:
        >>> rich_club(igraph.Graph.Full(4))["phi"].to_list()
        [1.0]
    """
    degree = np.array(graph.degree(), dtype=np.int64)
    ends = np.array(graph.get_edgelist(), dtype=np.int64).reshape(-1, 2)
    lower = np.sort(degree[ends].min(axis=1)) if len(ends) else np.empty(0, dtype=np.int64)
    levels = np.unique(np.append(degree, 0))
    n_above = len(degree) - np.searchsorted(np.sort(degree), levels, side="right")
    e_above = len(lower) - np.searchsorted(lower, levels, side="right")
    keep = n_above > 1
    pairs = n_above[keep] * (n_above[keep] - 1)
    return pl.DataFrame(
        {"k": levels[keep], "n_units": n_above[keep], "phi": 2 * e_above[keep] / np.maximum(pairs, 1)}
    )


def small_world(graph: igraph.Graph, *, seed: int) -> dict[str, float | None]:
    """Clustering and mean path length of the largest component, beside a random graph of the same size.

    Transitivity C and mean path length L (undirected, unweighted); C and L of one random graph with the same
    units and edges; sigma = (C / C_random) / (L / L_random). A layered graph without skips has no triangles:
    C is 0 and sigma says nothing.

    Args:
        graph: Undirected.
        seed: Of the random graph.
    """
    giant = graph.connected_components().giant()
    n, m = giant.vcount(), giant.ecount()
    clustering = finite_or_none(giant.transitivity_undirected(mode="zero"))
    found: dict[str, float | None] = {"transitivity": clustering, "mean_path": None, "sigma": None}
    if not 2 < n <= MAX_PATHS:
        return found
    with seeded(seed):
        twin = igraph.Graph.Erdos_Renyi(n=n, m=m)
    path, twin_path = giant.average_path_length(), twin.average_path_length()
    twin_clustering = twin.transitivity_undirected(mode="zero")
    found["mean_path"] = finite_or_none(path)
    if clustering and twin_clustering > 0 and path > 0:
        found["sigma"] = (clustering / twin_clustering) / (path / twin_path)
    return found


def layer_graph(graph: UnitGraph, links: WeightedEdges) -> pl.DataFrame:
    """Measures of the graph whose vertices are the layers.

    Args:
        graph: The unit graph.
        links: Its edges between positions of layers, with the absolute weight between them.

    Returns:
        One row per layer: layer, sources and targets (distinct layers), betweenness (unweighted, directed),
        pagerank (weighted by the absolute weight between layers).
    """
    network = igraph_of(links, directed=True)
    return pl.DataFrame(
        {
            "layer": np.array([layer.id for layer in graph.layers], dtype=np.int32),
            "sources": np.array(network.degree(mode="in"), dtype=np.int32),
            "targets": np.array(network.degree(mode="out"), dtype=np.int32),
            "betweenness": np.array(network.betweenness(), dtype=np.float64),
            "pagerank": np.array(network.pagerank(weights=links.weight.tolist()), dtype=np.float64),
        }
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make what igraph draws in the body depend on the seed alone; then give it back its default source."""
    igraph.set_random_number_generator(random.Random(seed))  # noqa: S311 - random walks, no secret
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)
