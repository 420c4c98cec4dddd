"""The same net in old and new operation sets: axes as attributes or inputs, other defaults."""

from typing import Any

import numpy as np
import pytest
from nets import Net
from pathtruth import assert_path_truth
from tracedmodel import trace_model

from emergraph.graphstore.records import EdgeKind

OPSETS = (9, 11, 13, 17, 23)


def axes_of(net: Net, since: int, *axes: int) -> tuple[list[str], dict[str, Any]]:
    """Axes as an input from a version on, as an attribute before."""
    return ([net.ints(*axes)], {}) if net.opsets[""] >= since else ([], {"axes": list(axes)})


def sliced(net: Net, x: str, start: int, end: int, axis: int) -> str:
    if net.opsets[""] >= 10:
        return net.op("Slice", x, net.ints(start), net.ints(end), net.ints(axis))
    return net.op("Slice", x, starts=[start], ends=[end], axes=[axis])


@pytest.mark.parametrize("opset", OPSETS)
def test_squeeze_unsqueeze_slice_and_reduce(opset):
    net = Net(opset=opset, seed=1)
    x = net.input(1, 6, 5, name="x")
    inputs, attributes = axes_of(net, 13, 1)
    wide = net.op("Unsqueeze", x, *inputs, **attributes)
    flat = net.op("Squeeze", wide, *inputs, **attributes)
    h = net.op("MatMul", sliced(net, flat, 1, 5, 1), net.param(5, 4, zeros=0.4), name="dense")
    inputs, attributes = axes_of(net, 13, 1)
    summed = net.op("ReduceSum", h, *inputs, keepdims=0, **attributes)
    inputs, attributes = axes_of(net, 18, 1)
    mean = net.op("ReduceMean", h, *inputs, keepdims=0, **attributes)
    net.output(net.op("MatMul", net.op("Add", summed, mean), net.param(4, 2, zeros=0.3)))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert traced.sink.layer("x").n_units == 5
    assert_path_truth(traced)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_split_into_halves(opset):
    net = Net(opset=opset, seed=2)
    h = net.op("MatMul", net.input(1, 3, name="x"), net.param(3, 6, zeros=0.4))
    sizes: tuple[list[str], dict[str, Any]] = (
        ([net.ints(2, 4)], {}) if opset >= 13 else ([], {"split": [2, 4]})
    )
    a, b = net.ops("Split", 2, h, *sizes[0], axis=1, **sizes[1])
    net.output(net.op("MatMul", a, net.param(2, 2)), net.op("MatMul", b, net.param(4, 1)))
    assert_path_truth(trace_model(net.model()))


@pytest.mark.parametrize("opset", OPSETS)
def test_softmax_over_several_axes_before_opset_13(opset):
    net = Net(opset=opset, seed=3)
    h = net.op("MatMul", net.input(1, 3, 2, name="x"), net.param(2, 4))
    net.output(net.op("Softmax", h, axis=1))
    sink = trace_model(net.model()).sink
    # Over positions alone one unit is compared with itself; over positions and features there is a group.
    assert bool(sink.count(EdgeKind.NORM)) == (opset < 13)


@pytest.mark.parametrize("opset", OPSETS)
def test_softmax_over_the_default_axis(opset):
    net = Net(opset=opset, seed=4)
    net.output(net.op("Softmax", net.op("MatMul", net.input(1, 3), net.param(3, 4))))
    sink = trace_model(net.model()).sink
    assert sink.count(EdgeKind.NORM) == 8


@pytest.mark.parametrize("opset", OPSETS)
def test_padding_carries_no_unit(opset):
    net = Net(opset=opset, seed=5)
    x = net.input(1, 2, 3, 3, name="x")
    pads = [0, 1, 1, 1, 0, 0, 1, 1]
    padded = (
        net.op("Pad", x, net.ints(*pads), net.value(7.0))
        if opset >= 11
        else net.op("Pad", x, pads=pads, value=7.0, mode="constant")
    )
    net.output(net.op("Conv", padded, net.param(2, 3, 2, 2)))
    traced = trace_model(net.model())
    assert traced.sink.layer("x").n_units == 2
    assert (traced.labels[padded][:, 0] == -1).all()
    assert_path_truth(traced)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pads_below_zero_remove(opset, mode):
    net = Net(opset=opset, seed=5)
    x = net.op("MatMul", net.input(1, 4, 3, name="x"), net.param(3, 5), name="h")
    # a token before and two fewer behind; two features fewer before and one behind
    pads = [0, 1, -2, 0, -2, 1]
    given, attributes = ([net.ints(*pads)], {}) if opset >= 11 else ([], {"pads": pads})
    padded = net.op("Pad", x, *given, mode=mode, **attributes)
    net.output(net.op("MatMul", padded, net.param(4, 2)))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    first = traced.sink.layer("h").first_unit
    filled = {"constant": -1, "edge": first + 4, "reflect": first + 3}[mode]
    kept = [first + 2, first + 3, first + 4, filled]
    before = [-1] * 4 if mode == "constant" else kept
    assert traced.labels[padded][0].tolist() == [before, kept, kept]
    assert_path_truth(traced)


@pytest.mark.parametrize(("axes", "pads"), [([2], [-1, 0]), ([-1, 1], [-1, 1, 0, -1])])
def test_pads_below_zero_of_some_axes(axes, pads):
    net = Net(opset=18, seed=5)
    x = net.op("MatMul", net.input(1, 4, 3, name="x"), net.param(3, 5), name="h")
    padded = net.op("Pad", x, net.ints(*pads), "", net.ints(*axes))
    net.output(net.op("MatMul", padded, net.param(4, 2)))
    traced = trace_model(net.model())
    first = traced.sink.layer("h").first_unit
    assert traced.labels[padded][0, -1].tolist() == [first + 1, first + 2, first + 3, first + 4]
    assert_path_truth(traced)


@pytest.mark.parametrize("opset", OPSETS)
def test_clip_dropout_and_batch_norm(opset):
    net = Net(opset=opset, seed=6)
    h = net.op("Conv", net.input(1, 2, 3, 3, name="x"), net.param(3, 2, 1, 1, zeros=0.3))
    stats = [net.param(3), net.param(3), net.param(3), net.value(np.ones(3, np.float32))]
    h = net.op("BatchNormalization", h, *stats)
    h = (
        net.op("Clip", h, net.value(-5.0), net.value(5.0))
        if opset >= 11
        else net.op("Clip", h, min=-5.0, max=5.0)
    )
    net.output(net.op("Conv", net.op("Dropout", h), net.param(2, 3, 1, 1, zeros=0.3)))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert_path_truth(traced)


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 19])
def test_resampling(opset):
    net = Net(opset=opset, seed=7)
    h = net.op("Conv", net.input(1, 2, 3, 3, name="x"), net.param(3, 2, 1, 1, zeros=0.3))
    scales = net.value([1.0, 1.0, 2.0, 2.0])
    if opset == 9:
        wide = net.op("Upsample", h, scales, mode="nearest")
    elif opset == 10:
        wide = net.op("Resize", h, scales, mode="nearest")
    else:
        wide = net.op("Resize", h, net.value(np.empty(0, np.float32)), scales, mode="nearest")
    net.output(net.op("Conv", wide, net.param(2, 3, 1, 1, zeros=0.3)))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert_path_truth(traced)


def test_resizing_in_nhwc_order_keeps_the_channels_apart():
    net = Net(opset=13, seed=8)
    h = net.op("Conv", net.input(1, 2, 3, 3, name="x"), net.param(3, 2, 1, 1, zeros=0.3))
    last = net.op("Transpose", h, perm=[0, 2, 3, 1])
    empty = net.value(np.empty(0, np.float32))
    wide = net.op("Resize", last, empty, net.value([1.0, 2.0, 2.0, 1.0]), mode="nearest")
    net.output(net.op("Conv", net.op("Transpose", wide, perm=[0, 3, 1, 2]), net.param(2, 3, 1, 1, zeros=0.4)))
    assert_path_truth(trace_model(net.model()))
