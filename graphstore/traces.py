"""Activation traces and metrics into a store."""

from collections.abc import Mapping

import duckdb
import polars as pl

from emergraph.graphstore.catalog import check_graph, next_id, to_json, unique_name
from emergraph.graphstore.frames import insert
from emergraph.graphstore.records import TraceHeader
from emergraph.graphstore.schema import utc_now
from emergraph.graphstore.text import storable
from emergraph.version import __version__

STATISTICS = ("mean", "mean_abs", "rms", "std", "min", "max", "share_positive")
"""Per-unit columns of a trace beside unit, n, n_positions and lists."""
KEPT = ("values", "values_abs", "values_max")
"""Lists with one number per sample."""


def write_trace(
    connection: duckdb.DuckDBPyConnection, graph: int, header: TraceHeader, frame: pl.DataFrame
) -> int:
    """Write a trace; return its id.

    Raises:
        ValueError: Columns are missing or unknown, a unit repeats, or a unit is not in the graph.
        UsageError: There is no such graph.
    """
    n_units = check_graph(connection, graph)
    required = {"unit", "n", "n_positions", *STATISTICS}
    if not required <= set(frame.columns) <= required | set(KEPT):
        optional = " and ".join((", ".join(KEPT[:-1]), KEPT[-1]))
        raise ValueError(
            f"trace: columns {sorted(frame.columns)}, expected {sorted(required)}, and maybe {optional}"
        )
    units = frame["unit"]
    if units.n_unique() != units.len() or (units.len() and not units.is_between(0, n_units - 1).all()):
        raise ValueError(f"trace: units must be distinct ids from 0 to {n_units - 1}")
    identifier = next_id(connection, "traces")
    names = "SELECT name FROM traces WHERE graph = ?"
    connection.execute(
        "INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            identifier,
            graph,
            unique_name(connection, names, [graph], header.name),
            header.kind,
            storable(header.source),
            header.sha256,
            header.seed,
            header.n_samples,
            header.n_values,
            to_json(header.settings),
            __version__,
            utc_now(),
        ],
    )
    insert(
        connection,
        frame.to_arrow(),
        "INSERT INTO activations BY NAME SELECT {trace}::INTEGER AS trace, * FROM {chunk} ORDER BY unit",
        trace=identifier,
    )
    return identifier


def write_metrics(connection: duckdb.DuckDBPyConnection, graph: int, metrics: Mapping[str, float]) -> None:
    """Write numbers about a graph; a name that exists gets the new value.

    Raises:
        UsageError: There is no such graph.
    """
    check_graph(connection, graph)
    for name, value in metrics.items():
        row = [graph, storable(name)]
        connection.execute("DELETE FROM metrics WHERE graph = ? AND name = ?", row)
        connection.execute("INSERT INTO metrics VALUES (?, ?, ?)", [*row, float(value)])
