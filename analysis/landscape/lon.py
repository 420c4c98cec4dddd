"""Local-optima networks: optima as nodes, escapes between their basins as weighted edges, in igraph.

LON with escape edges (Verel, Ochoa, Tomassini 2011, arXiv 1107.4162; Ochoa et al. 2014). The monotonic LON
keeps edges that do not worsen the loss; the compressed monotonic LON contracts nodes of equal loss that
such edges join (Ochoa et al. 2017; Adair et al. 2019). Its sinks are the bottoms of the funnels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import igraph
import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.statistics.estimate import plain
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class LonSummary:
    """Numbers that sum up a local-optima network; losses are minimised."""

    n_optima: int
    n_edges: int
    """Distinct transitions between different optima."""
    n_funnels: int
    """Sinks of the compressed monotonic network."""
    n_global_funnels: int
    """Sinks with the lowest loss."""
    neutral: float
    """1 - nodes of the compressed / nodes of the monotonic network, 0 .. 1: share of optima merged away."""
    sink_strength: float | None
    """Incoming weight of the global sinks over that of all sinks; None without edges into sinks."""
    global_strength: float | None
    """Incoming weight of the global sinks over that of all nodes of the compressed network; None
    without edges."""
    global_funnel_size: float
    """Share of optima from which a global sink can be reached without worsening."""
    global_pagerank: float
    """PageRank of the global sinks in the LON (weighted, damping 0.85)."""
    mean_out_weight: float
    """Mean weight of an edge of the LON; 0 without edges."""
    success: float | None
    """Share of runs that ended at the lowest loss; None when no runs were given."""
    deviation: float | None
    """Mean final loss of the runs less the lowest loss; None when no runs were given."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


def build_lon(
    losses: ArrayLike, sources: ArrayLike, targets: ArrayLike, counts: ArrayLike | None = None
) -> igraph.Graph:
    """Build the network from observed escapes.

    Args:
        losses: (n,) one per optimum.
        sources: (e,) optimum that was left.
        targets: (e,) optimum that was reached; returns to the same optimum are dropped.
        counts: (e,) how often; 1 each when None. Repeated pairs are added up.

    Returns:
        A directed graph; vertex attribute `loss`, edge attribute `weight`.

    Raises:
        UsageError: An edge names an optimum that does not exist.

    Example:
        >>> build_lon([1.0, 0.0], [0, 0], [1, 1]).es["weight"]
        [2.0]
    """
    loss = np.asarray(losses, dtype=np.float64)
    source, target = np.asarray(sources, dtype=np.int64), np.asarray(targets, dtype=np.int64)
    weight = np.ones(source.size) if counts is None else np.asarray(counts, dtype=np.float64)
    ends = np.concatenate([source, target])
    if ends.size and (ends.min() < 0 or ends.max() >= loss.size):
        raise UsageError(
            f"LON: edges name optima {ends.min()} .. {ends.max()}, expected 0 .. {loss.size - 1}"
        )
    moved = source != target
    keys, inverse = np.unique(source[moved] * loss.size + target[moved], return_inverse=True)
    total = np.bincount(inverse, weights=weight[moved], minlength=keys.size)
    return igraph.Graph(
        n=loss.size,
        edges=list(zip((keys // loss.size).tolist(), (keys % loss.size).tolist(), strict=True)),
        directed=True,
        vertex_attrs={"loss": loss.tolist()},
        edge_attrs={"weight": total.tolist()},
    )


def monotonic(lon: igraph.Graph, *, precision: float = 0.0) -> igraph.Graph:
    """Keep the edges whose target is at most `precision` higher than their source.

    Example:
        >>> monotonic(build_lon([1.0, 0.0], [0, 1], [1, 0])).get_edgelist()
        [(0, 1)]
    """
    loss = lon.vs["loss"]
    kept = [edge.index for edge in lon.es if loss[edge.target] <= loss[edge.source] + precision]
    return lon.subgraph_edges(kept, delete_vertices=False)


def compressed_membership(mlon: igraph.Graph, *, precision: float = 0.0) -> list[int]:
    """Return for every node of a monotonic LON the node of the compressed network that holds it."""
    loss = mlon.vs["loss"]
    neutral = [e.index for e in mlon.es if abs(loss[e.target] - loss[e.source]) <= precision]
    parts = mlon.subgraph_edges(neutral, delete_vertices=False).connected_components(mode="weak")
    return list(parts.membership)


def compressed(mlon: igraph.Graph, *, precision: float = 0.0) -> igraph.Graph:
    """Contract the nodes of equal loss that edges of a monotonic LON join.

    Args:
        mlon: From `monotonic`.
        precision: Losses at most this far apart are equal.

    Returns:
        The compressed network; vertex attributes `loss` (the lowest of the node's optima) and `optima` (how
        many), edge attribute `weight` (summed).
    """
    graph = mlon.copy()
    graph.vs["optima"] = [1] * graph.vcount()
    graph.contract_vertices(
        compressed_membership(mlon, precision=precision), combine_attrs={"loss": "min", "optima": "sum"}
    )
    graph.simplify(multiple=True, loops=True, combine_edges={"weight": "sum"})
    return graph


def sinks(graph: igraph.Graph) -> NDArray[np.int64]:
    """Return the nodes without outgoing edges."""
    return np.flatnonzero(np.asarray(graph.degree(mode="out")) == 0).astype(np.int64)


def _strengths(cmlon: igraph.Graph, bottom: Sequence[int], best: Sequence[int]) -> list[float | None]:
    """Incoming weight of the global sinks relative to all sinks, and to all nodes."""
    incoming = np.asarray(
        cmlon.strength(mode="in", weights="weight") if cmlon.ecount() else [0.0] * cmlon.vcount()
    )
    top = float(incoming[list(best)].sum())
    totals = (float(incoming[list(bottom)].sum()), float(incoming.sum()))
    return [top / total if total > 0 else None for total in totals]


def summarise_lon(
    lon: igraph.Graph, *, precision: float = 0.0, final_losses: ArrayLike | None = None
) -> LonSummary:
    """Sum up a local-optima network: funnels, sinks, strengths.

    Args:
        lon: From `build_lon`, with at least one node.
        precision: Losses at most this far apart are equal.
        final_losses: (runs,) loss at which each sampling run ended.

    Returns:
        The figures.

    Raises:
        UsageError: The network has no nodes.

    Example:
        >>> summarise_lon(build_lon([0.0], [], [])).n_funnels
        1
    """
    if lon.vcount() == 0:
        raise UsageError("LON: no local optimum was found; sample more descents")
    cmlon = compressed(monotonic(lon, precision=precision), precision=precision)
    losses = np.asarray(cmlon.vs["loss"])
    lowest = float(losses.min())
    bottom = sinks(cmlon)
    best = bottom[losses[bottom] <= lowest + precision]
    sink_strength, global_strength = _strengths(cmlon, bottom.tolist(), best.tolist())
    reaching = {node for sink in best.tolist() for node in cmlon.subcomponent(sink, mode="in")}
    optima = np.asarray(cmlon.vs["optima"])
    rank = np.asarray(lon.pagerank(weights="weight" if lon.ecount() else None))
    ended = None if final_losses is None else np.asarray(final_losses, dtype=np.float64)
    return LonSummary(
        n_optima=lon.vcount(),
        n_edges=lon.ecount(),
        n_funnels=len(bottom),
        n_global_funnels=len(best),
        neutral=1 - cmlon.vcount() / lon.vcount(),
        sink_strength=sink_strength,
        global_strength=global_strength,
        global_funnel_size=float(optima[sorted(reaching)].sum() / lon.vcount()),
        global_pagerank=float(rank[np.asarray(lon.vs["loss"]) <= lowest + precision].sum()),
        mean_out_weight=float(np.mean(lon.es["weight"])) if lon.ecount() else 0.0,
        success=None if ended is None else float(np.mean(ended <= lowest + precision)),
        deviation=None if ended is None else float(np.mean(ended - lowest)),
    )
