"""Paths that carry something: the count over edges that give enough of what flows into their target."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from emergraph.analysis.unitgraph import ArrayEdges, EdgeColumns, UnitGraph
from emergraph.errors import UsageError
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.records import EdgeKind

if TYPE_CHECKING:
    from emergraph.graphstore.reader import GraphReader

_NEWEST = "SELECT max(id) AS run FROM runs WHERE graph = ? AND command = 'contributions'"
_ROWS = "SELECT src, dst, kind, share FROM edge_contributions WHERE run = ? AND src IS NOT NULL"


def carrying_graph(reader: "GraphReader", graph: UnitGraph, share: float) -> UnitGraph:
    """The graph without edges that give their target no more than a share of what flows into it on data.

    Edges into units that were not measured stay.

    Args:
        reader: The stored graph, with a run of `contributions`, the newest of which counts.
        graph: Its units and edges.
        share: In [0, 1).

    Raises:
        UsageError: There is no such run.
    """
    (run,) = fetch_frame(reader.connection, _NEWEST, [reader.id])["run"].to_list()
    if run is None:
        raise UsageError(
            "--carried: contributions were not measured; `emergraph contributions STORE --model FILE "
            "--inputs FILE.npz --top 0` does"
        )
    frame = fetch_frame(reader.connection, _ROWS, [run])
    measured = np.zeros(graph.n_units, bool)
    measured[frame["dst"].to_numpy()] = True
    strong = frame.filter(frame["share"] > share)
    keys = {
        EdgeKind(str(kind)): own["src"].to_numpy().astype(np.int64) * graph.n_units + own["dst"].to_numpy()
        for (kind,), own in strong.group_by("kind")
    }
    blocks = []
    columns: dict[int, EdgeColumns] = {}
    for block, edges in graph.iter_edges(columns=("src", "dst", "n_params")):
        pair = edges["src"].astype(np.int64) * graph.n_units + edges["dst"]
        own = keys.get(block.kind, np.empty(0, np.int64))
        kept = ~measured[edges["dst"]] | np.isin(pair, own)
        columns[block.id] = {name: edges[name][kept] for name in ("src", "dst", "n_params")}
        whole = bool(kept.all())
        blocks.append(replace(block, n_edges=int(kept.sum()), dense=block.dense and whole, in_place=False))
    return replace(graph, blocks=tuple(blocks), edges=ArrayEdges(columns))
