"""Small transformers for tests, one operation at a time: what stands at their positions is up to the test."""

import numpy as np
from nets import Net

WIDTH, HEADS, HIDDEN = 6, 2, 7


def linear(net: Net, x: str, outs: int, name: str, ins: int = WIDTH) -> str:
    """A dense layer with a bias, its weight called by the layer's name."""
    product = net.op("MatMul", x, net.param(ins, outs, name=name), name=name)
    return net.op("Add", product, net.param(outs))


def normed(net: Net, x: str) -> str:
    """RMS norm, written out."""
    square = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1], keepdims=1)
    return net.op("Mul", net.op("Div", x, net.op("Sqrt", square)), net.param(WIDTH))


def heads(net: Net, x: str) -> str:
    """(1, heads, tokens, features) of (1, tokens, heads * features)."""
    split = net.op("Reshape", x, net.ints(0, -1, HEADS, WIDTH // HEADS))
    return net.op("Transpose", split, perm=[0, 2, 1, 3])


def attended(net: Net, x: str, stem: str, *, scores=lambda s: s, turn=lambda t: t) -> str:
    """Self-attention; `turn` is applied to queries and keys, `scores` to what softmax reads."""
    q, k, v = (heads(net, linear(net, x, WIDTH, f"{stem}.{p}")) for p in "qkv")
    product = net.op("MatMul", turn(q), net.op("Transpose", turn(k), perm=[0, 1, 3, 2]))
    context = net.op("MatMul", net.op("Softmax", scores(product), axis=-1), v)
    back = net.op("Reshape", net.op("Transpose", context, perm=[0, 2, 1, 3]), net.ints(0, -1, WIDTH))
    return linear(net, back, WIDTH, f"{stem}.o")


def block(net: Net, x: str, stem: str, **how) -> str:
    """Attention and a gated MLP, both residual."""
    x = net.op("Add", x, attended(net, normed(net, x), stem, **how))
    y = normed(net, x)
    gate, up = (linear(net, y, HIDDEN, f"{stem}.{p}") for p in ("gate", "up"))
    gated = net.op("Mul", net.op("Mul", gate, net.op("Sigmoid", gate)), up)
    return net.op("Add", x, linear(net, gated, WIDTH, f"{stem}.down", HIDDEN))


def tokens(net: Net, n: int = 4, ins: int = 3, name: str = "x") -> str:
    """(1, n, WIDTH) from an input of n tokens through a dense layer."""
    return linear(net, net.input(1, n, ins, name=name), WIDTH, f"{name}.in", ins)


def finish(net: Net, x: str, take=None):
    """Two blocks behind x, a head on one token or all, and the model."""
    x = block(net, block(net, x, "b0"), "b1")
    if take is not None:
        x = net.op("Gather", x, net.value(np.asarray(take, np.int64)), axis=1)
    net.output(linear(net, normed(net, x), 2, "head"))
    return net.model()
