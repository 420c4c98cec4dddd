"""What analyses need to know of a block before they touch its edges."""

from dataclasses import dataclass

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.errors import StoreError
from emergraph.graphstore.connection import database_path
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.records import EdgeKind
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import printable


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockInfo:
    """A block of edges of one kind into one layer; see the table `blocks`."""

    id: int
    """Store-wide id."""
    number: int
    """Number within the graph, as the exporter counted."""
    name: str
    """Name of the operation."""
    kind: EdgeKind
    layer: int
    """Target layer."""
    src_layer: int | None
    """Source layer; None when the sources lie in several layers."""
    tensor: str | None
    """Parameter tensor behind the edges; None for structural blocks."""
    shared_with: int | None
    """Store-wide id of the first block of the graph with the same tensor."""
    n_edges: int
    n_src: int
    """Rows of the matrix; for a block without a matrix, distinct sources."""
    n_dst: int
    """Columns of the matrix; for a block without a matrix, distinct targets."""
    dense: bool
    """Whether all n_src * n_dst pairs are edges."""
    has_kernels: bool
    """Whether edges stand for several parameters."""
    src_units: NDArray[np.int64] | None
    """(n_src,) units of the rows in matrix order; None for a block without a matrix that is not dense."""
    dst_units: NDArray[np.int64] | None
    """(n_dst,) units of the columns in matrix order; None likewise."""


_KINDS = frozenset(EdgeKind)
_COLUMNS = (
    *("id", "number", "name", "kind", "layer", "src_layer", "tensor", "shared_with"),
    *("n_edges", "n_src", "n_dst", "dense", "has_kernels"),
)


def read_blocks_info(connection: duckdb.DuckDBPyConnection, graph: int) -> list[BlockInfo]:
    """Return the blocks of a graph by ascending id, which is the order in which they were written."""
    sql = compose(
        "SELECT {columns}, src_units, dst_units FROM blocks WHERE graph = ? ORDER BY id",
        columns=", ".join(_COLUMNS),
    )
    frame = fetch_frame(connection, sql, [graph])
    units = layer_units(connection, graph)
    n_units = sum(map(len, units.values()))
    src_units, dst_units = (_unit_arrays(frame[name]) for name in ("src_units", "dst_units"))
    infos = []
    for row, src, dst in zip(frame.select(_COLUMNS).iter_rows(named=True), src_units, dst_units, strict=True):
        if row["kind"] not in _KINDS:
            raise _damaged(connection, f"blocks.kind holds {printable(row['kind'], limit=60)!r}")
        if row["layer"] not in units or row["src_layer"] not in {None, *units}:
            raise _damaged(connection, f"block {row['id']} is of a layer that the graph does not have")
        sources = range(n_units) if row["src_layer"] is None else units[row["src_layer"]]
        for name, found, known in (("src_units", src, sources), ("dst_units", dst, units[row["layer"]])):
            if found is not None and not within(found, known):
                raise _damaged(connection, f"blocks.{name} holds units that are not those of the layer")
        row["kind"] = EdgeKind(row["kind"])
        infos.append(BlockInfo(**row, src_units=src, dst_units=dst))
    return infos


def layer_units(connection: duckdb.DuckDBPyConnection, graph: int) -> dict[int, range]:
    """Return the units of each layer of a graph.

    Raises:
        StoreError: They do not follow one another.
    """
    units: dict[int, range] = {}
    end = 0
    sql = "SELECT id, first_unit, n_units FROM layers WHERE graph = ? ORDER BY id"
    for layer, first, n_units in connection.execute(sql, [graph]).fetchall():
        if first != end or n_units < 0:
            raise _damaged(connection, f"the units of layer {layer} do not follow those before")
        end = first + n_units
        units[layer] = range(first, end)
    return units


def within(units: NDArray[np.generic], known: range) -> bool:
    """Whether all units are among those of a layer."""
    return not units.size or bool(known.start <= units.min() <= units.max() < known.stop)


def _damaged(connection: duckdb.DuckDBPyConnection, what: str) -> StoreError:
    shown = printable(str(database_path(connection)))
    return StoreError(f"{shown}: damaged, {what}; restore it from a copy or export the model again")


def _unit_arrays(column: pl.Series) -> list[NDArray[np.int64] | None]:
    """Return the lists of a column as arrays."""
    return [None if units is None else units.fill_null(-1).to_numpy().astype(np.int64) for units in column]
