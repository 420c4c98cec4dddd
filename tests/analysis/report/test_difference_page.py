"""A difference as a page: equal graphs, two trainings of one network, and names that try to be more."""

import html
import re

import numpy as np
import onnx
import polars as pl
import pytest
from clifiles import DEMO, chain_of_layers
from onnx import TensorProto, helper, numpy_helper
from pagereader import Reader
from reportstores import HOSTILE, dense_demo

from emergraph import api
from emergraph.analysis.comparison.difference import Verdict, compare
from emergraph.analysis.report.difference import UNITS, Side, difference_page
from emergraph.analysis.report.html import page_html
from emergraph.graphstore.store import open_store

SECTIONS = ["summary", "layers", "tensors", "units", "measures", "provenance"]


def trained(seed, hidden=12, steps=120):
    """Weights of a network 64-12-10 that learned a rule about the demo's images, from a start by seed."""
    with np.load(DEMO / "digits.npz") as data:
        images = data["pixels"].reshape(-1, 64)
    labels = np.argmax(images @ np.random.default_rng(99).normal(size=(64, 10)), axis=1)
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0, 0.2, (64, hidden)), rng.normal(0, 0.3, (hidden, 10))
    wanted = np.eye(10)[labels]
    for _ in range(steps):
        active = np.maximum(images @ first, 0)
        scores = active @ second
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = (odds / odds.sum(axis=1, keepdims=True) - wanted) / len(images)
        back = (error @ second.T) * (active > 0)
        second -= 0.5 * active.T @ error
        first -= 0.5 * images.T @ back
    return first.astype(np.float32), second.astype(np.float32)


def saved_net(path, weights):
    """An ONNX file of that network."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["sums"], name="hidden"),
        helper.make_node("Relu", ["sums"], ["active"], name="relu"),
        helper.make_node("MatMul", ["active", "second"], ["y"], name="head"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 64), ("y", 10))
    ]
    held = [numpy_helper.from_array(w, n) for w, n in zip(weights, ("first", "second"), strict=True)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def compared(path, first, second, names=("a", "b")):
    """The difference of two model files, and its page."""
    for name, model in zip(names, (first, second), strict=True):
        api.export(model, path, name=name, force=True)
    with open_store(path) as store:
        ours, theirs = (store.graph(name) for name in names)
        found = compare(ours, theirs)
        sides = [
            Side(source=f"{path.name}:{name}", graph=reader.summary)
            for name, reader in zip(names, (ours, theirs), strict=True)
        ]
    return found, difference_page(found, *sides, command="emergraph diff A B --format html")


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainings")
    weights = [trained(seed) for seed in (0, 1)]
    files = [saved_net(folder / f"seed{i}.onnx", w) for i, w in enumerate(weights)]
    found, page = compared(folder / "net.duckdb", *files, names=("seed 0", "seed 1"))
    return weights, found, page


def section(page, name):
    return {entry.id: entry for entry in page.sections}[name]


def test_equal_graphs_are_said_to_be_equal(tmp_path):
    found, page = compared(tmp_path / "net.duckdb", dense_demo(), dense_demo())
    assert found.verdict is Verdict.EQUAL
    assert [entry.id for entry in page.sections] == SECTIONS
    text = "".join(Reader(page_html(page)).texts)
    assert "A and B are equal: the same numbers, to the last bit" in text
    assert "Layers added, removed or changed: none. The same: 4." in text
    assert [entry.id for entry in page.sections if entry.tables] == ["measures"]
    assert set(section(page, "measures").tables[0].frame["change"]) == {0.0}


def test_two_trainings_show_where_they_differ(trainings):
    (a, b), found, page = trainings
    assert found.verdict is Verdict.CHANGED
    tensors = section(page, "tensors").tables[0].frame
    assert set(tensors["tensor_a"]) == {"first", "second"}
    for name, ours, theirs in zip(("first", "second"), a, b, strict=True):
        row = tensors.row(by_predicate=pl.col("tensor_a") == name, named=True)
        assert row["rms_change"] == pytest.approx(np.sqrt(np.mean((theirs - ours) ** 2, dtype=np.float64)))
        assert row["sign_flips"] == np.count_nonzero(ours * theirs < 0)
    moved = np.concatenate(
        [
            np.linalg.norm(theirs - ours, axis=0) / np.linalg.norm(ours, axis=0)
            for ours, theirs in zip(a, b, strict=True)
        ]
    )
    units = section(page, "units").tables[0].frame
    assert units.height == moved.size < UNITS
    assert units["relative"].to_list() == pytest.approx(sorted(moved, reverse=True), rel=1e-5)
    (note,) = section(page, "units").notes
    assert f"moves {found.matching.n_moved} hidden units: " in note
    assert set(section(page, "layers").tables[0].frame["state"]) == {"changed"}
    text = "".join(Reader(page_html(page)).texts)
    assert f"{found.sign_flips:,}" in text
    assert "seed 0 and seed 1" in text


def test_the_page_can_load_and_run_nothing(trainings):
    page = page_html(trainings[2])
    reader = Reader(page)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name == "style"]
    policy = next(value for name, value in reader.attributes if name == "content" and "default" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    ids = [value for name, value in reader.attributes if name == "id" and value in SECTIONS]
    assert ids == SECTIONS
    assert "emergraph sql" not in page


def test_hostile_names_are_text(tmp_path, trainings):
    models = []
    for change in (1.0, -1.5):
        weight = np.asarray([[1.0, -0.5], [0.25, 2.0 * change]], dtype=np.float32)
        model = chain_of_layers(*HOSTILE, weight=weight)
        for index, (node, tensor) in enumerate(zip(model.graph.node, model.graph.initializer, strict=True)):
            tensor.name = node.input[1] = HOSTILE[index]
        models.append(tmp_path / f"{change}.onnx")
        onnx.save(model, models[-1])
    names = ("<i>\x1b[0m\u202e{{1}}", HOSTILE[0])
    found, page = compared(tmp_path / "'<b>\" net.duckdb", *models, names=names)
    assert set(HOSTILE) <= set(found.layers["name_a"])
    hostile = page_html(page)
    reader = Reader(hostile)
    assert set(reader.tags) <= set(Reader(page_html(trainings[2])).tags)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", hostile)
    text = "".join(reader.texts)
    for shown in (
        HOSTILE[0],
        "\\x1b[31mred",
        "safe\\u202egnp.exe\\u2066",
        "{{7*7}}",
        "<i>\\x1b[0m\\u202e{{1}}",
    ):
        assert shown in text, shown


def test_a_stranger_has_layers_of_its_own(tmp_path):
    found, page = compared(tmp_path / "net.duckdb", dense_demo(), DEMO / "digits_conv.onnx")
    assert found.verdict is Verdict.DIFFERENT
    assert {"added", "removed"} <= set(section(page, "layers").tables[0].frame["state"])
    text = html.unescape(page_html(page))
    assert f"{len(found.only_a)} tensors only in A: " in text
    assert f"{len(found.only_b)} tensors only in B: " in text
