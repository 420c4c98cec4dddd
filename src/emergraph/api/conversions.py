"""The formats that `convert` writes a graph in."""

from pathlib import Path

from emergraph.analysis.topology.conversions import (
    MAX_GRAPHML,
    Conversion,
    write_graphml,
    write_lines,
    write_parquet,
)
from emergraph.graphstore.reader import GraphReader

_MAX_GEOMETRIC = 50_000_000
"""Edges that PyTorch Geometric gets by default: 24 bytes each."""


def _model_explorer(reader: GraphReader, folder: Path) -> None:
    from emergraph.analysis.topology.modelexplorer import write_model_explorer

    write_model_explorer(reader, folder)


def _hetero_data(reader: GraphReader, file: Path) -> None:
    from emergraph.analysis.topology.geometric import to_hetero_data, write_geometric

    write_geometric(file, to_hetero_data(reader, max_edges=_n_edges(reader)))


def _weight_graph(reader: GraphReader, file: Path) -> None:
    from emergraph.analysis.topology.geometric import to_weight_graph, write_geometric

    write_geometric(file, to_weight_graph(reader, max_edges=_n_edges(reader)))


def _attribution_graph(reader: GraphReader, folder: Path) -> int:
    from emergraph.analysis.influence.viewer import write_attribution_graph

    return write_attribution_graph(reader, folder)


def _n_edges(reader: GraphReader) -> int:
    return int(str(reader.summary["n_edges"]))


FORMATS = {
    form.name: form
    for form in (
        Conversion(
            "graphml", "all attributes, for igraph and networkx", ".graphml", write_graphml, MAX_GRAPHML
        ),
        Conversion("parquet", "a folder: edges, units and layers", "", write_parquet),
        Conversion("edgelist", 'lines "src dst weight"', ".txt", write_lines),
        Conversion("model-explorer", "a folder: layers, and data on them", "", _model_explorer),
        Conversion("pyg", "HeteroData of PyTorch Geometric", ".pt", _hetero_data, _MAX_GEOMETRIC),
        Conversion("pyg-weights", "units and weights as one Data", ".pt", _weight_graph, _MAX_GEOMETRIC),
        Conversion(
            "attribution-graph",
            "a folder: the newest circuit, for the viewer of circuit-tracer",
            ".circuit",
            _attribution_graph,
        ),
    )
}
"""By name, in the order of help texts."""
