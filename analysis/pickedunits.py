"""Units of a graph that an expression in SQL picks."""

from pathlib import Path

from emergraph.errors import UsageError
from emergraph.graphstore.query import run_query
from emergraph.graphstore.sql import compose


def picked_units(store: Path, graph: int, predicate: str, *, option: str) -> set[int]:
    """The units that a predicate picks.

    Columns are those of `units` (with `layer` the layer's name, `layer_kind`, `layer_op`, `depth`) and of
    their activations in the newest trace: `layer = 'fc1' AND mean > 0`.

    Args:
        store: The store; nothing may hold it open for writing.
        graph: Id of the graph.
        predicate: One expression in SQL.
        option: Where it was given, for the message.

    Raises:
        UsageError: It is wrong, or picks none.
    """
    query = compose(
        "SELECT unit FROM (SELECT u.id AS unit, l.name AS layer, l.kind AS layer_kind, l.op AS layer_op, "
        "l.depth, u.position, u.role, u.neuron, u.bias, u.scale, u.shift, u.activation, a.mean, a.mean_abs, "
        "a.rms, a.std, a.min, a.max, a.share_positive FROM units AS u "
        "JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer "
        "LEFT JOIN activations AS a ON a.unit = u.id "
        "AND a.trace = (SELECT max(id) FROM traces WHERE graph = {graph}) WHERE u.graph = {graph}) "
        "WHERE ({predicate}\n)",
        graph=graph,
        predicate=predicate,
    )
    found = {int(unit) for unit in run_query(store, query).frame["unit"].to_list()}
    if not found:
        raise UsageError(f"{option} {predicate}: no unit is like that")
    return found
