"""Orders given as SQL: an expression over the columns of `edges`, evaluated in the locked child process."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.percolation.edgelist import PARAMETER_KINDS
from emergraph.analysis.percolation.options import OrderName
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.errors import UsageError
from emergraph.graphstore.query import GIB, QueryLimits, run_query
from emergraph.graphstore.records import EdgeKind
from emergraph.graphstore.sql import compose
from emergraph.graphstore.store import open_store

_QUERY = """
    SELECT ({expression}
    )::DOUBLE AS key FROM edges
    WHERE graph = {graph} AND block IN ({blocks}) ORDER BY block, src, dst
"""


def sql_keys(
    path: str | Path,
    graph: int,
    expression: str,
    *,
    kinds: Sequence[EdgeKind | str],
    limits: QueryLimits | None = None,
) -> NDArray[np.float64]:
    """Evaluate an expression for every edge that percolates.

    The store must not be open for writing meanwhile. NULL becomes NaN, which comes last.

    Args:
        path: The store.
        graph: Id of the graph.
        expression: Over the columns of the view `edges`, such as "l2" or "abs(weight) / sqrt(n_params)".
        kinds: As for `read_edges`.
        limits: Time and memory; the number of rows follows from the graph.

    Returns:
        (n_edges,) in the order of `read_edges`.

    Raises:
        UsageError: The expression is wrong, or does not give one number per edge.
        LimitError: It takes too long, too much memory, or there are too many edges for one answer.
    """
    limits = limits or QueryLimits(time=120, memory=4 * GIB)
    wanted = {EdgeKind(kind) for kind in kinds} & PARAMETER_KINDS
    with open_store(path) as store:
        unit_graph = read_unit_graph(store.graph(graph))
        blocks = sorted((b for b in unit_graph.blocks if b.kind in wanted and b.n_edges), key=lambda b: b.id)
        into_place = [
            np.lexsort((columns["dst"], columns["src"])) for _, columns in unit_graph.iter_edges(blocks)
        ]
    n_edges = sum(block.n_edges for block in blocks)
    query = compose(
        _QUERY, expression=expression, graph=graph, blocks=", ".join(str(block.id) for block in blocks)
    )
    rows = QueryLimits(time=limits.time, memory=limits.memory, threads=limits.threads, rows=n_edges)
    try:
        result = run_query(path, query, limits=rows)
    except UsageError as error:
        names = ", ".join(OrderName)
        raise UsageError(f"order '{expression}': neither {names} nor SQL over edges: {error}") from error
    if result.frame.height != n_edges or result.truncated or result.frame.columns != ["key"]:
        raise UsageError(
            f"order: expected one number for each of {n_edges} edges, got {result.frame.height} rows"
        )
    found = result.frame["key"].to_numpy()
    keys = np.empty(n_edges)
    position = 0
    for block, places in zip(blocks, into_place, strict=True):
        part = slice(position, position + block.n_edges)
        keys[part][places] = found[part]
        position += block.n_edges
    return keys
