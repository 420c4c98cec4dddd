"""Operations on quantized tensors against the numeric oracle: codes in between, floats at both ends."""

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from edgesink import reach
from nets import Net
from numpy.typing import NDArray
from pathtruth import WITH_STATE, assert_norm_truth, assert_path_bounds, assert_path_truth, influence
from tracedmodel import Runner, Traced, trace_model

from emergraph.graphstore.records import PATH_KINDS, EdgeKind

MS = "com.microsoft"
STEP = 0.125
"""Scale of all activations: codes reach 16 either way."""
Build = Callable[[Net], str]


def net_of(seed: int = 1) -> Net:
    return Net(seed=seed, opset=17, domains={MS: 1})


def scalar(net: Net, value: float, kind: type[np.generic] = np.float32) -> str:
    return net.value(np.asarray(value, kind))


def parameters(net: Net) -> tuple[str, str]:
    return scalar(net, STEP), scalar(net, 3, np.int8)


def quantized(net: Net, *shape: int) -> str:
    return net.op("QuantizeLinear", net.input(*shape, name="x"), *parameters(net))


def back(net: Net, codes: str, **domain: Any) -> str:
    return net.op("DequantizeLinear", codes, *parameters(net), **domain)


def again(net: Net, codes: str) -> str:
    """The same codes by way of floats, where a unit can be perturbed."""
    return net.op("QuantizeLinear", back(net, codes), *parameters(net))


def codes(net: Net, *shape: int, zero: int = 0) -> NDArray[np.int8]:
    values = net.rng.integers(40, 100, shape) * net.rng.choice([-1, 1], shape)
    values[net.rng.random(shape) < 0.5] = zero
    values.reshape(-1, shape[-1])[0] = 50
    values[..., 0] = 60
    return values.astype(np.int8)


def dense(net: Net, x: str, fan_in: int, width: int) -> str:
    weight = [net.value(codes(net, fan_in, width)), scalar(net, 0.01), scalar(net, 0, np.int8)]
    return net.op("QLinearMatMul", x, *parameters(net), *weight, *parameters(net))


def two(net: Net) -> tuple[str, str]:
    x = quantized(net, 2, 4)
    return again(net, dense(net, x, 4, 4)), again(net, dense(net, x, 4, 4))


def twin(op: str, **attributes: Any) -> Build:
    """An operation of one operand behind a dense layer."""

    def build(net: Net) -> str:
        x = again(net, dense(net, quantized(net, 1, 2, 4), 4, 4))
        out = net.op(op, x, *parameters(net), *parameters(net), domain=MS, **attributes)
        return back(net, dense(net, again(net, out), 4, 3))

    return build


def image(net: Net, op: str, **attributes: Any) -> str:
    weight = [net.value(codes(net, 3, 2, 1, 1)), scalar(net, 0.01), scalar(net, 0, np.int8)]
    bias = net.value(np.asarray([100, -100, 0], np.int32))
    x = quantized(net, 1, 2, 4, 4)
    h = net.op("QLinearConv", x, *parameters(net), *weight, *parameters(net), bias)
    if op == "QLinearConv":
        return back(net, h)
    return back(net, net.op(op, again(net, h), *parameters(net), *parameters(net), domain=MS, **attributes))


def joined(op: str) -> Build:
    def build(net: Net) -> str:
        a, b = two(net)
        return back(net, net.op(op, a, *parameters(net), b, *parameters(net), *parameters(net), domain=MS))

    return build


def with_constant(net: Net) -> str:
    a, _ = two(net)
    b = [net.value(codes(net, 4)), scalar(net, 0.01), scalar(net, 0, np.int8)]
    return back(net, net.op("QLinearAdd", a, *parameters(net), *b, *parameters(net), domain=MS))


def concat(net: Net) -> str:
    a, b = two(net)
    items = [a, *parameters(net), b, *parameters(net)]
    return back(net, dense(net, net.op("QLinearConcat", *parameters(net), *items, domain=MS, axis=1), 8, 3))


def choice(net: Net) -> str:
    a, b = two(net)
    mask = net.value(np.asarray([True, False, True, False]))
    inputs = [mask, a, *parameters(net), b, *parameters(net), *parameters(net)]
    return back(net, net.op("QLinearWhere", *inputs, domain=MS))


def qgemm(net: Net) -> str:
    x = quantized(net, 2, 4)
    weight = [net.value(codes(net, 3, 4)), scalar(net, 0.01), scalar(net, 0, np.int8)]
    bias = net.value(np.asarray([100, -200, 300], np.int32))
    inputs = [x, *parameters(net), *weight, bias, *parameters(net)]
    return back(net, net.op("QGemm", *inputs, domain=MS, transB=1))


def integer_to_float(net: Net) -> str:
    step, zero = parameters(net)
    x = quantized(net, 2, 4)
    inputs = [x, net.value(codes(net, 4, 3)), step, scalar(net, 0.01), zero, scalar(net, 0, np.int8)]
    return net.op("MatMulIntegerToFloat", *inputs, net.param(3), domain=MS)


def n_bits(bits: int, *, zero: bool) -> Build:
    def build(net: Net) -> str:
        n, k, block = 5, 20, 16
        values = net.rng.integers(0, 1 << bits, (n, -(-k // block), block)).astype(np.uint8)
        middle = 3 if zero else 1 << (bits - 1)
        values[net.rng.random(values.shape) < 0.6] = middle
        values[:, 0, 0], values[0] = 0, 1
        inputs = [net.input(2, k, name="x"), net.value(packed(values, bits)), net.param(n, 2)]
        if zero:
            points = packed(np.full((n, 2), middle, np.uint8), bits)
            inputs.append(net.value(points))
        return net.op("MatMulNBits", *inputs, domain=MS, N=n, K=k, bits=bits, block_size=block)

    return build


def packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis packed into bytes, the lowest bits first; the last byte is filled up."""
    per_byte = 8 // bits
    missing = -values.shape[-1] % per_byte
    filled = np.concatenate([values, np.zeros((*values.shape[:-1], missing), np.uint8)], axis=-1)
    groups = filled.reshape(*values.shape[:-1], -1, per_byte).astype(np.int64)
    return (groups << (np.arange(per_byte) * bits)).sum(axis=-1).astype(np.uint8)


def bnb4(quant_type: int) -> Build:
    """Six of ten codes stand for zero; the bytes have their first code in the high half."""

    def build(net: Net) -> str:
        n, k, block = 5, 24, 16
        zeros = (7,) if quant_type else (0, 8)
        values = net.rng.integers(0, 16, n * k).astype(np.uint8)
        values[net.rng.random(n * k) < 0.6] = net.rng.choice(zeros)
        halves = values.reshape(-1, 2)[:, ::-1].reshape(-1)
        largest = (net.rng.random(-(-n * k // block)) + 0.5).astype(np.float32)
        inputs = [net.input(2, k, name="x"), net.value(packed(halves, 4), name="b"), net.value(largest)]
        attributes = {"N": n, "K": k, "block_size": block, "quant_type": quant_type}
        return net.op("MatMulBnb4", *inputs, domain=MS, **attributes)

    return build


EXACT: dict[str, Build] = {
    "MatMulBnb4 of fp4": bnb4(0),
    "MatMulBnb4 of nf4": bnb4(1),
    "QLinearMatMul": lambda n: back(n, dense(n, again(n, dense(n, quantized(n, 2, 4), 4, 5)), 5, 3)),
    "QLinearConv": lambda n: image(n, "QLinearConv"),
    "QLinearAdd": joined("QLinearAdd"),
    "QLinearAdd of a constant": with_constant,
    "QLinearMul": joined("QLinearMul"),
    "QLinearConcat": concat,
    "QLinearWhere": choice,
    "QLinearSigmoid": twin("QLinearSigmoid"),
    "QLinearLeakyRelu": twin("QLinearLeakyRelu", alpha=0.5),
    "QLinearAveragePool": lambda n: image(n, "QLinearAveragePool", kernel_shape=[2, 2]),
    "QLinearGlobalAveragePool": lambda n: image(n, "QLinearGlobalAveragePool"),
    "QGemm": qgemm,
    "MatMulIntegerToFloat": integer_to_float,
    "MatMulNBits of 4 bits": n_bits(4, zero=True),
    "MatMulNBits of 8 bits": n_bits(8, zero=False),
    "QuantizeLinear of onnxruntime": lambda n: back(n, dense(n, _own(n), 4, 3), domain=MS),
}


def _own(net: Net) -> str:
    return net.op("QuantizeLinear", net.input(2, 4, name="x"), *parameters(net), domain=MS)


@pytest.mark.parametrize("op", EXACT)
def test_influence_is_what_the_graph_says(op):
    net = net_of()
    net.output(EXACT[op](net))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert_path_truth(traced, draws=6, size=6.0)


def qattention(net: Net) -> str:
    weight = codes(net, 4, 12)
    weight[:2, 4:8], weight[2:, 8:] = 0, 0
    step, zero = scalar(net, STEP), scalar(net, 128, np.uint8)
    x = net.op("QuantizeLinear", net.input(1, 3, 4, name="x"), step, zero)
    inputs = [x, net.value(weight), net.param(12), step, scalar(net, 0.01), "", zero, scalar(net, 0, np.int8)]
    return net.op("QAttention", *inputs, domain=MS, num_heads=2)


def test_quantized_attention():
    net = net_of()
    net.output(qattention(net))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert_path_truth(traced, draws=4, size=2.0)


def test_a_quantized_softmax_has_a_hub():
    net = net_of()
    x = again(net, dense(net, quantized(net, 1, 4), 4, 4))
    fine = [scalar(net, 1 / 256), scalar(net, -128, np.int8)]
    probabilities = net.op("QLinearSoftmax", x, *parameters(net), *fine, domain=MS, axis=-1, opset=13)
    net.output(net.op("DequantizeLinear", probabilities, *fine))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert_path_bounds(traced, draws=6)
    assert_norm_truth(traced, draws=6)


def test_pools_of_codes_with_channels_last():
    net = net_of()
    x = quantized(net, 1, 4, 4, 2)
    h = net.op(
        "QLinearAveragePool",
        x,
        *parameters(net),
        *parameters(net),
        domain=MS,
        channels_last=1,
        kernel_shape=[2, 2],
    )
    net.output(
        back(
            net,
            net.op(
                "QLinearGlobalAveragePool",
                again(net, h),
                *parameters(net),
                *parameters(net),
                domain=MS,
                channels_last=1,
            ),
        )
    )
    traced = trace_model(net.model())
    # Nothing says which axis of this input are its units: all of its elements are.
    assert not traced.summary.opaque
    assert_path_truth(traced, draws=6, size=6.0)


def assert_claims_hold(traced: Traced, kinds: Sequence[EdgeKind]) -> None:
    """The scale that is taken from the data counts as a constant: what the graph claims happens, and more."""
    found = influence(traced, draws=4, size=3.0)
    expected = reach(traced.sink, kinds)
    assert found.sources
    for unit in found.sources:
        assert found.changed[unit][expected[unit] & found.observed].all()


def test_a_dense_layer_that_quantizes_its_input():
    net = net_of()
    weight = codes(net, 4, 3)
    inputs = [
        net.input(2, 4, name="x"),
        net.value(weight, name="w"),
        scalar(net, 0.01),
        scalar(net, 0, np.int8),
    ]
    net.output(net.op("DynamicQuantizeMatMul", *inputs, net.param(3), domain=MS))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert traced.sink.connections() == np.count_nonzero(weight)
    assert_claims_hold(traced, PATH_KINDS)


def edges_of(traced: Traced) -> list[tuple[str, int, int, float | None]]:
    found = []
    for block in traced.sink.blocks:
        weights = block.weight.round(6).tolist() if block.has_weight else [None] * block.src.size
        kinds = [str(block.block.kind)] * block.src.size
        found += list(zip(kinds, block.src.tolist(), block.dst.tolist(), weights, strict=True))
    return sorted(found, key=str)


def test_a_quantized_lstm_is_the_lstm_of_its_dequantized_weights():
    hidden, width, steps = 3, 2, 4
    graphs = []
    for is_quantized in (True, False):
        net = net_of()
        w, r = codes(net, 1, width, 4 * hidden), codes(net, 1, hidden, 4 * hidden)
        scale = np.full((1, 4 * hidden), 0.01, np.float32)
        zero = np.zeros((1, 4 * hidden), np.int8)
        x, bias = net.input(steps, 1, width, name="sequence"), net.param(1, 8 * hidden)
        if is_quantized:
            extra = [net.value(v) for v in (scale, zero, scale, zero)]
            inputs = [x, net.value(w, name="w"), net.value(r, name="r"), bias, "", "", "", "", *extra]
            outputs = net.ops("DynamicQuantizeLSTM", 3, *inputs, domain=MS, hidden_size=hidden)
        else:
            floats = [(q.astype(np.float32) * scale[:, None]).swapaxes(1, 2) for q in (w, r)]
            outputs = net.ops("LSTM", 3, x, *map(net.value, floats), bias, hidden_size=hidden)
        net.output(*outputs)
        graphs.append(trace_model(net.model()))
        if is_quantized:
            assert graphs[0].sink.tensors["w"].n_zeros == np.count_nonzero(w == 0)
    assert edges_of(graphs[0]) == edges_of(graphs[1])
    assert_claims_hold(graphs[0], WITH_STATE)


@pytest.mark.parametrize(("axis", "block"), [(0, 0), (1, 0), (1, 2)], ids=["rows", "columns", "blocks"])
def test_zero_points_per_channel_or_block_are_the_zeros_of_the_stored_tensor(axis, block):
    net = Net(seed=1, opset=21)
    shape = (4, 6)
    zero = net.rng.integers(-5, 5, (4, 3) if block else shape[axis]).astype(np.int8)
    whole = (
        np.repeat(zero, 2, axis=1)
        if block
        else np.broadcast_to(zero.reshape(-1, 1) if axis == 0 else zero, shape)
    )
    stored = np.where(net.rng.random(shape) < 0.4, whole, codes(net, *shape)).astype(np.int8)
    scale = net.value(np.full(zero.shape, 0.5, np.float32))
    attributes = {"axis": axis, **({"block_size": block} if block else {})}
    w = net.op("DequantizeLinear", net.value(stored, name="w"), scale, net.value(zero), **attributes)
    net.output(net.op("MatMul", net.input(2, 4, name="x"), w))
    traced = trace_model(net.model())
    assert traced.sink.tensors["w"].n_zeros == np.count_nonzero(stored == whole)
    assert traced.sink.connections() == np.count_nonzero(stored != whole)
    assert_path_truth(traced)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packed_weights_are_counted_one_by_one(bits):
    net = Net(seed=4, domains={MS: 1})
    n, k = 3, 20
    values = net.rng.integers(0, 1 << bits, (n, 2, 16)).astype(np.uint8)
    inputs = [net.input(2, k, name="x"), net.value(packed(values, bits)), net.param(n, 2)]
    net.output(net.op("MatMulNBits", *inputs, domain=MS, N=n, K=k, bits=bits, block_size=16))
    sink = trace_model(net.model()).sink
    middle = 1 << (bits - 1)
    assert [(la.n_params, la.n_zeros) for la in sink.layers] == [
        (0, 0),
        (n * k, int((values.reshape(n, -1)[:, :k] == middle).sum())),
    ]


@pytest.mark.parametrize("quant_type", [0, 1])
def test_weights_of_four_bits_are_those_that_onnxruntime_multiplies_with(quant_type):
    net = net_of()
    out = bnb4(quant_type)(net)
    net.output(out)
    traced = trace_model(net.model())
    runner = Runner(traced.model)
    ones = np.eye(24, dtype=np.float32)[:, None].repeat(2, 1)
    weights = np.stack([runner.run({"x": one})[out][0] for one in ones])
    (block,) = traced.sink.into(traced.sink.layers[-1].name)
    found = np.zeros((24, 5))
    found[block.src, block.dst - traced.sink.layers[-1].first_unit] = block.weight
    assert np.allclose(found, weights, atol=1e-6)
    layer = traced.sink.layers[-1]
    assert (layer.n_params, layer.n_zeros) == (120, 120 - np.count_nonzero(weights))


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(
    ("stored", "bits"), [(np.uint8, 4), (np.uint8, 8), (ml_dtypes.uint4, 4), (ml_dtypes.int4, 4)]
)
def test_tables_in_blocks_are_those_that_onnxruntime_looks_up(stored, bits, zero):
    rows, width, block = 6, 32, 16
    net = Net(seed=5, opset=21, domains={MS: 1})
    low, high = (-8, 8) if stored is ml_dtypes.int4 else (0, 1 << bits)

    def pack(values):
        return packed(values.astype(np.uint8), bits) if stored is np.uint8 else values.astype(stored)

    values = net.rng.integers(low, high, (rows, width))
    points = net.rng.integers(low, high, (rows, width // block))
    scales = net.value((net.rng.random((rows, width // block)) + 0.5).astype(np.float32))
    extra = [net.value(pack(points))] if zero else []
    at = net.input(rows, name="at", dtype=np.int64)
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": block, "bits": bits}
    names = [net.value(pack(values), name="table"), at, scales, *extra]
    out = net.op("GatherBlockQuantized", *names, domain=MS, **attributes)
    net.output(out)
    traced = trace_model(net.model(), {"at": np.arange(rows)})
    table = traced.values[out]
    _, layer = traced.sink.layers
    (looked_up,) = traced.sink.into(layer.name)
    assert (layer.n_units, layer.n_params) == (width, rows * width)
    assert layer.n_zeros == np.count_nonzero(table == 0)
    order = np.argsort(looked_up.dst)
    assert np.allclose(looked_up.weight[order], table.sum(0), atol=1e-5)
    assert np.allclose(looked_up.l1[order], np.abs(table).sum(0), atol=1e-5)


@pytest.mark.parametrize("op", ["Sub", "Add"])
@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_dequantization_that_is_written_out_counts_as_one(op, per_axis, turned):
    """Cast, Sub, Mul: the scale and the zero point are no weights, and a code at the zero point is a zero."""
    net = Net(seed=5, opset=17)
    shape = (4, 6)
    zero = net.rng.integers(3, 9, 6 if per_axis else ()).astype(np.uint8)
    stored = np.where(net.rng.random(shape) < 0.4, zero, net.rng.integers(0, 99, shape)).astype(np.uint8)
    name = net.value(stored.T.copy() if turned else stored, name="w")
    h = net.op("Transpose", name, perm=[1, 0]) if turned else name
    h = net.op("Cast", h, to=1)
    if op == "Sub":
        h = net.op("Sub", h, net.op("Cast", net.value(zero), to=1))
    else:
        h = net.op("Add", h, net.value(-zero.astype(np.float32)))
    h = net.op("Mul", h, net.value(np.full(6, 0.5, np.float32)))
    net.output(net.op("MatMul", net.input(2, 4, name="x"), h))
    sink = trace_model(net.model()).sink
    dense = sink.layers[-1]
    assert (dense.n_params, dense.n_zeros) == (24, int((stored == zero).sum()))
    assert dense.dtype == "uint8"
    assert sorted({t.role for t in sink.tensors.values()}) == ["quantization", "weight"]


def test_gains_behind_a_dequantization_are_parameters():
    net = Net(seed=6, opset=17)
    stored = net.value(net.rng.integers(-9, 9, (4, 6)).astype(np.int8))
    w = net.op("DequantizeLinear", stored, net.value(np.float32(0.5)))
    w = net.op("Mul", w, net.param(6))
    net.output(net.op("MatMul", net.input(2, 4, name="x"), w))
    assert trace_model(net.model()).sink.layers[-1].n_params == 30


def test_shapes_and_indices_behind_a_weight_are_no_parameters():
    """A bias that is made of the weight's size, as torch exports convolutions; a sliced weight."""
    net = Net(seed=7, opset=17)
    weight = net.param(6, 3, 1, 1)
    size = net.op("Gather", net.op("Shape", weight), net.ints(0))
    net.output(net.op("Conv", net.input(1, 3, 4, 4, name="x"), weight, net.op("ConstantOfShape", size)))
    assert trace_model(net.model()).sink.layers[-1].n_params == 18
    net = Net(seed=8, opset=17)
    weight = net.op("Slice", net.param(4, 6), net.ints(0), net.ints(3), net.ints(1))
    net.output(net.op("MatMul", net.input(2, 4, name="x"), weight))
    assert trace_model(net.model()).sink.layers[-1].n_params == 24
