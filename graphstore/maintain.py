"""Store upkeep: listing, removing and merging graphs, and reclaiming space."""

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from emergraph.atomic import together
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.catalog import graph_id
from emergraph.graphstore.connection import transaction, translated_errors
from emergraph.graphstore.copying import copy_graphs, remove_rows
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.sql import compose
from emergraph.graphstore.store import StoreFile, open_store
from emergraph.graphstore.storefile import wal_path
from emergraph.graphstore.tensors import element_type
from emergraph.graphstore.text import printable

_LIST = """
SELECT
    g.id, g.name, g.source, g.format, g.wiring, g.parent, g.step,
    g.n_layers, g.n_units, g.n_neurons, g.n_blocks, g.n_edges, g.n_parameters, g.n_parameters_understood,
    coalesce(t.n, 0) AS n_traces, coalesce(r.n, 0) AS n_runs,
    round(coalesce(c.n, 0) * {connection} + coalesce(k.n, 0) * {kernel})::BIGINT AS n_bytes,
    g.created_at
FROM graphs AS g
LEFT JOIN (SELECT graph, count(*) AS n FROM traces GROUP BY graph) AS t ON t.graph = g.id
LEFT JOIN (SELECT graph, count(*) AS n FROM runs GROUP BY graph) AS r ON r.graph = g.id
LEFT JOIN (SELECT graph, sum(n_edges) AS n FROM blocks WHERE NOT has_kernels GROUP BY graph) AS c
    ON c.graph = g.id
LEFT JOIN (SELECT graph, sum(n_edges) AS n FROM blocks WHERE has_kernels GROUP BY graph) AS k
    ON k.graph = g.id
ORDER BY g.id
"""


_RAW_TENSORS = "SELECT graph, shape, dtype FROM tensors WHERE block IS NULL"


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What `compact` did."""

    bytes_before: int
    """Size of the file, in bytes."""
    bytes_after: int


def list_graphs(store: StoreFile) -> pl.DataFrame:
    """Return one row per graph, oldest first.

    Returns:
        Columns id, name, source, format, wiring, parent, step, the counts of the table `graphs`, n_traces,
        n_runs, n_bytes and created_at. `n_bytes` is what its edges and raw tensors take in
        the file: for edges, its share by number of rows; names, units and results are not in it.
    """
    with translated_errors(store.path):
        sizes = {
            name: _bytes_per_row(store, table)
            for name, table in (("connection", "connections"), ("kernel", "kernels"))
        }
        listed = fetch_frame(store.connection, compose(_LIST, **sizes))
        raw = Counter[int]()
        for graph, shape, dtype in store.connection.execute(_RAW_TENSORS).fetchall():
            element = element_type(dtype)
            raw[graph] += math.prod(shape) * (element.itemsize if element else 1)
    return listed.with_columns(
        n_bytes=pl.col("n_bytes") + pl.Series([raw[graph] for graph in listed["id"]], dtype=pl.Int64)
    )


def remove_graph(store: StoreFile, name_or_id: str | int) -> str:
    """Remove a graph with its traces and runs from the store; return its name.

    The file keeps its size, and later graphs use the room; `compact` gives it back.

    Raises:
        UsageError: There is no such graph.
        StoreError: The store is open for reading only.
    """
    store.require_write()
    with translated_errors(store.path):
        graph = graph_id(store.connection, name_or_id)
        name = store.graph(graph).name
        with transaction(store.connection):
            remove_rows(store.connection, graph)
    return name


def merge(store: StoreFile, other: str | os.PathLike[str]) -> dict[int, int]:
    """Copy all graphs of another store, with their traces, metrics and runs, into this one.

    A graph whose name is taken gets a number behind it. The other store stays as it is.

    Args:
        store: Open for writing.
        other: File of the other store.

    Returns:
        New ids of the graphs by their ids in the other store.

    Raises:
        UsageError: Both are the same file.
        StoreError: One of them is locked, damaged or from elsewhere; nothing was changed.
    """
    store.require_write()
    path = Path(other)
    if path.exists() and path.samefile(store.file):
        raise UsageError(f"{printable(str(path))}: a store cannot be merged into itself; give another one")
    with open_store(path) as source, translated_errors(store.path), transaction(store.connection):
        return copy_graphs(source.connection, store.connection)


def compact(path: str | os.PathLike[str]) -> Compacted:
    """Rewrite a store without the space that removed graphs left, in place of the old one.

    The old file stays until the new one is complete; both need room on the disk for a while.

    Raises:
        LimitError: The disk is full; the store is as it was.
        StoreError: The store is locked, damaged or from elsewhere.
    """
    file = Path(path).resolve()
    # Holding the old file open for writing keeps other processes out until the new one is in place.
    with open_store(path, mode="write") as store, together() as outputs:
        before = file.stat().st_size
        fresh = outputs.stage(file)
        with (
            open_store(fresh, mode="create", in_place=True, any_name=True) as target,
            translated_errors(file),
            transaction(target.connection),
        ):
            copy_graphs(store.connection, target.connection, keep_ids=True)
        if wal_path(fresh).exists():
            raise LimitError(
                f"{printable(str(path))}: not enough disk space to rewrite it; free some and try again"
            )
    return Compacted(bytes_before=before, bytes_after=file.stat().st_size)


def _bytes_per_row(store: StoreFile, table: str) -> str:
    """Return the bytes of the file that a row of a table takes on average, as SQL number."""
    rows = store.connection.execute(
        compose(
            """
            SELECT (SELECT count(DISTINCT block_id) FROM pragma_storage_info('{table}') WHERE block_id >= 0),
                (SELECT count(*) FROM {table}), (SELECT block_size FROM pragma_database_size())
            """,
            table=table,
        )
    ).fetchall()
    n_blocks, n_rows, block_size = rows[0]
    return f"{n_blocks * block_size / n_rows if n_rows else 0:.9e}"
