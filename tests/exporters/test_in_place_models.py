"""Third-party models whose edges stay in their files: the graph is the one that holds them."""

import os
from pathlib import Path

import polars as pl
import pytest
from inplacemodels import export_twice

from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.analysis.pruning.whatif import prune_graph
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.errors import InvalidInputError
from emergraph.exporters.modeltensors import open_model
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS") or Path.home() / ".cache" / "emergraph" / "models")
LARGE = 3_000_000
"""Edges up to which all analyses are compared."""


def model_files():
    """Every file of the manifest that the export reads as it is, by its folder and name."""
    endings = {".onnx", ".safetensors", ".pth", ".pt"}
    return sorted(path for path in MODELS.rglob("*") if path.suffix in endings and path.is_file())


@pytest.mark.parametrize("path", model_files(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_edges_in_place_are_those_that_are_stored(path, tmp_path):
    try:
        stored, in_place = export_twice(path, tmp_path)
    except InvalidInputError as error:
        pytest.skip(f"not exported without inputs of its own: {error}")
    with model_given(open_model(path)), open_store(stored) as a, open_store(in_place) as b:
        ours, theirs = a.graph(), b.graph()
        assert ours.units().equals(theirs.units())
        assert ours.layers().equals(theirs.layers())
        for left, right in zip(ours.blocks_info(), theirs.blocks_info(), strict=True):
            assert (left.kind, left.n_edges, left.dense) == (right.kind, right.n_edges, right.dense)
            order = ("src", "dst")
            one, other = (
                sorted_edges(reader.block_edges(block, columns=(*order, "weight")))
                for reader, block in ((ours, left), (theirs, right))
            )
            assert one.equals(other)
        if ours.summary["n_edges"] <= LARGE:
            compare_analyses(read_unit_graph(ours), read_unit_graph(theirs))


def sorted_edges(columns):
    return pl.DataFrame(columns).sort("src", "dst")


def compare_analyses(ours, theirs):
    options = PercolationOptions(seeds=1, nulls=0)
    one, other = (percolate(graph, options=options) for graph in (ours, theirs))
    assert one.to_dict() == other.to_dict()
    levels = PruningOptions(levels=(0.3, 0.9))
    assert prune_graph(ours, levels).frame.equals(prune_graph(theirs, levels).frame)
