"""A small decoder-like model for tests: an embedding and residual blocks with attention, for any length."""

import numpy as np
from nets import Net

VOCABULARY, WIDTH = 9, 6


def _attended(net, x):
    q, k, v = (net.dense(x, WIDTH, fan_in=WIDTH, bias=False) for _ in range(3))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1]))
    weights = net.op("Softmax", net.op("Mul", scores, net.value(0.2)), axis=-1)
    return net.op("MatMul", weights, v)


def decoder(*, n_blocks=2, attention=True, seed=3):
    """The model, and names of the tensors before the first block and after each."""
    net = Net(seed=seed)
    ids = net.input(1, 3, name="ids", dtype=np.int64)
    x = net.op("Gather", net.param(VOCABULARY, WIDTH, name="table"), ids, name="embedding")
    shift = net.op("Gather", net.param(VOCABULARY, WIDTH), ids, name="extra")
    x = net.op("Add", x, shift, name="start")
    states = [x]
    for block in range(n_blocks):
        if attention:
            x = net.op("Add", x, _attended(net, x), name=f"attended_{block}")
        hidden = net.op("Tanh", net.dense(x, 8, fan_in=WIDTH))
        x = net.op("Add", x, net.dense(hidden, WIDTH, fan_in=8), name=f"block_{block}")
        states.append(x)
    net.output(net.dense(x, 4, fan_in=WIDTH))
    return net.model(), states
