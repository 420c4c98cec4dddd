"""Which tensor shows the activation of a layer's units, along which axes, and what was applied on the way."""

import numpy as np
import pytest
from nets import Net
from tracedmodel import Traced, trace_model


def shown(traced: Traced, layer: str) -> tuple[str | None, tuple[int, ...] | None]:
    found = traced.sink.layer(layer)
    return found.activation_tensor, found.activation_axes


def test_the_last_element_wise_tensor_before_the_next_contraction():
    net = Net()
    h = net.op("MatMul", net.input(2, 3), net.param(3, 4), name="first")
    bent = net.op("Relu", net.op("Add", h, net.param(4)))
    net.output(net.op("MatMul", bent, net.param(4, 2), name="second"))
    traced = trace_model(net.model())
    assert shown(traced, "first") == (bent, (1,))
    assert shown(traced, "second") == ("second.out", (1,))


def test_of_a_convolution_with_batch_norm_and_relu():
    net = Net()
    h = net.op("Conv", net.input(1, 2, 4, 4), net.param(3, 2, 1, 1), net.param(3), name="conv")
    stats = [net.param(3), net.param(3), net.param(3), net.value([1.0, 2.0, 3.0])]
    bent = net.op("Relu", net.op("BatchNormalization", h, *stats))
    net.output(net.op("Conv", bent, net.param(2, 3, 1, 1)))
    assert shown(trace_model(net.model()), "conv") == (bent, (1,))


def test_pooling_and_flattening_stand_after_the_activation():
    net = Net()
    bent = net.op("Relu", net.op("Conv", net.input(1, 2, 4, 4), net.param(3, 2, 1, 1), name="conv"))
    pooled = net.op("MaxPool", bent, kernel_shape=[2, 2], strides=[2, 2])
    net.output(net.op("MatMul", net.op("Flatten", pooled), net.param(12, 2)))
    assert shown(trace_model(net.model()), "conv") == (pooled, (1,))


@pytest.mark.parametrize(
    ("op", "attributes", "shown_before"),
    [
        ("GlobalAveragePool", {}, True),
        ("AveragePool", {"kernel_shape": [4, 4]}, True),
        ("ReduceMean", {"axes": [2, 3], "keepdims": 1}, True),
        ("ReduceSum", {}, True),
        ("GlobalMaxPool", {}, False),
        ("ReduceMax", {"axes": [2, 3], "keepdims": 1}, False),
    ],
)
def test_an_average_over_positions_does_not_hide_what_they_do(op, attributes, shown_before):
    net = Net()
    edges = net.op("Conv", net.input(1, 2, 5, 5), net.param(3, 2, 2, 2), name="conv")
    more = [net.ints(2, 3)] if op == "ReduceSum" else []
    found = net.op(op, edges, *more, **attributes)
    net.output(net.op("MatMul", net.op("Flatten", found), net.param(3, 2)))
    assert shown(trace_model(net.model()), "conv") == ((edges if shown_before else found), (1,))


def test_a_residual_stream_is_read_raw_and_bent():
    net = Net()
    h = net.op("MatMul", net.input(1, 4), net.param(4, 4), name="stem")
    branch = net.op("MatMul", net.op("Relu", h, name="bent"), net.param(4, 4), name="branch")
    net.output(net.op("Add", h, branch))
    traced = trace_model(net.model())
    assert shown(traced, "stem") == ("bent.out", (1,))
    assert shown(traced, "branch") == ("branch.out", (1,))


def test_a_residual_after_the_activation_shows_the_activation():
    net = Net()
    bent = net.op("Relu", net.op("MatMul", net.input(1, 4), net.param(4, 4), name="stem"))
    net.output(net.op("Add", bent, net.op("MatMul", bent, net.param(4, 4))))
    assert shown(trace_model(net.model()), "stem") == (bent, (1,))


def layer_norm(net: Net, x: str, width: int, *, fused: bool) -> str:
    gamma, beta = net.param(width), net.param(width)
    if fused:
        return net.op("LayerNormalization", x, gamma, beta, axis=-1)
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1]))
    power = net.op("ReduceMean", net.op("Pow", centred, net.value(2.0)), axes=[-1])
    normal = net.op("Div", centred, net.op("Sqrt", net.op("Add", power, net.value(1e-5))))
    return net.op("Add", net.op("Mul", normal, gamma), beta)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written out"])
def test_a_layer_behind_a_norm_shows_the_normed_tensor(fused):
    net = Net(opset=17)
    h = net.op("MatMul", net.input(1, 5, 3), net.param(3, 4), name="dense")
    normal = layer_norm(net, h, 4, fused=fused)
    net.output(net.op("MatMul", normal, net.param(4, 2)))
    assert shown(trace_model(net.model()), "dense") == (normal, (2,))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written out"])
def test_a_pre_norm_block_reads_its_stem_raw_and_normed(fused):
    net = Net(opset=17)
    stem = net.op("MatMul", net.input(1, 5, 3), net.param(3, 4), name="stem")
    inner = net.op(
        "Relu", net.op("MatMul", layer_norm(net, stem, 4, fused=fused), net.param(4, 6), name="up")
    )
    stream = net.op("Add", stem, net.op("MatMul", inner, net.param(6, 4), name="down"))
    net.output(net.op("MatMul", layer_norm(net, stream, 4, fused=fused), net.param(4, 2), name="head"))
    traced = trace_model(net.model())
    assert shown(traced, "stem") == ("stem.out", (2,))
    assert shown(traced, "up") == (inner, (2,))
    assert shown(traced, "down") == ("down.out", (2,))


def test_dense_net_layers_are_read_raw_once_and_bent_ever_after():
    net = Net()
    grown = net.op("Conv", net.input(1, 2, 3, 3), net.param(3, 2, 1, 1), name="conv0")
    for k, width in ((1, 3), (2, 5)):
        stats = [net.param(width), net.param(width), net.param(width), net.value(np.ones(width, np.float32))]
        h = net.op("Relu", net.op("BatchNormalization", grown, *stats, name=f"norm{k}"), name=f"relu{k}")
        new = net.op("Conv", h, net.param(2, width, 1, 1), name=f"conv{k}")
        grown = net.op("Concat", grown, new, axis=1, name=f"concat{k}")
    net.output(net.op("Conv", net.op("Relu", grown, name="last"), net.param(2, 7, 1, 1)))
    traced = trace_model(net.model())
    # conv0 alone fills the tensors up to relu1; in a concatenation no axis is its units alone.
    assert shown(traced, "conv0") == ("relu1.out", (1,))
    assert shown(traced, "conv1") == ("conv1.out", (1,))
    assert shown(traced, "conv2") == ("conv2.out", (1,))


def test_swish_is_one_nonlinearity_of_the_layer():
    net = Net()
    h = net.op("MatMul", net.input(1, 3), net.param(3, 4), name="dense")
    bent = net.op("Mul", h, net.op("Sigmoid", h))
    net.output(net.op("MatMul", bent, net.param(4, 2)))
    traced = trace_model(net.model())
    layer = traced.sink.layer("dense")
    assert shown(traced, "dense") == (bent, (1,))
    assert traced.sink.columns_of(layer).activation == "Swish"


def test_gelu_written_out_is_one_nonlinearity_of_the_layer():
    net = Net()
    h = net.op("MatMul", net.input(1, 3), net.param(3, 4), name="dense")
    erf = net.op("Erf", net.op("Div", h, net.value(np.sqrt(2.0))))
    bent = net.op("Mul", net.op("Mul", h, net.op("Add", erf, net.value(1.0))), net.value(0.5))
    net.output(net.op("MatMul", bent, net.param(4, 2)))
    traced = trace_model(net.model())
    columns = traced.sink.columns_of(traced.sink.layer("dense"))
    assert shown(traced, "dense") == (bent, (1,))
    assert columns.activation == "Gelu"


def test_heads_are_laid_out_over_several_axes():
    net = Net()
    h = net.op("MatMul", net.input(1, 3, 4), net.param(4, 6), name="query")
    heads = net.op("Transpose", net.op("Reshape", h, net.ints(1, 3, 2, 3)), perm=[0, 2, 1, 3])
    keys = net.op("Transpose", heads, perm=[0, 1, 3, 2])
    net.output(net.op("MatMul", heads, keys))
    tensor, axes = shown(trace_model(net.model()), "query")
    assert (tensor, axes) == ("query.out", (2,))


def test_a_recurrent_layer_shows_every_step():
    net = Net()
    y, last = net.ops(
        "LSTM", 2, net.input(5, 1, 3), net.param(1, 16, 3), net.param(1, 16, 4), hidden_size=4, name="rnn"
    )
    net.output(y, last)
    traced = trace_model(net.model())
    assert traced.sink.layer("rnn").activation_axes in ((1, 3), (3,), (2,), (0, 2))
    assert traced.sink.layer("rnn:gates").activation_tensor is None


def test_structural_layers_have_no_activation():
    net = Net()
    x = net.input(1, 3)
    net.output(net.op("Relu", net.op("Add", net.dense(x, 3), net.dense(x, 3)), name="out"))
    sink = trace_model(net.model()).sink
    junction = next(la for la in sink.layers if la.op == "Add" and la.kind == "junction")
    assert junction.activation_tensor is None


def test_a_layer_in_no_tensor_of_its_own_has_no_activation():
    net = Net()
    x = net.input(2, 3)
    c = net.op("MatMul", x, net.param(3, 4))
    net.output(net.op("Gemm", x, net.param(3, 4), c, name="gemm"))
    sink = trace_model(net.model()).sink
    gemm = next(la for la in sink.layers if la.op == "Gemm" and la.kind == "dense")
    assert gemm.activation_tensor is None
