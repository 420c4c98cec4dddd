"""Small models of every shape that real files have: random weights with exact zeros, monotone activations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from nets import Net

Build = Callable[[], onnx.ModelProto]
SUMS: dict[str, Build] = {}
"""Nets of sums only."""
FEED_FORWARD: dict[str, Build] = {}
"""Nets without time and without normalisation over units."""
RECURRENT: dict[str, Build] = {}
NORMALISED: dict[str, Build] = {}
"""Every consumer reads behind the normalisation, so that `norm` edges tell the whole truth."""


def _zoo(*shelves: dict[str, Build]) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        for shelf in shelves:
            shelf[build.__name__] = build
        return build

    return add


def _done(net: Net, *outputs: str) -> onnx.ModelProto:
    net.output(*outputs)
    return net.model()


@_zoo(SUMS, FEED_FORWARD)
def dense_chain() -> onnx.ModelProto:
    net = Net(seed=1)
    h = net.dense(net.input(2, 4, name="x"), 6, zeros=0.6, bias=False)
    return _done(net, net.dense(net.dense(h, 5, zeros=0.6, bias=False), 3, zeros=0.5, bias=False))


@_zoo(SUMS, FEED_FORWARD)
def gemm_both_ways() -> onnx.ModelProto:
    net = Net(seed=2)
    h = net.op("Gemm", net.input(2, 4, name="x"), net.param(5, 4, zeros=0.6), transB=1)
    h = net.op("Gemm", h, net.param(5, 6, zeros=0.6))
    turned = net.op("Transpose", h, perm=[1, 0])
    return _done(net, net.op("Gemm", turned, net.param(3, 6, zeros=0.5), transA=1, transB=1))


@_zoo(SUMS, FEED_FORWARD)
def residual_sums() -> onnx.ModelProto:
    net = Net(seed=3)
    x = net.input(2, 5, name="x")
    y = net.op("Add", x, net.dense(x, 5, zeros=0.7, bias=False))
    z = net.op("Add", y, net.dense(y, 5, fan_in=5, zeros=0.7, bias=False))
    return _done(net, net.dense(net.op("Sum", x, y, z), 2, fan_in=5, zeros=0.5, bias=False))


@_zoo(SUMS, FEED_FORWARD)
def concat_branches() -> onnx.ModelProto:
    net = Net(seed=4)
    x = net.input(1, 3, 6, 6, name="image")
    a = net.op("Conv", x, net.param(2, 3, 1, 1, zeros=0.5))
    a = net.op("Slice", a, net.ints(2, 2), net.ints(6, 6), net.ints(2, 3))
    b = net.op("Conv", x, net.param(3, 3, 3, 3, zeros=0.9))
    both = net.op("Concat", a, b, axis=1)
    return _done(net, net.op("Conv", both, net.param(2, 5, 2, 2, zeros=0.8)))


@_zoo(SUMS, FEED_FORWARD)
def channel_shuffle() -> onnx.ModelProto:
    net = Net(seed=5)
    h = net.op("Conv", net.input(1, 4, 5, 5, name="image"), net.param(4, 2, 1, 1), group=2)
    parts = net.op("Reshape", h, net.ints(1, 2, 2, 5, 5))
    mixed = net.op("Reshape", net.op("Transpose", parts, perm=[0, 2, 1, 3, 4]), net.ints(1, 4, 5, 5))
    return _done(net, net.op("Conv", mixed, net.param(4, 2, 2, 2, zeros=0.3), group=2))


@_zoo(SUMS, FEED_FORWARD)
def nhwc_flatten() -> onnx.ModelProto:
    net = Net(seed=6)
    h = net.op("Conv", net.input(1, 2, 3, 3, name="image"), net.param(4, 2, 2, 2, zeros=0.6))
    flat = net.op("Flatten", net.op("Transpose", h, perm=[0, 2, 3, 1]), axis=1)
    weight = net.random(16, 3)
    weight[1::4] = 0.0
    weight[0::4, 2] = 0.0
    return _done(net, net.op("MatMul", flat, net.value(weight)))


@_zoo(SUMS, FEED_FORWARD)
def reversed_channels() -> onnx.ModelProto:
    net = Net(seed=7)
    h = net.op("Conv", net.input(1, 4, 3, 3, name="image"), net.param(4, 1, 1, 1), group=4)
    picked = net.op("Gather", h, net.ints(3, 1), axis=1)
    return _done(net, net.op("Conv", picked, net.param(2, 1, 3, 3), group=2))


@_zoo(SUMS, FEED_FORWARD)
def depthwise_with_multiplier() -> onnx.ModelProto:
    net = Net(seed=8)
    h = net.op("Conv", net.input(1, 3, 4, 4, name="image"), net.param(6, 1, 2, 2), group=3)
    return _done(net, net.op("Conv", h, net.param(3, 6, 1, 1, zeros=0.6)))


@_zoo(SUMS, FEED_FORWARD)
def one_dimensional_convolutions() -> onnx.ModelProto:
    net = Net(seed=9)
    audio = net.op("Unsqueeze", net.input(1, 12, name="audio"), net.ints(1))
    h = net.op("Conv", audio, net.param(4, 1, 3))
    return _done(net, net.op("Conv", h, net.param(3, 4, 2, zeros=0.7)))


@_zoo(SUMS, FEED_FORWARD)
def dense_net_sums() -> onnx.ModelProto:
    net = Net(seed=10)
    grown = net.input(1, 2, 4, 4, name="image")
    for width in (2, 4, 6):
        new = net.op("Conv", grown, net.param(2, width, 1, 1, zeros=0.5))
        grown = net.op("Concat", grown, new, axis=1)
    return _done(net, net.op("Conv", grown, net.param(2, 8, 1, 1, zeros=0.5)))


@_zoo(SUMS, FEED_FORWARD)
def einsum_dense() -> onnx.ModelProto:
    net = Net(seed=11)
    x = net.input(2, 3, 4, name="x")
    h = net.op("Einsum", x, net.param(4, 2, 3, zeros=0.6), equation="btd,dhf->bthf")
    h = net.op("Einsum", h, net.param(2, 3, 5, zeros=0.6), equation="bthf,hfe->bte")
    return _done(net, net.op("Einsum", net.param(2, 5, zeros=0.5), h, equation="oe,...e->...o"))


@_zoo(FEED_FORWARD)
def residual_mlp() -> onnx.ModelProto:
    net = Net(seed=21)
    x = net.input(2, 4, name="x")
    h = net.op("Tanh", net.dense(x, 5, zeros=0.5))
    y = net.op("Add", h, net.op("Tanh", net.dense(h, 5, fan_in=5, zeros=0.7)))
    return _done(net, net.dense(y, 3, fan_in=5, zeros=0.6), net.op("Sigmoid", h))


@_zoo(FEED_FORWARD)
def two_inputs_two_outputs() -> onnx.ModelProto:
    net = Net(seed=22)
    a = net.op("Tanh", net.dense(net.input(1, 3, name="a"), 4, zeros=0.5))
    b = net.op("Sigmoid", net.dense(net.input(1, 2, name="b"), 4, zeros=0.5))
    return _done(net, net.dense(net.op("Concat", a, b, axis=-1), 3, fan_in=8, zeros=0.7), net.op("Sub", a, b))


@_zoo(FEED_FORWARD)
def inverted_residual() -> onnx.ModelProto:
    net = Net(seed=23)
    x = net.input(1, 3, 5, 5, name="image")
    h = net.op("LeakyRelu", net.op("Conv", x, net.param(6, 3, 1, 1, zeros=0.6)), alpha=0.3)
    h = net.op("Elu", net.op("Conv", h, net.param(6, 1, 3, 3), group=6, pads=[1, 1, 1, 1]))
    return _done(net, net.op("Add", x, net.op("Conv", h, net.param(3, 6, 1, 1, zeros=0.6))))


def _heads(net: Net, x: str, n_heads: int, width: int, tokens: int) -> str:
    return net.op("Transpose", net.op("Reshape", x, net.ints(1, tokens, n_heads, width)), perm=[0, 2, 1, 3])


def _attend(net: Net, q: str, k: str, v: str, tokens: int, width: int) -> str:
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Softmax", net.op("Mul", scores, net.value(0.5)), axis=-1)
    context = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    return net.op("Reshape", context, net.ints(1, tokens, width))


@_zoo(FEED_FORWARD)
def multi_head_attention() -> onnx.ModelProto:
    net = Net(seed=24)
    x = net.input(1, 3, 5, name="tokens")
    q, k, v = (_heads(net, net.dense(x, 4, zeros=0.7), 2, 2, 3) for _ in range(3))
    return _done(net, net.dense(_attend(net, q, k, v, 3, 4), 3, fan_in=4, zeros=0.6))


@_zoo(FEED_FORWARD)
def packed_attention() -> onnx.ModelProto:
    net = Net(seed=25)
    packed = net.dense(net.input(1, 3, 4, name="tokens"), 12, zeros=0.7)
    q, k, v = net.ops("Split", 3, packed, net.ints(4, 4, 4), axis=-1)
    heads = [_heads(net, part, 2, 2, 3) for part in (q, k, v)]
    return _done(net, _attend(net, heads[0], heads[1], heads[2], 3, 4))


@_zoo(FEED_FORWARD)
def grouped_query_attention() -> onnx.ModelProto:
    net = Net(seed=26)
    x = net.input(1, 3, 4, name="tokens")
    q = _heads(net, net.dense(x, 8, zeros=0.8), 4, 2, 3)
    shared = []
    for _ in range(2):
        part = _heads(net, net.dense(x, 4, zeros=0.8), 2, 2, 3)
        spread = net.op("Expand", net.op("Unsqueeze", part, net.ints(2)), net.ints(1, 2, 2, 3, 2))
        shared.append(net.op("Reshape", spread, net.ints(1, 4, 3, 2)))
    return _done(net, net.dense(_attend(net, q, shared[0], shared[1], 3, 8), 3, fan_in=8, zeros=0.7))


@_zoo(FEED_FORWARD)
def einsum_attention() -> onnx.ModelProto:
    net = Net(seed=27)
    x = net.input(1, 3, 4, name="tokens")
    q, k, v = (
        net.op("Einsum", x, net.value(net.random(4, 4, zeros=0.7).reshape(4, 2, 2)), equation="btd,dhf->bthf")
        for _ in range(3)
    )
    scores = net.op("Softmax", net.op("Einsum", q, k, equation="bthf,bshf->bhts"), axis=-1)
    return _done(net, net.op("Einsum", scores, v, equation="bhts,bshf->bthf"))


@_zoo(FEED_FORWARD)
def swiglu() -> onnx.ModelProto:
    net = Net(seed=28)
    x = net.input(1, 4, name="x")
    gate = net.dense(x, 6, zeros=0.6)
    swish = net.op("Mul", gate, net.op("Sigmoid", gate))
    return _done(net, net.dense(net.op("Mul", swish, net.dense(x, 6, zeros=0.6)), 3, fan_in=6, zeros=0.6))


@_zoo(FEED_FORWARD)
def squeeze_excite() -> onnx.ModelProto:
    net = Net(seed=29)
    h = net.op("Conv", net.input(1, 3, 4, 4, name="image"), net.param(4, 3, 1, 1, zeros=0.6), net.param(4))
    squeezed = net.op("GlobalAveragePool", h)
    excited = net.op("Tanh", net.op("Conv", squeezed, net.param(3, 4, 1, 1, zeros=0.6)))
    excited = net.op("Sigmoid", net.op("Conv", excited, net.param(4, 3, 1, 1, zeros=0.6)))
    return _done(net, net.op("Conv", net.op("Mul", h, excited), net.param(2, 4, 1, 1, zeros=0.5)))


@_zoo(FEED_FORWARD)
def u_net() -> onnx.ModelProto:
    net = Net(seed=30)
    x = net.input(1, 2, 6, 6, name="image")
    down = net.op("Tanh", net.op("Conv", x, net.param(3, 2, 3, 3, zeros=0.8), pads=[1, 1, 1, 1]))
    low = net.op("MaxPool", down, kernel_shape=[2, 2], strides=[2, 2])
    low = net.op("Tanh", net.op("Conv", low, net.param(4, 3, 1, 1, zeros=0.6)))
    up = net.op("ConvTranspose", low, net.param(4, 3, 2, 2, zeros=0.8), strides=[2, 2])
    wide = net.op("Resize", low, "", net.value([1.0, 1.0, 2.0, 2.0]), mode="linear")
    joined = net.op("Concat", up, down, wide, axis=1)
    return _done(net, net.op("Conv", joined, net.param(2, 10, 1, 1, zeros=0.6)))


@_zoo(FEED_FORWARD)
def grouped_transposed_convolution() -> onnx.ModelProto:
    net = Net(seed=31)
    h = net.op("ConvTranspose", net.input(1, 4, 3, 3, name="image"), net.param(4, 3, 2, 2), group=2)
    return _done(net, net.op("Conv", h, net.param(3, 6, 1, 1, zeros=0.7)))


@_zoo(FEED_FORWARD)
def embedding_with_positions() -> onnx.ModelProto:
    net = Net(seed=32)
    ids = net.input(1, 3, name="ids", dtype=np.int64)
    words = net.op("Gather", net.param(7, 4, name="table"), ids)
    h = net.op("Add", words, net.param(1, 3, 4))
    return _done(net, net.dense(h, 3, fan_in=4, zeros=0.6))


@_zoo(FEED_FORWARD)
def batch_norm() -> onnx.ModelProto:
    net = Net(seed=33)
    h = net.op("Conv", net.input(1, 3, 3, 3, name="image"), net.param(4, 3, 1, 1, zeros=0.5))
    gamma = np.asarray([1.5, 0.0, -0.5, 1.0], np.float32)
    stats = (net.param(4), net.param(4), net.value(np.asarray([0.5, 1.0, 2.0, 1.5], np.float32)))
    h = net.op("BatchNormalization", h, net.value(gamma), *stats)
    return _done(net, net.op("Conv", net.op("Sigmoid", h), net.param(3, 4, 1, 1, zeros=0.4)))


@_zoo(FEED_FORWARD)
def pooling() -> onnx.ModelProto:
    net = Net(seed=34)
    h = net.op("Conv", net.input(1, 2, 6, 6, name="image"), net.param(3, 2, 1, 1, zeros=0.3))
    a = net.op("AveragePool", h, kernel_shape=[3, 3], strides=[3, 3])
    b = net.op("LpPool", h, kernel_shape=[3, 3], strides=[3, 3])
    flat = net.op("Flatten", net.op("Concat", a, b, axis=1))
    top = net.op("GlobalMaxPool", h)
    return _done(net, net.dense(flat, 3, fan_in=24, zeros=0.8), net.op("ReduceMean", top, axes=[2, 3]))


@_zoo(FEED_FORWARD)
def dense_net() -> onnx.ModelProto:
    net = Net(seed=35)
    grown = net.op("Conv", net.input(1, 2, 3, 3, name="image"), net.param(3, 2, 1, 1, zeros=0.3))
    for width in (3, 5):
        stats = [
            net.param(width),
            net.param(width),
            net.param(width),
            net.value(np.full(width, 1.2, np.float32)),
        ]
        h = net.op("Softplus", net.op("BatchNormalization", grown, *stats))
        grown = net.op("Concat", grown, net.op("Conv", h, net.param(2, width, 1, 1, zeros=0.5)), axis=1)
    return _done(net, net.op("Conv", grown, net.param(2, 7, 1, 1, zeros=0.5)))


@_zoo(FEED_FORWARD)
def maximum_and_choice() -> onnx.ModelProto:
    net = Net(seed=36)
    x = net.input(2, 4, name="x")
    a, b, c = (net.dense(x, 4, zeros=0.7) for _ in range(3))
    chosen = net.op("Where", net.op("Greater", a, net.value(0.1)), b, c)
    return _done(net, net.op("Max", a, b), net.op("Min", chosen, net.value(3.0)), net.op("Mean", a, b, c))


@_zoo(FEED_FORWARD)
def token_mixing() -> onnx.ModelProto:
    net = Net(seed=37)
    x = net.input(1, 3, 4, name="tokens")
    h = net.op("Tanh", net.dense(x, 4, zeros=0.6))
    return _done(net, net.dense(net.op("MatMul", net.param(5, 3), h), 2, fan_in=4, zeros=0.6))


@_zoo(FEED_FORWARD)
def stacked_experts() -> onnx.ModelProto:
    net = Net(seed=38)
    x = net.input(1, 2, 4, name="tokens")
    h = net.op("MatMul", net.op("Unsqueeze", x, net.ints(1)), net.param(3, 4, 2, zeros=0.6))
    return _done(net, net.op("MatMul", net.op("Tanh", h), net.param(3, 2, 3, zeros=0.5)))


@_zoo(FEED_FORWARD)
def one_hot_comparison() -> onnx.ModelProto:
    net = Net(seed=39)
    codes = net.op("Unsqueeze", net.op("Round", net.input(1, 5, name="bytes")), net.ints(-1))
    hot = net.op("Cast", net.op("Equal", codes, net.value(np.arange(-2, 3, dtype=np.float32))), to=1)
    return _done(net, net.dense(hot, 3, fan_in=5, zeros=0.5))


def _recurrent(op: str, gates: int, *, directions: int = 1, **attributes: Any) -> onnx.ModelProto:
    net = Net(seed=40 + gates + directions)
    hidden, steps = 4, 6
    inputs = [
        net.input(steps, 1, 3, name="sequence"),
        net.param(directions, gates * hidden, 3, zeros=0.75),
        net.param(directions, gates * hidden, hidden, zeros=0.8),
        net.param(directions, 2 * gates * hidden),
    ]
    if directions == 2:
        attributes["direction"] = "bidirectional"
    every, last = net.ops(op, 3 if op == "LSTM" else 2, *inputs, hidden_size=hidden, **attributes)[:2]
    flat = net.op(
        "Reshape", net.op("Transpose", every, perm=[0, 2, 1, 3]), net.ints(steps, 1, directions * hidden)
    )
    return _done(net, net.dense(flat, 3, fan_in=directions * hidden, zeros=0.6), last)


@_zoo(RECURRENT)
def lstm() -> onnx.ModelProto:
    return _recurrent("LSTM", 4)


@_zoo(RECURRENT)
def lstm_both_ways() -> onnx.ModelProto:
    return _recurrent("LSTM", 4, directions=2)


@_zoo(RECURRENT)
def gru() -> onnx.ModelProto:
    return _recurrent("GRU", 3)


@_zoo(RECURRENT)
def gru_reset_after() -> onnx.ModelProto:
    return _recurrent("GRU", 3, linear_before_reset=1)


@_zoo(RECURRENT)
def gru_both_ways() -> onnx.ModelProto:
    return _recurrent("GRU", 3, directions=2)


@_zoo(RECURRENT)
def rnn() -> onnx.ModelProto:
    return _recurrent("RNN", 1)


@_zoo(RECURRENT)
def rnn_both_ways() -> onnx.ModelProto:
    return _recurrent("RNN", 1, directions=2)


@_zoo(RECURRENT)
def lstm_with_states_and_peepholes() -> onnx.ModelProto:
    net = Net(seed=47)
    hidden = 3
    inputs = [
        net.input(5, 1, 2, name="sequence"),
        net.param(1, 4 * hidden, 2, zeros=0.8),
        net.param(1, 4 * hidden, hidden, zeros=0.8),
        net.param(1, 8 * hidden),
        "",
        net.input(1, 1, hidden, name="h0"),
        net.input(1, 1, hidden, name="c0"),
        net.param(1, 3 * hidden, zeros=0.5),
    ]
    return _done(net, *net.ops("LSTM", 3, *inputs, hidden_size=hidden))


@_zoo(NORMALISED)
def layer_norm() -> onnx.ModelProto:
    net = Net(seed=51)
    h = net.dense(net.input(1, 3, 4, name="tokens"), 4, zeros=0.6)
    normal = net.op("LayerNormalization", h, net.param(4), net.param(4), axis=-1)
    return _done(net, net.dense(normal, 3, fan_in=4, zeros=0.7))


def _written_layer_norm(net: Net, x: str, width: int) -> str:
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1]))
    variance = net.op("ReduceMean", net.op("Pow", centred, net.value(2.0)), axes=[-1])
    deviation = net.op("Sqrt", net.op("Add", variance, net.value(1e-5)))
    return net.op("Add", net.op("Mul", net.op("Div", centred, deviation), net.param(width)), net.param(width))


@_zoo(NORMALISED)
def layer_norm_written_out() -> onnx.ModelProto:
    net = Net(seed=52)
    h = net.dense(net.input(1, 3, 4, name="tokens"), 4, zeros=0.6)
    return _done(net, net.dense(_written_layer_norm(net, h, 4), 3, fan_in=4, zeros=0.7))


@_zoo(NORMALISED)
def rms_norm_written_out() -> onnx.ModelProto:
    net = Net(seed=53)
    h = net.dense(net.input(1, 3, 4, name="tokens"), 4, zeros=0.6)
    power = net.op("ReduceMean", net.op("Pow", h, net.value(2.0)), axes=[-1])
    root = net.op("Reciprocal", net.op("Sqrt", net.op("Add", power, net.value(1e-5))))
    normal = net.op("Mul", net.op("Mul", h, root), net.param(4))
    return _done(net, net.dense(normal, 3, fan_in=4, zeros=0.7))


@_zoo(NORMALISED)
def group_norm_written_out() -> onnx.ModelProto:
    net = Net(seed=54)
    h = net.op("Conv", net.input(1, 3, 3, 3, name="image"), net.param(4, 3, 1, 1, zeros=0.6))
    groups = net.op("Reshape", h, net.ints(1, 2, -1))
    ones, zeros = net.value(np.ones(2, np.float32)), net.value(np.zeros(2, np.float32))
    normal = net.op("Reshape", net.op("InstanceNormalization", groups, ones, zeros), net.ints(1, 4, 3, 3))
    normal = net.op("Add", net.op("Mul", normal, net.param(1, 4, 1, 1)), net.param(1, 4, 1, 1))
    return _done(net, net.op("Conv", normal, net.param(3, 4, 1, 1, zeros=0.7)))


@_zoo(NORMALISED)
def softmax_classes() -> onnx.ModelProto:
    net = Net(seed=55)
    return _done(net, net.op("Softmax", net.dense(net.input(1, 4, name="x"), 3, zeros=0.6), axis=-1))


@_zoo(NORMALISED)
def lrn() -> onnx.ModelProto:
    net = Net(seed=56)
    h = net.op("Conv", net.input(1, 2, 2, 2, name="image"), net.param(5, 2, 1, 1, zeros=0.5))
    normal = net.op("LRN", h, size=3, alpha=0.5, beta=0.75, bias=1.0)
    return _done(net, net.op("Conv", normal, net.param(3, 5, 1, 1, zeros=0.7)))
