"""The unit graph for other tools: objects of igraph and networkx, files, and how one is written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import polars as pl

from emergraph.atomic import joined
from emergraph.errors import LimitError, MissingExtraError, UsageError
from emergraph.graphstore.reader import GraphReader
from emergraph.safetext import escape_xml
from emergraph.steps import steps

if TYPE_CHECKING:
    import igraph
    import networkx as nx

MAX_GRAPHML = 5_000_000
"""Edges that GraphML gets by default: about 170 bytes each in the file, and a kilobyte in what reads it."""

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
    """Write GraphML with the attributes of `to_igraph`, layer by layer: memory is that of the largest one."""
    units = reader.units().select("id", "layer", "role", "neuron")
    with file.open("wb") as stream:
        stream.write(_GRAPHML_HEAD.encode())
        nodes = _elements(units, '<node id="n{}"', ("id",), _NODE_DATA, "</node>")
        _write_lines(nodes, stream)
        for frame in _edges_by_layer(reader):
            edges = frame.with_columns(pl.col("weight").cast(pl.Float64).fill_null(float("nan")))
            ends = '<edge source="n{}" target="n{}"'
            _write_lines(_elements(edges, ends, ("src", "dst"), _EDGE_DATA, "</edge>"), stream)
        stream.write(b"</graph>\n</graphml>\n")


_NODE_DATA = {"layer": "double", "role": "string", "neuron": "boolean"}
_EDGE_DATA = {"weight": "double", "layer": "double", "n_params": "double", "kind": "string"}
"""Attributes with their GraphML types, as igraph writes them."""
_GRAPHML_HEAD = "\n".join(
    [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
        *(
            f'<key id="{what[0]}_{name}" for="{what}" attr.name="{name}" attr.type="{kind}"/>'
            for what, data in (("node", _NODE_DATA), ("edge", _EDGE_DATA))
            for name, kind in data.items()
        ),
        '<graph id="G" edgedefault="directed">\n',
    ]
)


def _elements(
    frame: pl.DataFrame, opening: str, ends: tuple[str, ...], data: dict[str, str], closing: str
) -> pl.DataFrame:
    """One column with an element of XML for each row; texts are escaped, once for each that there is."""
    letter = opening[1]
    texts = [name for name, kind in data.items() if kind == "string"]
    words = {
        name: {word: escape_xml(word) for word in frame[name].unique() if word is not None} for name in texts
    }
    columns = [
        pl.col(name).replace_strict(words[name], default="", return_dtype=pl.String)
        if name in texts
        else pl.col(name)
        for name in data
    ]
    inner = "".join(f'<data key="{letter}_{name}">{{}}</data>' for name in data)
    return frame.select(pl.format(f"{opening}>{inner}{closing}", *map(pl.col, ends), *columns))


def _write_lines(lines: pl.DataFrame, stream: IO[bytes]) -> None:
    """Write a column of texts, each on a line."""
    lines.write_csv(stream, include_header=False, quote_style="never")


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
