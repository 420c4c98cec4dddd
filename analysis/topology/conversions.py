"""The unit graph for other tools: objects of igraph and networkx, files, and how one is written."""

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from emergraph.atomic import joined
from emergraph.errors import LimitError, MissingExtraError, UsageError
from emergraph.graphstore.reader import GraphReader
from emergraph.steps import steps

if TYPE_CHECKING:
    import igraph
    import networkx as nx

MAX_GRAPHML = 5_000_000
"""Edges that GraphML gets by default: about 250 bytes each in the file, and in memory while it is written."""

_PROBE = 1 << 16
"""Bytes behind an incomplete file that show why it is incomplete."""

_EDGE_COLUMNS = ("src", "dst", "weight", "kind", "layer", "n_params")


def to_igraph(reader: GraphReader, *, max_edges: int) -> "igraph.Graph":
    """Build a directed igraph graph: 33 bytes per edge, and 40 more per attribute.

    Vertex attributes: layer, role, neuron. Edge attributes: weight (NaN where there is none), kind, layer
    (target), n_params.

    Raises:
        LimitError: More edges than `max_edges`.
    """
    import igraph

    within_limit(reader, max_edges, "igraph")
    units, edges = reader.units(), reader.edges()
    graph = igraph.Graph(
        n=units.height,
        edges=zip(edges["src"].to_list(), edges["dst"].to_list(), strict=True),
        directed=True,
    )
    for name in ("layer", "role", "neuron"):
        graph.vs[name] = units[name].to_list()
    graph.es["weight"] = edges["weight"].fill_null(float("nan")).to_list()
    for name in ("layer", "n_params"):
        graph.es[name] = edges[name].to_list()
    graph.es["kind"] = edges["kind"].cast(pl.String).to_list()
    return graph


def to_networkx(reader: GraphReader, *, max_edges: int) -> "nx.MultiDiGraph":
    """Build a networkx graph with the same attributes as `to_igraph`.

    Raises:
        LimitError: More edges than `max_edges`.
        MissingExtraError: networkx is not installed.
    """
    within_limit(reader, max_edges, "networkx")
    try:
        import networkx as nx
    except ImportError as error:
        raise MissingExtraError("networkx is not installed: pip install networkx") from error
    graph = nx.MultiDiGraph(name=reader.name)
    for row in reader.units().select("id", "layer", "role", "neuron").iter_rows(named=True):
        graph.add_node(row.pop("id"), **row)
    edges = reader.edges().select(_EDGE_COLUMNS).with_columns(pl.col("kind").cast(pl.String))
    for row in edges.iter_rows(named=True):
        graph.add_edge(row.pop("src"), row.pop("dst"), **row)
    return graph


@dataclass(frozen=True)
class Conversion:
    """A format that a graph can be written in."""

    name: str
    about: str
    """What is written, for help texts."""
    suffix: str
    """Of the target's name by default; none for a folder."""
    write: Callable[[GraphReader, Path], int | None]
    """Writes a target; returns the number of edges in it where that is not all of the graph."""
    max_edges: int | None = None
    """Edges by default, where memory grows with them."""


def convert(reader: GraphReader, target: Path, to: Conversion, *, max_edges: int | None = None) -> int:
    """Write the graph in a format; a target that is complete, or none at all. Returns the number of edges.

    Raises:
        UsageError: The target exists.
        LimitError: More edges than `max_edges`.
        MissingExtraError: The format needs a package that is not installed.
    """
    if target.exists():
        raise UsageError(f"{target}: exists; name another file or remove it first")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{target}: its folder does not exist; create the folder first")
    n_edges = within_limit(reader, to.max_edges if max_edges is None else max_edges, to.name)
    with joined() as outputs:
        written = to.write(reader, outputs.stage(target, replace=False))
    return n_edges if written is None else written


def write_graphml(reader: GraphReader, file: Path) -> None:
    """Write GraphML. igraph does not say why it failed, nor that the last bytes did not fit: ask the disk."""
    import igraph

    graph = to_igraph(reader, max_edges=edge_count(reader))
    failed: igraph.InternalError | None = None
    try:
        graph.write_graphml(str(file))
    except igraph.InternalError as error:
        failed = error
    end = b"</graphml>\n"
    with file.open("ab+") as stream:
        stream.seek(max(0, stream.tell() - len(end)))
        if failed is None and stream.read() == end:
            return
        stream.write(bytes(_PROBE))
        stream.flush()
        os.fsync(stream.fileno())
    raise failed or OSError(errno.EIO, os.strerror(errno.EIO), str(file))


def write_parquet(reader: GraphReader, folder: Path) -> None:
    """Write `units`, `layers` and `edges`, layer by layer, so that memory is bounded by the largest layer."""
    import pyarrow.parquet as pq

    folder.mkdir()
    reader.units().write_parquet(folder / "units.parquet")
    reader.layers().write_parquet(folder / "layers.parquet")
    writer: pq.ParquetWriter | None = None
    try:
        for frame in _edges_by_layer(reader):
            table = frame.to_arrow()
            writer = writer or pq.ParquetWriter(folder / "edges.parquet", table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def write_lines(reader: GraphReader, file: Path) -> None:
    """Write lines "src dst weight" for igraph's `Read_Ncol` and networkx's `read_weighted_edgelist`."""
    with file.open("wb") as stream:
        for frame in _edges_by_layer(reader):
            columns = frame.select("src", "dst", pl.col("weight").fill_null(float("nan")))
            columns.write_csv(stream, include_header=False, separator=" ")


def _edges_by_layer(reader: GraphReader) -> Iterable[pl.DataFrame]:
    """Edges of one target layer at a time; an empty frame for a graph without edges."""
    targets = sorted({block.layer for block in reader.blocks_info()})
    if not targets:
        return [_plain(reader.edges())]
    return (_plain(reader.edges(layers=[layer])) for layer in steps(targets, "layers"))


def _plain(edges: pl.DataFrame) -> pl.DataFrame:
    return edges.with_columns(pl.col("kind", "tensor").cast(pl.String))


def edge_count(reader: GraphReader) -> int:
    """Return how many edges the graph has."""
    return int(str(reader.summary["n_edges"]))


def within_limit(reader: GraphReader, limit: int | None, what: str) -> int:
    """Return how many edges the graph has.

    Raises:
        LimitError: More than the limit.
    """
    n_edges = edge_count(reader)
    if limit is not None and n_edges > limit:
        raise LimitError(
            f"graph '{reader.name}': {n_edges} edges exceed the limit of {limit} for {what}; raise max_edges "
            "(--max-edges), or use parquet"
        )
    return n_edges
