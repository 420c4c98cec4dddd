"""What cannot be pruned in a model is named and left as it is; everything else is pruned."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from nets import Net
from onnx import numpy_helper

import emergraph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.modelruns import compare
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.errors import UsageError

X = np.random.default_rng(0).standard_normal((3, 3, 6, 6)).astype(np.float32)


REASON = "its parameters cannot be told apart in its tensor"


def said(result):
    return [note for note in result.notes if note.startswith("left alone")]


def second(files):
    """The name of the convolution that reads the tensor of that name."""
    (node,) = (n for n in onnx.load(files.model).graph.node if "second" in n.input)
    return node.name


def normal(net, *shape):
    return net.rng.standard_normal(shape).astype(np.float32)


def shuffled(net, x):
    """Four units take turns on each channel that the next convolution reads."""
    return net.op("DepthToSpace", x, blocksize=2)


def reshaped(net, x):
    return net.op("Reshape", x, net.ints(1, 4, 12, 12))


def decoder(move, *, last=False):
    """A super-resolution decoder: a convolution, its channels laid out as pixels, convolutions."""
    net = Net(seed=1)
    pads = {"pads": [1] * 4}
    h = net.op(
        "Conv", net.input(1, 3, 6, 6, name="x"), net.value(normal(net, 16, 3, 3, 3), name="first"), **pads
    )
    h = net.op(
        "Conv", move(net, net.op("Relu", h)), net.value(normal(net, 5, 4, 3, 3), name="second"), **pads
    )
    if last:
        h = net.op("Conv", net.op("Relu", h), net.value(normal(net, 3, 5, 3, 3), name="third"), **pads)
    net.output(h)
    return net.model()


def exported(tmp_path, model):
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return emergraph.export(path, tmp_path / "s.duckdb"), ModelFiles(model=path, inputs={"x": X})


def outputs(path):
    session = ort.InferenceSession(path)
    return [np.concatenate([session.run(None, {"x": x[None]})[0] for x in X])]


def held(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("move", [shuffled, reshaped])
@pytest.mark.parametrize(
    ("unit", "smaller"), [("parameter", False), ("edge", False), ("unit", False), ("unit", True)]
)
def test_other_layers_are_pruned_and_this_one_is_named(tmp_path, move, unit, smaller):
    graph, files = exported(tmp_path, decoder(move, last=True))
    out = tmp_path / "pruned.onnx"
    options = PruningOptions(criterion="magnitude" if unit != "unit" else "l2", unit=unit, levels=(0.5,))
    result = graph.prune(options, files=files, write=out, smaller=smaller)
    assert said(result) == [f"left alone: {second(files)} ({REASON})"]
    row = result.frame.row(0, named=True)
    found = compare(outputs(files.model), outputs(out))
    assert row["relative_mse"] == pytest.approx(found["relative_mse"], rel=1e-3)
    assert row["relative_mse"] > 0
    if smaller:
        return
    before, after = held(files.model), held(out)
    np.testing.assert_array_equal(before["second"], after["second"])
    zeros = np.count_nonzero(after["first"] == 0)
    if unit == "unit":
        # the units of the second convolution are kept: what leads into them is left alone
        assert zeros == 8 * 27
        assert np.count_nonzero(after["third"]) == after["third"].size
    else:
        assert zeros + np.count_nonzero(after["third"] == 0) == pytest.approx((432 + 135) / 2, abs=9)


@pytest.mark.parametrize("move", [shuffled, reshaped])
def test_the_sensitivity_of_the_other_layers(tmp_path, move):
    graph, files = exported(tmp_path, decoder(move, last=True))
    result = graph.prune(PruningOptions(levels=(0.5,)), files=files, save=False, sensitivity=True)
    assert result.frame["items"].to_list() == [16 * 27, 15 * 9]
    assert result.frame["relative_mse"].min() > 0
    assert said(result) == [f"left alone: {second(files)} ({REASON})"]


def test_without_a_model_everything_is_pruned_in_thought(tmp_path):
    graph, files = exported(tmp_path, decoder(shuffled))
    alone, together = (
        graph.prune(PruningOptions(levels=(0.5,)), files=one, save=False) for one in (None, files)
    )
    assert said(alone) == []
    assert alone.removals[0].items.n > together.removals[0].items.n


def test_a_model_in_which_nothing_can_be_pruned_says_why(tmp_path):
    net = Net(seed=2)
    parts = [net.value(normal(net, 6, n)) for n in (3, 2)]
    h = net.op("MatMul", net.input(1, 6, name="x"), net.op("Concat", *parts, axis=1), name="joined")
    net.output(net.op("Relu", h))
    graph, files = exported(tmp_path, net.model())
    files = ModelFiles(model=files.model)
    with pytest.raises(UsageError, match=rf"pruned; left alone: joined \({REASON}\)"):
        graph.prune(PruningOptions(levels=(0.5,)), files=files, save=False)


def test_weights_stored_in_another_form_are_pruned_as_well(tmp_path):
    net = Net(seed=3)
    h = net.op("MatMul", net.input(1, 6, name="x"), "sparse")
    h = net.op("MatMul", net.op("Relu", h), net.value(normal(net, 4, 3), name="plain"))
    net.output(h)
    model = net.model()
    model.ir_version = 10
    weights = normal(net, 6, 4)
    places = np.argwhere(np.abs(weights) > 0.2)
    values = numpy_helper.from_array(weights[tuple(places.T)], "sparse")
    indices = numpy_helper.from_array(places.astype(np.int64), "places")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [6, 4]))
    path, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(model, path)
    graph = emergraph.export(path, tmp_path / "s.duckdb")
    result = graph.prune(
        PruningOptions(levels=(0.5,)), files=ModelFiles(model=path), write=out, smaller=False
    )
    tensors = held(out)
    kept = np.count_nonzero(tensors["sparse"]) + np.count_nonzero(tensors["plain"])
    assert kept == result.frame["kept_parameters"][0]
    assert not onnx.load(out).graph.sparse_initializer


def test_a_slice_of_the_first_axes_alone_is_followed(tmp_path):
    # Without axes, a Slice is of as many axes as it has starts.
    net = Net(seed=4)
    h = net.op("Relu", net.op("MatMul", net.input(1, 6, name="x"), net.value(normal(net, 6, 4))))
    net.output(net.op("MatMul", net.op("Slice", h, net.ints(0), net.ints(1)), net.value(normal(net, 4, 3))))
    path = tmp_path / "net.onnx"
    onnx.save(net.model(), path)
    graph = emergraph.export(path, tmp_path / "s.duckdb")
    result = graph.prune(PruningOptions(unit="unit", levels=(0.5,)), files=ModelFiles(model=path), save=False)
    assert result.frame["flops_if_removed"][0] < result.frame["flops"][0] + 1
