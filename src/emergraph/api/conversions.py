"""The formats that `convert` writes a graph in."""

from pathlib import Path

from emergraph.analysis.topology.conversions import (
    MAX_GRAPHML,
    Conversion,
    edge_count,
    write_graphml,
    write_lines,
    write_parquet,
)
from emergraph.analysis.topology.geometric import MAX_EDGES, to_hetero_data, to_weight_graph, write_geometric
from emergraph.analysis.topology.modelexplorer import write_model_explorer
from emergraph.graphstore.reader import GraphReader


def _hetero_data(reader: GraphReader, file: Path) -> None:
    write_geometric(file, to_hetero_data(reader, max_edges=edge_count(reader)))


def _weight_graph(reader: GraphReader, file: Path) -> None:
    write_geometric(file, to_weight_graph(reader, max_edges=edge_count(reader)))


def _attribution_graph(reader: GraphReader, folder: Path) -> int:
    from emergraph.analysis.influence.viewer import write_attribution_graph

    return write_attribution_graph(reader, folder)


FORMATS = {
    form.name: form
    for form in (
        Conversion(
            "graphml", "all attributes, for igraph and networkx", ".graphml", write_graphml, MAX_GRAPHML
        ),
        Conversion("parquet", "a folder: edges, units and layers", "", write_parquet),
        Conversion("edgelist", 'lines "src dst weight"', ".txt", write_lines),
        Conversion("model-explorer", "a folder: layers, and data on them", "", write_model_explorer),
        Conversion("pyg", "HeteroData of PyTorch Geometric", ".pt", _hetero_data, MAX_EDGES),
        Conversion("pyg-weights", "units and weights as one Data", ".pt", _weight_graph, MAX_EDGES),
        Conversion(
            "attribution-graph",
            "a folder: the newest circuit, for the viewer of circuit-tracer",
            ".circuit",
            _attribution_graph,
        ),
    )
}
"""By name, in the order of help texts."""
