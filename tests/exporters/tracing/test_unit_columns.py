"""Biases, scales and shifts of units: what stands between a contraction and what reads it."""

from typing import Any

import numpy as np
from edgesink import EdgeSink
from nets import Net, initializer
from tracedmodel import trace_model

from emergraph.graphstore.records import Role


def columns(sink: EdgeSink, layer: str) -> Any:
    return sink.columns_of(sink.layer(layer))


def test_a_bias_of_a_convolution_and_the_fold_of_batch_norm():
    net = Net(seed=1)
    bias = net.param(3, name="bias")
    h = net.op("Conv", net.input(1, 2, 3, 3), net.param(3, 2, 1, 1), bias, name="conv")
    names = ("gamma", "beta", "mean")
    stats = [net.param(3, name=n) for n in names]
    h = net.op("BatchNormalization", h, *stats, net.value([0.5, 1.0, 2.0], name="var"), epsilon=1e-3)
    net.output(net.op("Conv", net.op("Relu", h), net.param(1, 3, 1, 1), name="last"))
    model = net.model()
    found = columns(trace_model(model).sink, "conv")
    gamma, beta, mean, var = (initializer(model, n).astype(np.float64) for n in (*names, "var"))
    scale = gamma / np.sqrt(var + 1e-3)
    np.testing.assert_allclose(found.bias, initializer(model, "bias"))
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(found.shift, beta - mean * scale, rtol=1e-6)
    assert found.activation == "Relu"
    assert found.role is Role.HIDDEN


def test_a_bias_added_behind_a_product():
    net = Net(seed=2)
    h = net.op("MatMul", net.input(1, 3), net.param(3, 4), name="dense")
    out = net.op("Add", h, net.param(4, name="bias"))
    net.output(out)
    model = net.model()
    found = columns(trace_model(model).sink, "dense")
    np.testing.assert_allclose(found.bias, initializer(model, "bias"))
    assert found.shift is None
    assert found.role is Role.OUTPUT


def test_gemm_scales_its_bias_by_beta():
    net = Net(seed=3)
    net.output(
        net.op("Gemm", net.input(2, 3), net.param(3, 4), net.param(4, name="c"), beta=0.5, name="gemm")
    )
    model = net.model()
    np.testing.assert_allclose(columns(trace_model(model).sink, "gemm").bias, 0.5 * initializer(model, "c"))


def test_scales_and_shifts_follow_each_other():
    net = Net(seed=4)
    h = net.op("Gemm", net.input(2, 3), net.param(3, 2), net.value([1.0, 2.0]), name="gemm")
    h = net.op("Div", net.op("Sub", h, net.value([3.0, 5.0])), net.value([2.0, 4.0]))
    net.output(net.op("Add", net.op("Neg", h), net.value(1.0)))
    found = columns(trace_model(net.model()).sink, "gemm")
    np.testing.assert_allclose(found.bias, [1.0 - 3.0, 2.0 - 5.0])
    np.testing.assert_allclose(found.scale, [-0.5, -0.25])
    np.testing.assert_allclose(found.shift, [1.0, 1.0])


def test_mean_with_a_constant_scales_and_shifts():
    net = Net(seed=5)
    h = net.op("MatMul", net.input(2, 3), net.param(3, 2), name="dense")
    net.output(net.op("Mean", h, net.value([3.0, 6.0]), net.value([0.0, 3.0])))
    found = columns(trace_model(net.model()).sink, "dense")
    np.testing.assert_allclose(found.scale, [1 / 3, 1 / 3])
    np.testing.assert_allclose(found.shift, [1.0, 3.0])


def test_a_factor_that_differs_within_a_unit_is_not_a_number():
    net = Net(seed=6)
    h = net.op("Conv", net.input(1, 1, 1, 2), net.param(2, 1, 1, 1), name="conv")
    factor = np.asarray([[[[1.0, 2.0]], [[3.0, 3.0]]]], np.float32)
    net.output(net.op("Mul", h, net.value(factor)))
    scale = columns(trace_model(net.model()).sink, "conv").scale
    assert scale is not None
    assert np.isnan(scale[0])
    assert scale[1] == 3.0


def test_a_sum_over_positions_is_a_scale_and_a_mean_is_none():
    net = Net(seed=7)
    h = net.op("Conv", net.input(1, 1, 2, 3), net.param(2, 1, 1, 1), name="conv")
    summed = net.op("ReduceSum", h, net.ints(2, 3), keepdims=0)
    net.output(net.op("MatMul", summed, net.param(2, 1)))
    found = columns(trace_model(net.model()).sink, "conv")
    np.testing.assert_allclose(found.scale, [6.0, 6.0])
    net = Net(seed=7)
    h = net.op("Conv", net.input(1, 1, 2, 3), net.param(2, 1, 1, 1), name="conv")
    mean = net.op("ReduceMean", h, axes=[2, 3], keepdims=0)
    net.output(net.op("MatMul", mean, net.param(2, 1)))
    assert columns(trace_model(net.model()).sink, "conv").scale is None


def test_recurrent_biases_are_both_added():
    net = Net(seed=8)
    bias = net.random(1, 8 * 3)
    inputs = [net.input(4, 1, 2), net.param(1, 12, 2), net.param(1, 12, 3), net.value(bias)]
    net.output(net.ops("LSTM", 1, *inputs, hidden_size=3, name="rnn")[0])
    found = columns(trace_model(net.model()).sink, "rnn:gates").bias
    np.testing.assert_allclose(found, bias[0, :12].astype(np.float64) + bias[0, 12:])


def test_the_activation_of_an_rnn_is_the_one_it_names():
    net = Net(seed=9)
    inputs = [net.input(4, 1, 2), net.param(1, 3, 2), net.param(1, 3, 3)]
    net.output(net.ops("RNN", 1, *inputs, hidden_size=3, activations=["Relu"], name="rnn")[0])
    assert columns(trace_model(net.model()).sink, "rnn").activation == "Relu"
