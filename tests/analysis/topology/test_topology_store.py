"""Topology and conversions of a stored graph."""

import json

import igraph
import networkx as nx
import numpy as np
import polars as pl
import pytest
from clifiles import DEMO
from storegraphs import make_store, random_chain

import emergraph
from emergraph.analysis.topology.weightspectra import weight_spectra
from emergraph.cli.main import main
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.store import open_store


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "net.duckdb")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    store = tmp_path_factory.mktemp("topology") / "digits.duckdb"
    emergraph.export(DEMO / "digits_conv.onnx", store)
    return emergraph.open(store).graph()


def test_results_are_kept_and_join_with_units(digits):
    result = digits.topology()
    joined = emergraph.open(digits.path).sql(
        "SELECT role, max(coreness) AS core FROM topology_units JOIN units ON id = unit GROUP BY 1"
    )
    assert joined.height == 3
    assert result.spectra is not None
    assert result.spectra.height >= 2
    with open_store(digits.path) as store:
        assert store.results("spectra")["alpha"].to_list() == result.spectra["alpha"].to_list()
        assert store.results("topology_blocks").height == result.blocks.height


def test_spectra_of_convolutions_pool_the_kernel_positions(digits):
    with open_store(digits.path) as store:
        frame, left_out = weight_spectra(store.graph())
    assert left_out == []
    kernels = frame.filter(pl.col("matrices") > 1)
    assert kernels["matrices"].to_list() == [9] * kernels.height
    assert kernels.height >= 1
    assert (frame["rows"] > 1).all()
    assert (frame["columns"] > 1).all()


def test_graphs_for_other_tools_are_the_same_graph(path, tmp_path):
    graph = emergraph.open(path).graph()
    expected = np.concatenate([matrix.ravel() for matrix in random_chain([3, 4, 2])])
    for_igraph, for_networkx = graph.to_igraph(), graph.to_networkx()
    assert for_igraph.es["weight"] == pytest.approx(expected)
    assert [d["weight"] for _, _, d in for_networkx.edges(data=True)] == pytest.approx(expected)
    assert for_igraph.vs["role"] == [d["role"] for _, d in for_networkx.nodes(data=True)]
    assert graph.convert(tmp_path / "g.graphml", "graphml") == 20
    read = igraph.Graph.Read_GraphML(str(tmp_path / "g.graphml"))
    assert read.get_edgelist() == for_igraph.get_edgelist()
    assert read.es["weight"] == pytest.approx(expected)
    graph.convert(tmp_path / "g.txt", "edgelist")
    lines = nx.read_weighted_edgelist(tmp_path / "g.txt", create_using=nx.DiGraph, nodetype=int)
    assert lines[0][3]["weight"] == pytest.approx(expected[0])
    graph.convert(tmp_path / "g", "parquet")
    assert pl.read_parquet(tmp_path / "g" / "edges.parquet")["weight"].to_list() == pytest.approx(expected)
    assert pl.read_parquet(tmp_path / "g" / "units.parquet").height == 9


def test_limits_and_what_is_there_already(path, tmp_path):
    graph = emergraph.open(path).graph()
    with pytest.raises(LimitError, match="20 edges exceed the limit of 19"):
        graph.to_igraph(max_edges=19)
    with pytest.raises(LimitError, match="networkx"):
        graph.to_networkx(max_edges=19)
    with pytest.raises(LimitError, match="graphml"):
        graph.convert(tmp_path / "g.graphml", "graphml", max_edges=19)
    assert not list(tmp_path.glob("g.graphml*"))
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="exists"):
        graph.convert(tmp_path / "there", "edgelist")
    with pytest.raises(UsageError, match="no format 'gexf'"):
        graph.convert(tmp_path / "g", "gexf")
    with pytest.raises(UsageError, match="folder"):
        graph.convert(tmp_path / "none" / "g", "edgelist")


def test_commands(path, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["topology", str(path), "--format", "json", "--nulls", "2"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert {row["measure"] for row in shown["measures"]} >= {"modularity", "degeneracy (largest core)"}
    for view in ("blocks", "units", "spectra", "rich-club"):
        assert main(["topology", str(path), "--view", view, "--no-save"]) == 0
    assert main(["topology", str(path), "--view", "spectra", "--no-spectra"]) == 2
    assert main(["topology", str(path), "--view", "all"]) == 2
    assert main(["convert", str(path), "--to", "edgelist"]) == 0
    assert (tmp_path / "net.txt").read_text().count("\n") == 20
    assert main(["convert", str(path), "--to", "edgelist"]) == 2
    assert main(["convert", str(path), "--to", "graphml", "--max-edges", "3"]) == 6
