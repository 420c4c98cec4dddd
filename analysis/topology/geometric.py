"""The unit graph for PyTorch Geometric: by layer for learning on its units, or as one graph of weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from emergraph.analysis.topology.conversions import within_limit
from emergraph.errors import MissingExtraError, UsageError
from emergraph.graphstore.reader import GraphReader

if TYPE_CHECKING:
    from torch_geometric.data import Data, HeteroData

MAX_EDGES = 50_000_000
"""Edges by default: 24 bytes each."""
_PARAMETERS = ("bias", "scale", "shift")
_STATISTICS = ("mean", "mean_abs", "rms", "std", "min", "max", "share_positive")


def _imported() -> tuple[Any, Any]:
    try:
        import torch
        import torch_geometric.data as geometric
    except ImportError as error:
        raise MissingExtraError('PyTorch Geometric is needed: pip install "emergraph[geometric]"') from error
    return torch, geometric


def to_hetero_data(reader: GraphReader, *, max_edges: int = MAX_EDGES) -> "HeteroData":
    """Build a graph with a type of node for each layer, and a type of edge for each kind between two layers.

    The nodes of layer 3 are `data["layer_3"]`: `x` (units, 3) has bias, scale and shift (0, 1 and 0 where a
    unit has none), `unit` its id in the store, `name` the layer's name, and with a trace `activity` (units,
    7) has mean, mean_abs, rms, std, min, max and share_positive of the newest one. Edges are
    `data["layer_1", "weight", "layer_3"]`: `edge_index` counts within the layers, `edge_attr` (edges, 2) has
    the weight (NaN for kernels of several taps and for edges without a weight) and its l1 norm.

    Raises:
        LimitError: More edges than `max_edges`.
        MissingExtraError: torch or torch_geometric is not installed.
    """
    torch, geometric = _imported()
    units, edges = _tables(reader, max_edges)
    data = geometric.HeteroData()
    first = {}
    for layer, name in reader.layers().select("id", "name").iter_rows():
        of = units.filter(pl.col("layer") == layer)
        if of.is_empty():
            continue
        first[layer] = of["id"][0]
        nodes = data[f"layer_{layer}"]
        nodes.x, nodes.unit, nodes.name = _parameters(of, torch), torch.from_numpy(_array(of["id"])), name
        if "mean" in of.columns:
            nodes.activity = torch.from_numpy(of.select(_STATISTICS).to_numpy().astype("float32"))
    for (source, kind, target), of in edges.partition_by("src_layer", "kind", "layer", as_dict=True).items():
        between = data[f"layer_{source}", str(kind), f"layer_{target}"]
        ends = [_array(of["src"]) - first[source], _array(of["dst"]) - first[target]]
        between.edge_index = torch.stack([torch.from_numpy(end) for end in ends])
        between.edge_attr = _weights(of, torch)
    return data


def to_weight_graph(reader: GraphReader, *, max_edges: int = MAX_EDGES) -> "Data":
    """Build one graph whose nodes are units and whose edges are weights, for learning on networks.

    A permutation of the hidden units of a layer permutes nodes and changes nothing else. `x` (units, 4) has
    the layer's depth as a share of the deepest one, bias, scale and shift; `edge_index` has unit ids,
    `edge_attr` (edges, 2) the weight and its l1 norm, `layer` the layer of each unit, `neuron` whether it is
    one (junctions, gates and the like are not).

    Raises:
        LimitError: More edges than `max_edges`.
        MissingExtraError: torch or torch_geometric is not installed.
    """
    torch, geometric = _imported()
    units, edges = _tables(reader, max_edges)
    depths = reader.layers().select(pl.col("id").alias("layer"), "depth")
    placed = units.join(depths, on="layer", how="left", maintain_order="left")
    share = placed["depth"] / max(1, int(str(placed["depth"].max() or 0)))
    depth = torch.from_numpy(share.to_numpy().astype("float32"))[:, None]
    return geometric.Data(
        x=torch.cat([depth, _parameters(units, torch)], 1),
        edge_index=torch.stack([torch.from_numpy(_array(edges[end])) for end in ("src", "dst")]),
        edge_attr=_weights(edges, torch),
        layer=torch.from_numpy(_array(units["layer"])),
        neuron=torch.from_numpy(units["neuron"].to_numpy(writable=True)),
    )


def write_geometric(file: Path, data: "Data | HeteroData") -> None:
    """Write data with `torch.save`; `torch.load(file, weights_only=False)` reads it."""
    torch, _ = _imported()
    with file.open("wb") as stream:
        torch.save(data, stream)


def _tables(reader: GraphReader, max_edges: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    within_limit(reader, max_edges, "PyTorch Geometric")
    units = reader.units()
    if units.is_empty():
        raise UsageError(f"graph '{reader.name}' has no units")
    if reader.traces().height:
        activity = reader.activations().select(pl.col("unit").alias("id"), *_STATISTICS)
        units = units.join(activity, on="id", how="left", maintain_order="left")
    return units, reader.edges()


def _parameters(units: pl.DataFrame, torch: Any) -> Any:  # noqa: ANN401 - modules and tensors of torch
    filled = units.select(pl.col(name).fill_null(float(name == "scale")) for name in _PARAMETERS)
    return torch.from_numpy(filled.to_numpy().astype("float32"))


def _weights(edges: pl.DataFrame, torch: Any) -> Any:  # noqa: ANN401 - modules and tensors of torch
    known = edges.select(pl.col("weight", "l1").cast(pl.Float32).fill_null(float("nan")))
    return torch.from_numpy(known.to_numpy(writable=True))


def _array(values: pl.Series) -> Any:  # noqa: ANN401 - an array of int64
    return values.cast(pl.Int64).to_numpy(writable=True)
