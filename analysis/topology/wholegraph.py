"""Measures of a whole graph that are one number or one small table."""

import igraph
import numpy as np
import polars as pl

from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.topology.seeding import seeded
from emergraph.analysis.topology.weightededges import WeightedEdges, igraph_of
from emergraph.analysis.unitgraph import UnitGraph

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


def layer_graph(graph: UnitGraph, edges: WeightedEdges) -> pl.DataFrame:
    """Measures of the graph whose vertices are the layers.

    Returns:
        One row per layer: layer, sources and targets (distinct layers), betweenness (unweighted, directed),
        pagerank (weighted by the absolute weight between layers).
    """
    n = len(graph.layers)
    code = graph.unit_layer[edges.src].astype(np.int64) * n + graph.unit_layer[edges.dst]
    pairs, inverse = np.unique(code, return_inverse=True)
    strength = np.bincount(inverse, weights=edges.strength, minlength=len(pairs)).astype(np.float64)
    links = WeightedEdges(n_units=n, src=pairs // n, dst=pairs % n, weight=strength, n_left_out=0)
    network = igraph_of(links, directed=True)
    return pl.DataFrame(
        {
            "layer": np.array([layer.id for layer in graph.layers], dtype=np.int32),
            "sources": np.array(network.degree(mode="in"), dtype=np.int32),
            "targets": np.array(network.degree(mode="out"), dtype=np.int32),
            "betweenness": np.array(network.betweenness(), dtype=np.float64),
            "pagerank": np.array(network.pagerank(weights=strength.tolist()), dtype=np.float64),
        }
    )
