"""Topology and conversions of a stored graph."""

import json

import igraph
import networkx as nx
import numpy as np
import onnx
import polars as pl
import pytest
from clifiles import DEMO
from storegraphs import make_store, random_chain

import emergraph
from emergraph.analysis.topology.weightspectra import scaled_values, weight_spectra
from emergraph.cli.main import main
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.reader import GraphReader
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
    sides = frame.select(pl.min_horizontal("rows", "columns")).to_series()
    assert (frame["n_eigenvalues"] == sides * frame["matrices"]).all()
    assert (frame["n_eigenvalues"] > 1).all()


def quantized_model(path):
    """An int8 embedding with a scale per row, and an int8 matrix, each multiplied out by the model itself."""
    rng = np.random.default_rng(3)
    words = rng.integers(-127, 128, (60, 24)).astype(np.int8)
    matrix = rng.integers(-127, 128, (24, 30)).astype(np.int8)
    scales = (rng.random((60, 1)) * 0.02).astype(np.float32)
    step = np.float32(0.01)
    tensors = {"words_q": words, "words_scale": scales, "matrix_q": matrix, "matrix_scale": step}
    nodes = [
        onnx.helper.make_node("Cast", ["words_q"], ["words_f"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["words_f", "words_scale"], ["words"]),
        onnx.helper.make_node("Gather", ["words", "ids"], ["seen"]),
        onnx.helper.make_node("Cast", ["matrix_q"], ["matrix_f"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["matrix_f", "matrix_scale"], ["matrix"]),
        onnx.helper.make_node("MatMul", ["seen", "matrix"], ["out"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "quantized",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [1, 5])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 5, 30])],
        [onnx.numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return words * scales.astype(np.float64), matrix * np.float64(step)


def test_spectra_of_quantized_tensors_are_in_real_units(tmp_path):
    words, matrix = quantized_model(tmp_path / "q.onnx")
    emergraph.export(tmp_path / "q.onnx", tmp_path / "q.duckdb")
    with open_store(tmp_path / "q.duckdb") as store:
        frame, remarks = weight_spectra(store.graph())
    rows = {row["tensor"]: row for row in frame.iter_rows(named=True)}
    for name, values in (("words_q", words), ("matrix_q", matrix)):
        expected = np.log10((values**2).sum())
        assert rows[name]["log_norm"] == pytest.approx(expected, rel=1e-5)
    assert remarks == ["tensor words_q: elements times words_scale"]


def test_tensors_left_out_for_one_reason_share_a_note(tmp_path):
    names = [f"w{i}" for i in range(6)]
    nodes = [onnx.helper.make_node("MatMul", [f"x{i}", name], [f"x{i + 1}"]) for i, name in enumerate(names)]
    graph = onnx.helper.make_graph(
        nodes,
        "zeros",
        [onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.helper.make_tensor_value_info("x6", onnx.TensorProto.FLOAT, [1, 3])],
        [
            onnx.numpy_helper.from_array(np.full((3, 3), value, dtype=np.float32), name)
            for name, value in zip(names, (0, 0, 0, 0, 0, 1), strict=True)
        ],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "z.onnx")
    emergraph.export(tmp_path / "z.onnx", tmp_path / "z.duckdb")
    with open_store(tmp_path / "z.duckdb") as store:
        _, remarks = weight_spectra(store.graph())
    assert remarks == ["tensors w0, w1, w2 and 2 more: all zero, or not finite"]


def companion_row(name, dtype, shape, role="embedding"):
    return {"name": name, "dtype": dtype, "shape": shape, "role": role}


def test_a_scale_is_taken_only_where_there_is_no_doubt(path):
    words = companion_row("emb.w_q", "int8", [60, 24])
    others = {
        "another role": companion_row("emb.w_scale", "float32", [60, 1], role="bias"),
        "another shape": companion_row("emb.w_scale", "float32", [24, 1]),
        "as large": companion_row("emb.w_f", "float32", [60, 24]),
        "another name": companion_row("scale", "float32", [60, 1]),
    }
    with open_store(path) as store:
        for other in others.values():
            assert scaled_values(store.graph(), words, [words, other]) is None
        twins = [companion_row(f"emb.w_s{i}", "float32", [60, 1]) for i in range(2)]
        assert scaled_values(store.graph(), words, [words, *twins]) is None


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
    mine = tmp_path / "g.txt.part"
    mine.write_text("somebody's")
    graph.convert(tmp_path / "g.txt", "edgelist")
    assert mine.read_text() == "somebody's"
    lines = nx.read_weighted_edgelist(tmp_path / "g.txt", create_using=nx.DiGraph, nodetype=int)
    assert lines[0][3]["weight"] == pytest.approx(expected[0])
    graph.convert(tmp_path / "g", "parquet")
    assert pl.read_parquet(tmp_path / "g" / "edges.parquet")["weight"].to_list() == pytest.approx(expected)
    assert pl.read_parquet(tmp_path / "g" / "units.parquet").height == 9


def test_words_of_a_unit_are_text_in_graphml(path, tmp_path, monkeypatch):
    # A store with such a role is refused when read: this is the second wall, so that one is taken away.
    words = '</data><data key="x">&amp;\x01'
    units = GraphReader.units
    monkeypatch.setattr(GraphReader, "units", lambda self: units(self).with_columns(role=pl.lit(words)))
    emergraph.open(path).graph().convert(tmp_path / "g.graphml", "graphml")
    read = nx.read_graphml(tmp_path / "g.graphml")
    assert read.nodes["n0"]["role"] == words.replace("\x01", "\\x01")
    assert read.nodes["n0"]["neuron"] is True
    assert igraph.Graph.Read_GraphML(str(tmp_path / "g.graphml")).vs["role"][0] == read.nodes["n0"]["role"]


def test_limits_and_what_is_there_already(path, tmp_path):
    graph = emergraph.open(path).graph()
    with pytest.raises(LimitError, match="20 edges exceed the limit of 19"):
        graph.to_igraph(max_edges=19)
    with pytest.raises(LimitError, match="networkx"):
        graph.to_networkx(max_edges=19)
    with pytest.raises(LimitError, match="graphml"):
        graph.convert(tmp_path / "g.graphml", "graphml", max_edges=19)
    assert not list(tmp_path.glob("g.graphml*"))
    assert graph.convert(tmp_path / "g.graphml", "graphml", max_edges=20) == 20
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="exists"):
        graph.convert(tmp_path / "there", "edgelist")
    with pytest.raises(UsageError, match="unknown format 'gexf'; available: "):
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
