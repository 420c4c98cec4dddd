"""Operations that the onnx package has no float model for: onnxruntime's own, quantized and rare ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgesink import reach
from nets import Net
from pathtruth import assert_norm_truth, assert_path_bounds, assert_path_truth, influence
from tracedmodel import trace_model

from emergraph.exporters.tracing.rules import reduction
from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind

MS = "com.microsoft"
Build = Callable[[Net], str]


def net_of(seed: int = 1) -> Net:
    return Net(seed=seed, domains={MS: 1, "ai.onnx.ml": 1})


def tokens(net: Net, width: int = 4) -> str:
    return net.input(1, 3, width, name="x")


def dense(net: Net, x: str, fan_in: int, width: int) -> str:
    return net.op("Add", net.op("MatMul", x, net.param(fan_in, width, zeros=0.6)), net.param(width))


def ms(net: Net, op: str, *inputs: str, **attributes: Any) -> str:
    return net.op(op, *inputs, domain=MS, **attributes)


def _multi_head(net: Net) -> str:
    x = tokens(net)
    return ms(net, "MultiHeadAttention", *(dense(net, x, 4, 4) for _ in range(3)), num_heads=2)


EXACT: dict[str, Build] = {
    "BiasGelu": lambda n: ms(n, "BiasGelu", dense(n, tokens(n), 4, 4), n.param(4)),
    "FastGelu": lambda n: ms(n, "FastGelu", dense(n, tokens(n), 4, 4), n.param(4)),
    "Gelu": lambda n: ms(n, "Gelu", dense(n, tokens(n), 4, 4)),
    "QuickGelu": lambda n: ms(n, "QuickGelu", dense(n, tokens(n), 4, 4), alpha=1.702),
    "FusedMatMul": lambda n: ms(n, "FusedMatMul", tokens(n), n.param(5, 4, zeros=0.6), transB=1),
    "FusedGemm": lambda n: ms(
        n,
        "FusedGemm",
        n.input(2, 4, name="x"),
        n.param(4, 3, zeros=0.5),
        n.param(3),
        activation="LeakyRelu",
        alpha=1.0,
        beta=1.0,
        transA=0,
        transB=0,
        activation_alpha=0.1,
    ),
    "FusedConv": lambda n: ms(
        n,
        "FusedConv",
        n.input(1, 3, 3, 3, name="x"),
        n.param(4, 3, 1, 1, zeros=0.6),
        n.param(4),
        activation="Tanh",
    ),
    "MultiHeadAttention": _multi_head,
    "Attention": lambda n: ms(n, "Attention", tokens(n), n.param(4, 12, zeros=0.6), n.param(12), num_heads=2),
    "Trilu": lambda n: n.op("MatMul", n.op("Trilu", n.input(4, 4, name="x")), n.param(4, 3, zeros=0.5)),
    "CumSum": lambda n: n.op("CumSum", dense(n, tokens(n), 4, 4), n.value(np.asarray(1))),
    "CumSum over units": lambda n: n.op("CumSum", dense(n, tokens(n), 4, 4), n.value(np.asarray(-1))),
    "CumSum before, from the end": lambda n: n.op(
        "CumSum", dense(n, tokens(n), 4, 4), n.value(np.asarray(2)), exclusive=1, reverse=1
    ),
    "ReduceLogSumExp": lambda n: n.op(
        "MatMul",
        n.op("ReduceLogSumExp", dense(n, tokens(n), 4, 4), axes=[1], keepdims=0),
        n.param(4, 2, zeros=0.4),
    ),
    "GlobalLpPool": lambda n: n.op(
        "GlobalLpPool",
        n.op("Conv", n.input(1, 2, 3, 3, name="x"), n.param(3, 2, 1, 1, zeros=0.4), n.param(3)),
    ),
    "Scaler": lambda n: n.op(
        "MatMul",
        n.op(
            "Scaler",
            n.input(2, 3, name="x"),
            domain="ai.onnx.ml",
            offset=[1.0, 2.0, 3.0],
            scale=[2.0, 0.0, 1.0],
        ),
        n.param(3, 2),
    ),
}


@pytest.mark.parametrize("op", EXACT)
def test_influence_is_what_the_graph_says(op):
    net = net_of()
    net.output(EXACT[op](net))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert_path_truth(traced, draws=4)


@pytest.mark.parametrize(("exclusive", "reverse"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_running_sum_counts_what_it_has_seen(exclusive, reverse):
    net = net_of()
    x = dense(net, tokens(net), 4, 5)
    out = net.op("CumSum", x, net.value(np.asarray(2)), exclusive=exclusive, reverse=reverse)
    net.output(out)
    traced = trace_model(net.model())
    layer = next(la for la in traced.sink.layers if la.kind is LayerKind.REDUCTION)
    first = next(la for la in traced.sink.layers if la.kind is LayerKind.DENSE).first_unit
    seen = np.zeros((5, 5))
    (block,) = traced.sink.into(layer.name)
    at = {int(unit): k for k, unit in enumerate(traced.labels[out][0, 0]) if unit >= 0}
    seen[[at[int(unit)] for unit in block.dst], block.src - first] = block.weight
    expected = np.tril(np.ones((5, 5)), -exclusive)
    assert np.array_equal(seen, expected[::-1, ::-1] if reverse else expected)
    assert (traced.labels[out][0, 0] < 0).sum() == exclusive


@pytest.mark.parametrize("limit", [25, 24])
def test_running_sums_over_many_units(monkeypatch, limit):
    monkeypatch.setattr(reduction, "MAX_SEEN", limit)
    net = net_of()
    net.output(net.op("CumSum", dense(net, tokens(net), 4, 5), net.value(np.asarray(2))))
    reasons = [op.reason for op in trace_model(net.model()).summary.opaque]
    reason = "CumSum over 5 different units, whose pairs are too many to follow"
    assert reasons == ([] if limit == 25 else [reason])


NORMS: dict[str, Build] = {
    "SkipLayerNormalization": lambda n: ms(
        n, "SkipLayerNormalization", *_two(n), n.param(4), n.param(4), n.param(4)
    ),
    "SkipSimplifiedLayerNormalization": lambda n: ms(
        n, "SkipSimplifiedLayerNormalization", *_two(n), n.param(4)
    ),
}


def _two(net: Net) -> tuple[str, str]:
    x = tokens(net)
    return dense(net, x, 4, 4), dense(net, x, 4, 4)


@pytest.mark.parametrize("op", NORMS)
def test_fused_norms_have_a_hub(op):
    net = net_of(seed=2)
    net.output(net.op("MatMul", NORMS[op](net), net.param(4, 2, zeros=0.4)))
    traced = trace_model(net.model())
    assert traced.sink.count(EdgeKind.NORM)
    assert_path_bounds(traced)
    assert_norm_truth(traced)


def codes(net: Net, *shape: int) -> np.ndarray:
    values = net.rng.integers(-100, 100, shape)
    values[net.rng.random(shape) < 0.5] = 0
    return values.astype(np.int8)


def dynamic_matmul(net: Net, weight: np.ndarray) -> str:
    x = net.input(2, weight.shape[0], name="x")
    q, scale, zero = net.ops("DynamicQuantizeLinear", 3, x)
    whole = net.op("MatMulInteger", q, net.value(weight, name="w"), zero, net.value(np.asarray(0, np.int8)))
    by = net.op("Mul", scale, net.value(np.full(weight.shape[1], 0.01, np.float32)))
    return net.op("Mul", net.op("Cast", whole, to=1), by)


def dynamic_convolution(net: Net, weight: np.ndarray) -> str:
    x = net.input(1, weight.shape[1], 3, 3, name="x")
    q, scale, zero = net.ops("DynamicQuantizeLinear", 3, x)
    whole = net.op("ConvInteger", q, net.value(weight, name="w"), zero, net.value(np.asarray(0, np.int8)))
    return net.op("Mul", net.op("Cast", whole, to=1), scale)


@pytest.mark.parametrize(
    ("build", "shape"), [(dynamic_matmul, (5, 4)), (dynamic_convolution, (4, 3, 1, 1))], ids=["dense", "conv"]
)
def test_dynamic_quantization_has_an_edge_for_every_code_that_is_not_its_zero_point(build, shape):
    net = net_of(seed=3)
    weight = codes(net, *shape)
    net.output(build(net, weight))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert traced.sink.connections() == np.count_nonzero(weight)
    assert traced.sink.tensors["w"].n_zeros == weight.size - np.count_nonzero(weight)
    # The scale that is taken from the data counts as a constant: what the graph claims happens, and more.
    found = influence(traced, draws=3, size=2.0)
    expected = reach(traced.sink, PATH_KINDS)
    for unit in found.sources:
        assert found.changed[unit][expected[unit] & found.observed].all()


@pytest.mark.parametrize("zero", [0, 3, -7])
def test_a_static_quantized_weight_is_no_edge_at_its_zero_point(zero):
    net = net_of(seed=4)
    weight = codes(net, 4, 5)
    weight[weight == 0] = zero
    stored = net.value(weight, name="w")
    w = net.op("DequantizeLinear", stored, net.value(np.float32(0.02)), net.value(np.asarray(zero, np.int8)))
    net.output(net.op("MatMul", net.input(2, 4, name="x"), w))
    traced = trace_model(net.model())
    expected = (weight.astype(np.float32) - zero) * np.float32(0.02)
    block = traced.sink.of_kind(EdgeKind.WEIGHT)[0]
    np.testing.assert_allclose(np.sort(block.weight), np.sort(expected[expected != 0]), rtol=1e-6)
    assert_path_truth(traced)
