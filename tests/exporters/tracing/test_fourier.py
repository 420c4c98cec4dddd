"""Fourier transforms are contractions with the weights that the operations define."""

from unittest import mock

import numpy as np
import pytest
from edgesink import reach
from nets import Net
from pathtruth import influence
from tracedmodel import trace_model

from emergraph.exporters.tracing.rules import fourier
from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind


def _units(net, shape, name="x"):
    """An activation whose elements are different units, and the layer that makes them."""
    size = int(np.prod(shape))
    made = net.op("MatMul", net.input(1, 2, name=name), net.param(2, size, name="w"), name="w")
    return net.op("Reshape", made, net.ints(*shape))


VARIANTS = [
    (17, (1, 5, 1), {"axis": 1}, None),
    (17, (1, 5, 1), {"axis": 1, "onesided": 1}, None),
    (17, (1, 5, 2), {}, None),
    (17, (1, 5, 2), {"inverse": 1}, None),
    (20, (1, 6, 1), {"onesided": 1}, None),
    (20, (1, 6, 1), {}, 8),
    (20, (1, 6, 2), {}, 4),
    (20, (1, 6, 2), {"inverse": 1}, None),
    (20, (6, 1), {"onesided": 1}, None),
]


@pytest.mark.parametrize(("opset", "shape", "attributes", "length"), VARIANTS)
def test_edges_are_the_matrix_of_the_operation(opset, shape, attributes, length):
    net = Net(opset=opset)
    x = _units(net, shape)
    given = [] if length is None else [net.value(np.asarray(length))]
    out = net.op("DFT", x, *given, name="dft", **attributes)
    net.output(out)
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    source, target = traced.sink.layer("w"), traced.sink.layer("dft")
    assert target.kind is LayerKind.DENSE
    assert target.n_units == traced.values[out].size
    matrix = np.zeros((source.n_units, target.n_units))
    for b in traced.sink.of_kind(EdgeKind.WEIGHT):
        if b.block.layer == target.id:
            matrix[b.src - source.first_unit, b.dst - target.first_unit] = b.weight
    assert (np.abs(matrix[matrix != 0]) > 1e-9).all(), "what rounding leaves of a zero is no edge"
    expected = traced.values[out].ravel()
    assert np.allclose(traced.values[x].ravel() @ matrix, expected, atol=1e-5)


def test_inverse_of_half_a_spectrum_gives_real_values():
    forward = fourier.transform(6, 1, 6, inverse=False, onesided=True).reshape(6, -1)
    back = fourier.transform(4, 2, 6, inverse=True, onesided=True)
    assert back.shape == (4, 2, 6, 1)
    assert np.allclose(forward @ back.reshape(8, 6), np.eye(6))


def _spectrogram(net, *, window=True, complex_parts=False):
    signal = net.input(1, 24, 2 if complex_parts else 1, name="x")
    weight = net.value(net.random(8), name="window") if window else ""
    extra = {"onesided": 0} if complex_parts else {}
    out = net.op(
        "STFT", signal, net.value(np.asarray(4)), weight, net.value(np.asarray(8)), name="stft", **extra
    )
    net.output(out)
    return out


@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("complex_parts", [True, False])
def test_short_time_transform_is_a_strided_convolution(window, complex_parts):
    net = Net(opset=17)
    out = _spectrogram(net, window=window, complex_parts=complex_parts)
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    assert traced.summary.n_parameters_understood == traced.summary.n_parameters
    layer = traced.sink.layer("stft")
    assert layer.kind is LayerKind.CONV
    assert layer.n_units == traced.values[out][0, 0].size
    assert layer.activation_tensor == out
    x = traced.sink.layer("x")
    assert x.n_units == (2 if complex_parts else 1), "samples are positions that the window slides over"
    found = influence(traced, draws=2, noise=1e-4)
    reached = reach(traced.sink, PATH_KINDS)
    for unit in found.sources:
        assert (found.changed[unit] <= reached[unit]).all()
    (block,) = [b for b in traced.sink.of_kind(EdgeKind.WEIGHT) if b.block.layer == layer.id]
    values = traced.model.graph.initializer
    taps = next((np.frombuffer(t.raw_data, np.float32) for t in values if t.name == "window"), np.ones(8))
    constant = block.weight[(block.dst == layer.first_unit) & (block.src == x.first_unit)]
    assert np.allclose(constant, taps.sum(), atol=1e-5), "the mean of a frame is the sum of the window"


def test_filters_behind_a_spectrogram_are_understood():
    net = Net(opset=17)
    power = net.op("ReduceSumSquare", _spectrogram(net), axes=[-1], keepdims=0)
    mel = net.op("MatMul", power, net.value(np.abs(net.random(5, 3)), name="mel"), name="mel")
    net.output(net.op("MatMul", net.op("Log", mel), net.param(3, 2, name="head"), name="head"))
    traced = trace_model(net.model())
    layers = {
        la.name: (la.n_units, la.split_by) for la in traced.sink.layers if la.kind is not LayerKind.INPUT
    }
    assert (layers["stft"], layers["mel"], layers["head"]) == ((10, None), (3, None), (2, None))
    assert traced.summary.n_parameters_understood == traced.summary.n_parameters


@pytest.mark.parametrize(("room", "is_opaque"), [(5 * 1 * 5 * 2, False), (5 * 1 * 5 * 2 - 1, True)])
def test_a_matrix_that_is_too_large_is_named(room, is_opaque):
    net = Net(opset=20)
    net.output(net.op("DFT", _units(net, (1, 5, 1)), name="dft"))
    with mock.patch.object(fourier, "_MAX_ELEMENTS", room):
        traced = trace_model(net.model())
    reasons = [op.reason for op in traced.summary.opaque]
    assert reasons == (["DFT whose matrix has 50 elements, more than 49"] if is_opaque else [])
