"""Labels outside of the classes are refused with what was found and expected."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.analysis.labels import class_labels
from emergraph.analysis.landscape.losses import OutputKind, cross_entropy
from emergraph.cli.main import main
from emergraph.errors import UsageError

N = 32


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (
            [1, 2, 3, 4],
            {},
            "found 1 to 4, expected 0 to 3 for the 4 classes of the output; --ignore-label 4 ",
        ),
        (
            [0, 255, 3],
            {},
            "found 0 to 255, expected 0 to 3 for the 4 classes of the output; --ignore-label 255 ",
        ),
        (
            [-1, 0, 3],
            {},
            "found -1 to 3, expected 0 to 3 for the 4 classes of the output; --ignore-label -1 ",
        ),
        (
            [-2, -1, 3],
            {},
            "found -2 to 3, expected 0 to 3 for the 4 classes of the output; --ignore-label N ",
        ),
        ([-100, 255, 3], {"ignored": 255}, "found -100 to 3"),
        ([0.5, 1.0], {}, "expected whole numbers, one per class, found float64"),
        ([np.nan, 1.0], {}, "expected whole numbers"),
        ([np.inf, 1.0], {}, "expected whole numbers"),
        (["cat"], {}, "expected whole numbers, one per class, found <U3"),
        ([1 + 2j], {}, "expected whole numbers"),
        (np.array([2**63], np.uint64), {}, f"found up to {2**63}"),
        ([255, 255], {"ignored": 255}, "none is left"),
        ([], {}, "there are none"),
    ],
)
def test_labels_that_no_class_has_are_refused(labels, options, said):
    with pytest.raises(UsageError) as caught:
        class_labels(np.asarray(labels), 4, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize("labels", [[0, 3], [0.0, 3.0], np.array([0, 3], np.uint8), [[0], [3]]])
def test_labels_of_any_shape_and_whole_type_are_taken(labels):
    assert class_labels(np.asarray(labels), 4).indices.reshape(-1).tolist() == [0, 3]


def test_the_booleans_are_two_classes():
    assert class_labels(np.array([True, False]), 2).classes.tolist() == [1, 0]


def test_the_ignored_value_may_be_a_class_and_does_not_count():
    scores = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]))
    loss = cross_entropy(np.array([0, 255, 1]), OutputKind.SCORES, ignored=255)
    assert loss([scores]) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    loss = cross_entropy(np.array([0, 1, 1]), OutputKind.SCORES, ignored=0)
    assert loss([scores]) == pytest.approx(-(np.log(0.1) + np.log(0.8)) / 2)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A softmax classifier of four classes, a store of it, and samples with labels."""
    folder = tmp_path_factory.mktemp("classifier")
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in (("A", (6, 5)), ("B", (5, 4)))
    }
    nodes = [
        helper.make_node("Gemm", ["x", "A"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "B"], ["g"]),
        helper.make_node("Softmax", ["g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()],
    )
    model = folder / "classifier.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), model)
    assert main(["export", str(model), str(folder / "net.duckdb"), "--quiet", "--out", "/dev/null"]) == 0
    x, labels = rng.normal(size=(N, 6)).astype(np.float32), np.arange(N) % 4
    given = {
        "right": labels,
        "from_one": labels + 1,
        "ignored": np.where(labels == 0, 255, labels),
        "halves": labels + 0.5,
    }
    for name, values in given.items():
        np.savez(folder / f"{name}.npz", x=x, labels=values)
        np.savez(folder / f"{name}-labels.npz", labels=values)
    np.savez(folder / "x.npz", x=x)
    return folder


def landscape(folder, name):
    small = ["--directions", "2", "--planes", "1", "--walks", "2", "--backend", "serial", "--quiet"]
    inputs = str(folder / f"{name}.npz")
    return ["landscape", str(folder / "classifier.onnx"), "--inputs", inputs, "--target", "labels", *small]


def prune(folder, name):
    model, inputs = str(folder / "classifier.onnx"), str(folder / "x.npz")
    labels = str(folder / f"{name}-labels.npz")
    return [
        *("prune", str(folder / "net.duckdb"), "--model", model, "--inputs", inputs, "--labels", labels),
        *("--level", "0.5", "--quiet", "--no-save"),
    ]


@pytest.mark.parametrize("command", [landscape, prune])
@pytest.mark.parametrize(
    ("name", "options", "code", "said"),
    [
        ("right", [], 0, ""),
        ("from_one", [], 2, "found 1 to 4, expected 0 to 3"),
        ("ignored", [], 2, "--ignore-label 255"),
        ("ignored", ["--ignore-label", "255"], 0, ""),
        ("from_one", ["--ignore-label", "4"], 0, ""),
        ("halves", [], 2, "expected whole numbers"),
    ],
)
def test_commands_with_labels(classifier, capfd, command, name, options, code, said):
    assert main([*command(classifier, name), *options]) == code
    error = capfd.readouterr().err
    assert said in error
    assert len(error.splitlines()) == (code != 0)
