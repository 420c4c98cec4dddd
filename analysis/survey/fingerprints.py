"""What tells a network from others whatever file it lies in: the one place for sketches of a model."""

import hashlib
from collections.abc import Sequence
from typing import Any

import polars as pl

from emergraph.analysis.comparison.model import read_model
from emergraph.analysis.lineage.fingerprint import fingerprint_of
from emergraph.graphstore.reader import GraphReader

MOST_SKETCHED = 50_000_000
"""Parameters up to which a model is sketched: all its weights are in memory then, 8 bytes each."""


def fingerprints(graph: GraphReader, *, most: int = MOST_SKETCHED) -> dict[str, Any]:
    """Return the fingerprints of a graph by the columns of the table `models` that hold them.

    `weights` is a checksum of the weights, each by its values and its shape, in no order and without names;
    `wiring` of the layers and blocks, without weights and names. Equal ones mean the same bits, different
    ones nothing. `sketch` are the numbers by which `lineage` finds relatives, `sketch_sizes` three for each
    matrix of it.
    """
    tensors = graph.tensors().filter(pl.col("role") == "weight").drop_nulls("sha256")
    weights = sorted(f"{sha256} {shape}" for sha256, shape in tensors.select("sha256", "shape").iter_rows())
    layers = graph.layers().select("kind", "n_units", "n_params").rows()
    blocks = graph.blocks().select("kind", "layer", "src_layers", "n_src", "n_dst").rows()
    found: dict[str, Any] = {"weights": _digest(weights), "wiring": _digest([*layers, *blocks])}
    if int(str(graph.summary["n_parameters"])) > most:
        return found
    sketches = fingerprint_of(read_model(graph, graph.name)).sketches
    return found | {
        "sketch": [float(number) for _, sketch in sketches for number in sketch],
        "sketch_sizes": [size for sizes, _ in sketches for size in sizes],
    }


def _digest(values: Sequence[object]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest() if values else ""
