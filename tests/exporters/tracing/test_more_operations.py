"""Rarer operations against the numeric oracle: attention with caches, indicators, bits, fused sums."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import helper
from pathtruth import PATH_KINDS, assert_norm_truth, assert_path_bounds, assert_path_truth, reach
from tracedmodel import trace_model

from emergraph.graphstore.records import EdgeKind

MS = "com.microsoft"
Build = Callable[[Net], str]
LOGIC = ("And", "Or", "Xor")


def net_of(seed: int = 1, opset: int = 18) -> Net:
    return Net(seed=seed, opset=opset, domains={MS: 1})


def tokens(net: Net, width: int = 4) -> str:
    return net.input(1, 3, width, name="x")


def dense(net: Net, x: str, fan_in: int, width: int, zeros: float = 0.6) -> str:
    return net.op("Add", net.op("MatMul", x, net.param(fan_in, width, zeros=zeros)), net.param(width))


def ms(net: Net, op: str, *inputs: str, **attributes: Any) -> str:
    return net.op(op, *inputs, domain=MS, **attributes)


def grouped_query(*, packed: bool) -> Build:
    """Four query heads over two heads of keys and values, of eight features each."""

    def build(net: Net) -> str:
        x = tokens(net)
        widths = [32, 16, 16]
        parts = [dense(net, x, 4, width, zeros=0.8) for width in widths]
        qkv = [net.op("Concat", *parts, axis=2), "", ""] if packed else parts
        length = [net.value(np.asarray([2], np.int32)), net.value(np.asarray(3, np.int32))]
        inputs = [*qkv, "", "", *length]
        return ms(net, "GroupQueryAttention", *inputs, num_heads=4, kv_num_heads=2)

    return build


def rotated_query(net: Net, *, interleaved: int, fused: bool = True, n_out: int = 1) -> list[str]:
    """Two query heads over one of 16 features, rotated by the attention or before it."""
    x = tokens(net)
    q, k, v = (dense(net, x, 4, width, zeros=0.9) for width in (32, 16, 16))
    length = [net.value(np.asarray([2], np.int32)), net.value(np.asarray(3, np.int32))]
    angles = net.rng.uniform(0.2, 1.2, (3, 8)).astype(np.float32)
    table = [net.value(np.cos(angles)), net.value(np.sin(angles))]
    if not fused:
        turned = {"interleaved": interleaved}
        at = net.value(np.arange(3)[None])
        q = ms(net, "RotaryEmbedding", q, at, *table, num_heads=2, **turned)
        k = ms(net, "RotaryEmbedding", k, at, *table, num_heads=1, **turned)
    sizes = {"num_heads": 2, "kv_num_heads": 1}
    if fused:
        sizes |= {"do_rotary": 1, "rotary_interleaved": interleaved}
    inputs = [q, k, v, "", "", *length, *(table if fused else [])]
    return net.ops("GroupQueryAttention", n_out, *inputs, domain=MS, **sizes)


def linear_attention(rule: str) -> Build:
    def build(net: Net) -> str:
        x = tokens(net)
        q, k, v = (dense(net, x, 4, width, zeros=0.7) for width in (8, 4, 6))
        gates = {"linear": [], "gated": ["decay"], "delta": ["", "beta"], "gated_delta": ["decay", "beta"]}
        made = [net.op("Sigmoid", dense(net, x, 4, 2)) if gate else "" for gate in gates[rule]]
        inputs = [q, k, v, "", *[net.op("Neg", g) if k == 0 and g else g for k, g in enumerate(made)]]
        sizes = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule}
        return net.ops("LinearAttention", 2, *inputs, domain=MS, **sizes)[0]

    return build


def rotary(net: Net) -> str:
    angles = net.rng.uniform(0.2, 1.2, (3, 2)).astype(np.float32)
    inputs = [dense(net, tokens(net), 4, 8), net.value(np.arange(3)[None]), net.value(np.cos(angles))]
    out = ms(net, "RotaryEmbedding", *inputs, net.value(np.sin(angles)), num_heads=2)
    return net.op("MatMul", out, net.param(8, 3, zeros=0.5))


def bits(op: str, **attributes: Any) -> Build:
    def build(net: Net) -> str:
        whole = net.op("Cast", net.op("Abs", net.input(2, 4, name="x")), to=onnx.TensorProto.UINT8)
        other = [] if op == "BitwiseNot" else [net.value(np.asarray([1, 3, 2, 1], np.uint8))]
        return net.op("Cast", net.op(op, whole, *other, **attributes), to=onnx.TensorProto.FLOAT)

    return build


def logic(op: str) -> Build:
    def build(net: Net) -> str:
        x = net.input(2, 4, name="x")
        sides = [net.op("Greater", net.dense(x, 3, zeros=0.7), net.value(0.1)) for _ in range(2)]
        whole = net.op("Cast", net.op(op, *sides), to=onnx.TensorProto.FLOAT)
        return net.dense(whole, 2, fan_in=3, zeros=0.5)

    return build


def indicator(op: str) -> Build:
    def build(net: Net) -> str:
        h = net.dense(net.input(2, 4, name="x"), 3, zeros=0.6)
        return net.dense(net.op("Cast", net.op(op, h, net.value(0.2)), to=1), 2, fan_in=3, zeros=0.5)

    return build


def one_hot(net: Net) -> str:
    code = net.op("Cast", net.op("Abs", net.input(1, 5, name="codes")), to=onnx.TensorProto.INT64)
    hot = net.op("OneHot", code, net.value(np.asarray(4, np.int64)), net.value([0.0, 1.0]), axis=-1)
    return net.dense(hot, 3, fan_in=4, zeros=0.5)


def regions(net: Net) -> str:
    h = net.op("Conv", net.input(1, 2, 4, 4, name="x"), net.param(3, 2, 1, 1, zeros=0.5))
    where = net.value(np.asarray([[0, 0, 0, 3, 3], [0, 1, 1, 2, 2]], np.float32))
    return net.op("MaxRoiPool", h, where, pooled_shape=[2, 2])


def aligned(net: Net) -> str:
    h = net.op("Conv", net.input(1, 2, 4, 4, name="x"), net.param(3, 2, 1, 1, zeros=0.5))
    where = net.value(np.asarray([[0, 0, 3, 3], [1, 1, 2, 2]], np.float32))
    inputs = [h, where, net.value(np.zeros(2, np.int64))]
    return net.op("RoiAlign", *inputs, output_height=2, output_width=2)


EXACT: dict[str, Build] = {
    "GroupQueryAttention": grouped_query(packed=False),
    "GroupQueryAttention, packed": grouped_query(packed=True),
    "GroupQueryAttention that rotates": lambda n: rotated_query(n, interleaved=0)[0],
    **{
        f"LinearAttention, {rule}": linear_attention(rule)
        for rule in ("linear", "gated", "delta", "gated_delta")
    },
    "RotaryEmbedding of onnxruntime": rotary,
    "TransposeMatMul": lambda n: ms(n, "TransposeMatMul", tokens(n), n.param(5, 4, zeros=0.6), transB=1),
    "FusedMatMul, both swapped and scaled": lambda n: ms(
        n, "FusedMatMul", n.input(4, 2, name="x"), n.param(5, 4, zeros=0.6), transA=1, transB=1, alpha=0.5
    ),
    "Exp": lambda n: n.dense(n.op("Exp", n.input(2, 4, name="x")), 3, fan_in=4, zeros=0.5),
    "Mish": lambda n: n.dense(n.op("Mish", n.input(2, 4, name="x")), 3, fan_in=4, zeros=0.5),
    **{op: bits(op) for op in ("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")},
    "BitShift": bits("BitShift", direction="LEFT"),
    **{op: logic(op) for op in LOGIC},
    **{op: indicator(op) for op in ("GreaterOrEqual", "LessOrEqual", "Less")},
    "OneHot": one_hot,
    "MaxRoiPool": regions,
    "RoiAlign": aligned,
}


@pytest.mark.parametrize("op", EXACT)
def test_influence_is_what_the_graph_says(op):
    net = net_of()
    net.output(EXACT[op](net))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    draws, size = (40, 5.0) if op in LOGIC else (8, 2.0)
    assert_path_truth(traced, draws=draws, size=size)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_keys_that_the_attention_rotates_are_cached_rotated(interleaved):
    sinks = []
    for fused in (True, False):
        net = net_of()
        out, keys, _ = rotated_query(net, interleaved=interleaved, fused=fused, n_out=3)
        net.output(out)
        net.output(net.op("MatMul", keys, net.param(16, 3, zeros=0.8)))
        sinks.append(trace_model(net.model()).sink)
    fused, written = sinks
    for kind in (EdgeKind.WEIGHT, EdgeKind.IDENTITY, EdgeKind.ATTENTION):
        assert fused.count(kind) == written.count(kind) > 0
    reached = [np.sort(reach(sink, PATH_KINDS).sum(axis=1)) for sink in sinks]
    np.testing.assert_array_equal(*reached)


def test_the_factor_of_a_fused_product_is_in_its_weights():
    net = net_of()
    net.output(EXACT["FusedMatMul, both swapped and scaled"](net))
    weights = trace_model(net.model()).sink.of_kind(EdgeKind.WEIGHT)[0].weight
    stored = onnx.numpy_helper.to_array(net.model().graph.initializer[0])
    np.testing.assert_allclose(np.sort(weights), np.sort(0.5 * stored[stored != 0]), rtol=1e-6)


def functions(net: Net, name: str, inputs: list[str], nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """The model with an operation that onnxruntime has on other devices only, defined by a function."""
    model = net.model()
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function(MS, name, inputs, ["y"], nodes, opsets))
    return model


def test_a_bias_and_a_skip_connection():
    net = net_of(opset=20)
    x = tokens(net)
    net.output(ms(net, "BiasAdd", dense(net, x, 4, 4), net.param(4), dense(net, x, 4, 4)))
    sums = [helper.make_node("Sum", ["x", "b", "skip"], ["y"])]
    traced = trace_model(functions(net, "BiasAdd", ["x", "b", "skip"], sums))
    assert not traced.summary.opaque
    assert_path_truth(traced)


def test_a_gated_gelu_multiplies_one_half_by_the_other():
    net = net_of(opset=20)
    net.output(ms(net, "BiasSplitGelu", dense(net, tokens(net), 4, 6), net.param(6)))
    nodes = [
        helper.make_node("Add", ["x", "b"], ["s"]),
        helper.make_node("Split", ["s"], ["first", "second"], axis=-1, num_outputs=2),
        helper.make_node("Softplus", ["second"], ["bent"]),
        helper.make_node("Mul", ["first", "bent"], ["y"]),
    ]
    traced = trace_model(functions(net, "BiasSplitGelu", ["x", "b"], nodes))
    assert not traced.summary.opaque
    assert traced.sink.count(EdgeKind.GATE) == 6
    assert_path_truth(traced)


def embedded(net: Net, *, fused: bool) -> str:
    ids = net.input(1, 3, name="ids", dtype=np.int64)
    tables = [net.param(6, 4, zeros=0.2), net.param(5, 4), net.param(2, 4, zeros=0.2)]
    gamma, beta = net.param(4), net.param(4)
    segments = net.op("Cast", net.input(1, 3, name="kinds", dtype=np.int64), to=6)
    if fused:
        inputs = [net.op("Cast", ids, to=6), segments, *tables, gamma, beta]
        return net.ops("EmbedLayerNormalization", 2, *inputs, domain=MS, epsilon=1e-5)[0]
    positions = net.op("Slice", tables[1], net.ints(0), net.ints(3), net.ints(0))
    looked_up = [net.op("Gather", tables[0], ids), net.op("Gather", tables[2], segments)]
    total = net.op("Add", net.op("Add", *looked_up), positions)
    return net.op("LayerNormalization", total, gamma, beta, axis=-1)


def test_fused_embeddings_are_the_embeddings_written_out():
    graphs = []
    for fused in (True, False):
        net = net_of()
        net.output(net.op("MatMul", embedded(net, fused=fused), net.param(4, 3, zeros=0.4)))
        graphs.append(trace_model(net.model()))
    fused, written = (g.sink for g in graphs)
    for kind in (EdgeKind.WEIGHT, EdgeKind.IDENTITY, EdgeKind.NORM):
        assert fused.count(kind) == written.count(kind) > 0
    weights = [
        np.sort(np.concatenate([b.weight for b in s.of_kind(EdgeKind.WEIGHT)])) for s in (fused, written)
    ]
    np.testing.assert_allclose(*weights)
    assert graphs[0].summary.n_parameters_understood == graphs[0].summary.n_parameters
    assert_path_bounds(graphs[0])
    assert_norm_truth(graphs[0])


def test_the_simplified_normalisation_of_onnxruntime_has_a_hub():
    net = net_of()
    h = dense(net, tokens(net), 4, 4)
    net.output(dense(net, net.op("SimplifiedLayerNormalization", h, net.param(4), axis=-1), 4, 3))
    traced = trace_model(net.model())
    assert traced.sink.count(EdgeKind.NORM)
    assert_path_bounds(traced)
    assert_norm_truth(traced)


def test_hardmax_compares_all_classes():
    net = net_of()
    h = net.dense(net.input(2, 4, name="x"), 3, zeros=0.6)
    net.output(net.op("Hardmax", h, axis=-1))
    traced = trace_model(net.model())
    assert traced.sink.count(EdgeKind.NORM)
    assert_path_bounds(traced, draws=20)


def test_running_products_over_positions():
    net = net_of(opset=26)
    h = net.dense(net.input(3, 4, name="x"), 3, zeros=0.6)
    net.output(net.op("CumProd", h, net.value(np.asarray(0))))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert_path_truth(traced)
