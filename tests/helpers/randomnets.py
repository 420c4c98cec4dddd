"""Random small nets, grown piece by piece from the pieces that real models are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from nets import Net

Draw = Callable[[st.SearchStrategy[Any]], Any]
_SIZE = 4
_TOKENS = 3


@dataclass
class Growth:
    """A net and the tensors that further pieces can read: images (1, C, 4, 4) or tokens (1, 3, C)."""

    net: Net
    draw: Draw
    shelf: list[tuple[str, int]] = field(default_factory=list)
    """(tensor, channels or features)."""

    def pick(self) -> tuple[str, int]:
        """One of the latest tensors."""
        back = int(self.draw(st.integers(0, min(2, len(self.shelf) - 1))))
        return self.shelf[-1 - back]

    def put(self, name: str, width: int) -> None:
        """Let further pieces read a tensor."""
        self.shelf.append((name, width))

    def width(self) -> int:
        """A number of channels."""
        return int(self.draw(st.sampled_from([2, 4])))


def _conv(g: Growth) -> None:
    x, c = g.pick()
    out = g.width()
    g.put(g.net.op("Conv", x, g.net.param(out, c, 1, 1, zeros=0.6)), out)


def _depthwise(g: Growth) -> None:
    x, c = g.pick()
    times = g.draw(st.integers(1, 2))
    g.put(g.net.op("Conv", x, g.net.param(c * times, 1, 1, 1), group=c), c * times)


def _grouped(g: Growth) -> None:
    x, c = g.pick()
    g.put(g.net.op("Conv", x, g.net.param(4, c // 2, 1, 1), group=2), 4)


def _residual(g: Growth) -> None:
    x, c = g.pick()
    g.put(g.net.op("Add", x, g.net.op("Conv", x, g.net.param(c, c, 1, 1, zeros=0.7))), c)


def _concat(g: Growth) -> None:
    (a, n), (b, m) = g.pick(), g.pick()
    if n + m <= 8:
        g.put(g.net.op("Concat", a, b, axis=1), n + m)


def _shuffle(g: Growth) -> None:
    x, c = g.pick()
    parts = g.net.op("Reshape", x, g.net.ints(1, 2, c // 2, _SIZE, _SIZE))
    mixed = g.net.op("Transpose", parts, perm=[0, 2, 1, 3, 4])
    g.put(g.net.op("Reshape", mixed, g.net.ints(1, c, _SIZE, _SIZE)), c)


def _pick_channels(g: Growth) -> None:
    x, c = g.pick()
    chosen = [g.draw(st.integers(0, c - 1)) for _ in range(2)]
    g.put(g.net.op("Gather", x, g.net.ints(*chosen), axis=1), 2)


def _wide_conv(g: Growth) -> None:
    x, c = g.pick()
    out = g.width()
    weight = g.net.param(out, c, 3, 3, zeros=0.9)
    g.put(g.net.op("Conv", x, weight, g.net.param(out), pads=[1, 1, 1, 1]), out)


def _activation(g: Growth) -> None:
    x, c = g.pick()
    g.put(g.net.op("Softsign" if g.draw(st.booleans()) else "LeakyRelu", x), c)


def _batch_norm(g: Growth) -> None:
    x, c = g.pick()
    stats = [g.net.param(c), g.net.param(c), g.net.param(c), g.net.value(np.full(c, 1.3, np.float32))]
    g.put(g.net.op("BatchNormalization", x, *stats), c)


def _gate(g: Growth) -> None:
    x, c = g.pick()
    biased = g.net.op("Conv", x, g.net.param(c, c, 1, 1, zeros=0.5), g.net.param(c))
    g.put(g.net.op("Mul", x, g.net.op("Sigmoid", biased)), c)


def _squeeze_excite(g: Growth) -> None:
    x, c = g.pick()
    pooled = g.net.op("GlobalAveragePool", x)
    excited = g.net.op(
        "Sigmoid", g.net.op("Conv", pooled, g.net.param(c, c, 1, 1, zeros=0.5), g.net.param(c))
    )
    g.put(g.net.op("Mul", x, excited), c)


def _smooth(g: Growth) -> None:
    x, c = g.pick()
    g.put(g.net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), c)


def _flat_head(g: Growth) -> str:
    x, c = g.pick()
    if g.draw(st.booleans()):
        x = g.net.op("Transpose", x, perm=[0, 2, 3, 1])
    flat = g.net.op("Flatten", x)
    return g.net.op("MatMul", flat, g.net.param(c * _SIZE * _SIZE, 2, zeros=0.9))


_SUM_PIECES = (_conv, _depthwise, _grouped, _residual, _concat, _shuffle, _pick_channels)
_IMAGE_PIECES = (*_SUM_PIECES, _wide_conv, _activation, _batch_norm, _gate, _squeeze_excite, _smooth)


def _grow(draw: Draw, pieces: tuple[Callable[[Growth], None], ...]) -> onnx.ModelProto:
    net = Net(seed=draw(st.integers(0, 2**16)))
    g = Growth(net, draw)
    g.put(net.input(1, 4, _SIZE, _SIZE, name="image"), 4)
    for _ in range(draw(st.integers(2, 6))):
        pieces[draw(st.integers(0, len(pieces) - 1))](g)
    last = g.shelf[-1][0]
    net.output(_flat_head(g), *([last] if last != "image" else []))
    return net.model()


@st.composite
def sum_nets(draw: Draw) -> onnx.ModelProto:
    """Nets of sums only over images."""
    return _grow(draw, _SUM_PIECES)


@st.composite
def image_nets(draw: Draw) -> onnx.ModelProto:
    """Convolutional nets with activations, gates and pools."""
    return _grow(draw, _IMAGE_PIECES)


def _project(g: Growth, x: str, fan_in: int, width: int) -> str:
    product = g.net.op("MatMul", x, g.net.param(fan_in, width, zeros=0.6))
    return g.net.op("Add", product, g.net.param(width))


def _dense(g: Growth) -> None:
    x, c = g.pick()
    width = g.width()
    g.put(_project(g, x, c, width), width)


def _dense_residual(g: Growth) -> None:
    x, c = g.pick()
    g.put(g.net.op("Add", g.net.op("Softsign", _project(g, x, c, c)), x), c)


def _glu(g: Growth) -> None:
    x, c = g.pick()
    a, b = g.net.ops("Split", 2, _project(g, x, c, 8), g.net.ints(4, 4), axis=-1)
    g.put(g.net.op("Mul", a, g.net.op("Sigmoid", b)), 4)


def _split_heads(g: Growth, x: str, fan_in: int) -> str:
    parts = g.net.op("Reshape", _project(g, x, fan_in, 4), g.net.ints(1, _TOKENS, 2, 2))
    return g.net.op("Transpose", parts, perm=[0, 2, 1, 3])


def _attention(g: Growth) -> None:
    x, c = g.pick()
    q, k, v = (_split_heads(g, x, c) for _ in range(3))
    scores = g.net.op("MatMul", q, g.net.op("Transpose", k, perm=[0, 1, 3, 2]))
    weights = g.net.op("Softmax", g.net.op("Mul", scores, g.net.value(0.4)), axis=-1)
    heads = g.net.op("Transpose", g.net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    g.put(g.net.op("Reshape", heads, g.net.ints(1, _TOKENS, 4)), 4)


def _features(g: Growth) -> None:
    (a, n), (b, m) = g.pick(), g.pick()
    if n + m <= 8:
        g.put(g.net.op("Concat", a, b, axis=-1), n + m)


def _bend(g: Growth) -> None:
    x, c = g.pick()
    g.put(g.net.op("Softsign", x), c)


@st.composite
def token_nets(draw: Draw) -> onnx.ModelProto:
    """Nets over tokens: dense layers, residuals, gated units, attention."""
    net = Net(seed=draw(st.integers(0, 2**16)))
    g = Growth(net, draw)
    g.put(net.input(1, _TOKENS, 4, name="tokens"), 4)
    pieces = (_dense, _dense_residual, _glu, _attention, _features, _bend)
    _dense(g)
    for _ in range(draw(st.integers(1, 4))):
        pieces[draw(st.integers(0, len(pieces) - 1))](g)
    net.output(g.shelf[-1][0])
    return net.model()
