"""What-ifs in SQL: a predicate over edges or units says what to remove.

The predicate must be one expression; it runs inside one SELECT, in the read-only child process that answers
`emergraph sql`. The names that it can use are in docs/pruning.md.
"""

import json
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import EdgeTable
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.query import QueryLimits, run_query
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import first_line, printable

_UNITS = """
    (SELECT u.id AS unit, l.name AS layer, l.kind AS layer_kind, l.op AS layer_op, l.depth, u.position,
            u.role, u.neuron, u.bias, u.scale, u.shift, u.activation,
            a.mean, a.mean_abs, a.rms, a.std, a.min, a.max, a.share_positive
     FROM units AS u
     JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer
     LEFT JOIN activations AS a ON a.unit = u.id AND a.trace = {trace}
     WHERE u.graph = {graph})
"""
_EDGES = """
    (SELECT e.block, e.src, e.dst, e.weight, e.l1, e.l2, e.max_abs, e.n_params, e.kind, e.tensor,
            t.name AS layer, s.name AS source_layer
     FROM edges AS e
     JOIN layers AS t ON t.graph = e.graph AND t.id = e.layer
     JOIN layers AS s ON s.graph = e.graph AND s.id = e.src_layer
     WHERE e.graph = {graph})
"""


def chosen_edges(
    store: Path, graph: int, predicate: str, *, trace: int | None = None, limits: QueryLimits | None = None
) -> NDArray[np.int64]:
    """The edges of a graph that a predicate picks.

    Columns are those of `edges` (with `layer` and `source_layer` the names of layers), and `source` and
    `target` with the columns of the units at both ends and of their activations: `source.mean < 0.02`.

    Args:
        store: The store; nothing may hold it open for writing.
        graph: Id of the graph.
        predicate: One expression in SQL.
        trace: Id of the trace whose statistics can be asked; NULL without one.
        limits: Time and memory.

    Returns:
        (n, 3) block, source and target of each edge.

    Raises:
        UsageError: The predicate is not one expression, or the SQL is wrong.
        LimitError: It took too long, or picks more than about 20 million edges.
    """
    checked = _expression(predicate)
    query = compose(
        "SELECT edges.block, edges.src, edges.dst FROM {edges} AS edges{ends} WHERE ({predicate}\n)",
        edges=compose(_EDGES, graph=graph),
        ends=_ends(checked, graph, trace),
        predicate=checked,
    )
    return _rows(store, query, limits, width=3)


def chosen_units(
    store: Path, graph: int, predicate: str, *, trace: int | None = None, limits: QueryLimits | None = None
) -> NDArray[np.int64]:
    """The units of a graph that a predicate picks; arguments and errors as in `chosen_edges`.

    Columns are those of `units` (with `layer` the layer's name, `layer_kind`, `layer_op`, `depth`) and of
    their activations: `mean < 0.02 AND layer = 'fc1'`.

    Returns:
        (n, 1) ids of units.
    """
    checked = _expression(predicate)
    query = compose(
        "SELECT units.unit FROM {units} AS units WHERE ({predicate}\n)",
        units=compose(_UNITS, graph=graph, trace=_number(trace)),
        predicate=checked,
    )
    return _rows(store, query, limits, width=1)


def edge_mask(table: EdgeTable, picked: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n_edges,) whether each edge of a table is among (block, source, target) rows."""
    chosen = np.zeros(table.n_edges, dtype=bool)
    n_units = table.graph.n_units
    order = np.argsort(picked[:, 0], kind="stable")
    picked = picked[order]
    for block in table.blocks:
        start, stop = np.searchsorted(picked[:, 0], [block.block.id, block.block.id + 1])
        keys = picked[start:stop, 1] * n_units + picked[start:stop, 2]
        if len(keys):
            chosen[block.edges] = np.isin(block.src.astype(np.int64) * n_units + block.dst, keys)
    return chosen


def _ends(predicate: str, graph: int, trace: int | None) -> str:
    """Joins of the units at both ends, where the predicate mentions them."""
    units = compose(_UNITS, graph=graph, trace=_number(trace))
    lowered = predicate.lower()
    joins = [
        compose(" JOIN {units} AS {name} ON {name}.unit = edges.{end}", units=units, name=name, end=end)
        for name, end in (("source", "src"), ("target", "dst"))
        if f"{name}." in lowered
    ]
    return "".join(joins)


def _number(trace: int | None) -> int:
    return -1 if trace is None else int(trace)


def _expression(predicate: str) -> str:
    """The predicate, if it is one expression and nothing else."""
    query = compose("SELECT ({predicate}\n)", predicate=predicate)
    try:
        with duckdb.connect(":memory:") as connection:
            tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0])
    except duckdb.Error as error:
        raise UsageError(f"--where: {printable(first_line(error), limit=200)}") from error
    if tree.get("error"):
        said = str(tree.get("error_message")).splitlines()[0]
        raise UsageError(f"--where {printable(predicate, limit=100)}: {printable(said, limit=200)}")
    statements = tree.get("statements", [])
    node = statements[0].get("node", {}) if len(statements) == 1 else {}
    plain = (
        node.get("type") == "SELECT_NODE"
        and len(node.get("select_list", [])) == 1
        and (node.get("from_table") or {}).get("type") == "EMPTY"
        and node.get("where_clause") is None
        and not node.get("modifiers")
    )
    if not plain or not predicate.strip():
        raise UsageError(
            f"--where {printable(predicate, limit=100)}: expected one condition, such as "
            "\"layer = 'fc1' AND abs(weight) < 0.01\""
        )
    return predicate


def _rows(store: Path, query: str, limits: QueryLimits | None, *, width: int) -> NDArray[np.int64]:
    asked = limits or QueryLimits(rows=1 << 25)
    try:
        result = run_query(store, query, limits=asked)
    except UsageError as error:
        raise UsageError(str(error).replace("sql: ", "--where: ", 1)) from error
    if result.truncated:
        raise LimitError(f"--where picks more than {asked.rows} rows: make it narrower")
    return np.asarray(result.frame.to_numpy(), dtype=np.int64).reshape(result.frame.height, width)
