"""What tells a network from others whatever file it lies in: the one place for sketches of a model."""

import hashlib
from collections.abc import Sequence

import polars as pl

from emergraph.graphstore.reader import GraphReader


def fingerprints(graph: GraphReader) -> dict[str, str]:
    """Return the fingerprints of a graph by the columns of the table `models` that hold them.

    `weights` is a checksum of the weights, each by its values and its shape, in no order and without names;
    `wiring` of the layers and blocks, without weights and names. Equal ones mean the same bits, different
    ones nothing.
    """
    tensors = graph.tensors().filter(pl.col("role") == "weight").drop_nulls("sha256")
    weights = sorted(f"{sha256} {shape}" for sha256, shape in tensors.select("sha256", "shape").iter_rows())
    layers = graph.layers().select("kind", "n_units", "n_params").rows()
    blocks = graph.blocks().select("kind", "layer", "src_layers", "n_src", "n_dst").rows()
    return {"weights": _digest(weights), "wiring": _digest([*layers, *blocks])}


def _digest(values: Sequence[object]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest() if values else ""
