"""The Python API: two lines from a model file to frames, and nothing left open."""

import subprocess
import sys

import polars as pl
import pytest
from clifiles import DEMO

import emergraph
from emergraph.errors import EmergraphError, InvalidInputError, LimitError, UsageError
from emergraph.graphstore.query import QueryLimits


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return emergraph.export(DEMO / "digits_dense.onnx", tmp_path_factory.mktemp("api") / "net.duckdb")


def test_import_is_cheap():
    program = (
        "import sys, emergraph\n"
        "heavy = {'numpy', 'polars', 'duckdb', 'onnx', 'onnxruntime', 'torch', 'igraph', 'typer', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_public_names_are_there_and_listed():
    for name in emergraph.__all__:
        assert getattr(emergraph, name) is not None
        assert name in dir(emergraph)
    assert emergraph.EmergraphError is EmergraphError
    with pytest.raises(AttributeError, match="nothing"):
        _ = emergraph.nothing


def test_export_returns_the_graph_with_its_summary(graph):
    assert graph.name == "digits_dense"
    assert graph.export_summary.trace.n_parameters == 5018
    assert graph.export_summary.to_dict()["sha256"] == graph.info["sha256"]


def test_tables_come_back_as_frames(graph):
    assert graph.layers["n_units"].to_list() == [64, 48, 32, 10]
    assert graph.units.height == 154
    assert graph.blocks["n_edges"].sum() == graph.edges().height == 1478
    assert graph.edges(kinds=["weight"], layers=[3]).select(pl.col("layer").unique()).item() == 3
    assert set(graph.tensors["name"]) >= {"hidden1.weight", "hidden1.bias"}
    assert "Gemm" in graph.operations["op"].to_list()
    assert graph.traces.height == 0


def test_a_store_finds_its_graphs(graph):
    store = emergraph.open(graph.path)
    assert store.graphs["name"].to_list() == ["digits_dense"]
    assert store.graph() == store.graph("digits_dense") == store.graph(0)
    assert store.runs.height == 0
    with pytest.raises(UsageError, match="digits_dense"):
        store.graph("digits_dens")


def test_sql_returns_a_frame_and_says_when_rows_are_missing(graph):
    store = emergraph.open(graph.path)
    assert store.sql("SELECT count(*) AS n FROM edges").item() == 1478
    with pytest.raises(LimitError, match="more than 10 rows"):
        store.sql("FROM edges", limits=QueryLimits(rows=10))


def test_nothing_is_left_open(graph):
    again = emergraph.export(DEMO / "digits_dense.onnx", graph.path)
    assert again.id == graph.id
    assert again.export_summary.reused


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInputError, match="no such store"):
        emergraph.open(tmp_path / "net.duckdb")


def test_emergence_needs_a_trace(graph):
    with pytest.raises(UsageError, match="trace"):
        graph.emergence()
