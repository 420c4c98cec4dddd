"""Case 31: names that would hurt whoever shows them, and text that is no text."""

import pytest
from onnx import helper

from emergraph.exporters.onnxfile.reader import read_onnx

node = helper.make_node


HOSTILE_NAMES = [
    "a'; DROP TABLE edges;--",
    "<script>alert(1)</script>",
    "\x1b]0;owned\x07\x1b[2J",
    "with\0NUL",
    "\u202egnp.exe",
    "=cmd|' /C calc'!A0",
    "../../etc/passwd",
    "line\nbreak\u2028and\rreturn",
    "zero\u200bwidth",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_case_31_hostile_names_are_shown_harmlessly(make, accepted, refused, name):
    hidden = not name.isprintable()
    file = accepted(
        make.with_nodes([node("Relu", ["x"], ["y"], name=name)]),
        "ONNX-NAME-CONTROL" if hidden else "ONNX-NAME-MARKUP",
    )
    assert file.model.graph.node[0].name == name
    refused(make.with_nodes([node("Add", ["x", name], ["y"], name=name)]), "ONNX-GRAPH-MISSING")


def test_case_31_a_name_of_a_megabyte(make, accepted, refused):
    name = "n" * (1 << 20)
    accepted(make.with_nodes([node("Relu", ["x"], ["y"], name=name)]), "ONNX-NAME-LONG")
    assert "1048576" in refused(make.with_nodes([node("Add", ["x", name], ["y"])]), "ONNX-GRAPH-MISSING")


def test_case_31_names_that_look_alike(make, accepted):
    nodes = [
        node("Relu", ["x"], ["fc1"]),
        node("Add", ["fc1", "x"], ["f\u04411"]),
        node("Neg", ["fc1"], ["y"]),
    ]
    accepted(make.with_nodes(nodes), "ONNX-NAME-ALIKE")


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xed\xa0\x80", b"abc\x80"])
def test_text_that_is_not_utf8(make, refused, bad):
    good = "q" * len(bad)
    for model in (
        make.with_nodes([node("Relu", ["x"], ["y"], name=good)]),
        make.with_nodes([node(good, ["x"], ["y"])]),
        make.with_nodes([node("Relu", ["x"], ["y"], **{good: 1})]),
        _with_producer(make, good),
        _with_dimension(make, good),
        _with_tensor_doc(make, good),
    ):
        content = model.SerializeToString()
        assert content.count(good.encode()) == 1
        refused(content.replace(good.encode(), bad), "ONNX-WIRE-TEXT")


def _with_producer(make, text):
    model = make.with_nodes([node("Relu", ["x"], ["y"])])
    model.producer_name = text
    return model


def _with_dimension(make, text):
    model = make.with_nodes([node("Relu", ["x"], ["y"])])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = text
    return model


def _with_tensor_doc(make, text):
    model = make.dense()
    model.graph.initializer[0].doc_string = text
    return model


def test_names_of_other_scripts_are_fine(make, save):
    file = read_onnx(save(make.with_nodes([node("Relu", ["x"], ["y"], name="слой_层_capa")])))
    assert file.model.graph.node[0].name == "слой_层_capa"
