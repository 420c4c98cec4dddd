"""Files in training mode and of old versions: what is exported, and what is said about it."""

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import TensorProto

from emergraph.exporters.export import export_onnx
from emergraph.exporters.traces.record import record_trace
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.store import open_store

RNG = np.random.default_rng(0)


def exported(tmp_path, net):
    """The summary's warnings and the reader's units of a net."""
    onnx.save(net.model(), tmp_path / "net.onnx")
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        trace = export_onnx(tmp_path / "net.onnx", store).trace
        return trace, store.graph().units(), store.graph().layers()


def normalised(opset, outputs=1, **settings):
    net = Net(opset=opset, seed=1)
    h = net.op("Conv", net.input(2, 3, 5, 5, name="x"), net.param(4, 3, 3, 3))
    names = ("s", "o", "m", "v")
    parameters = [net.value(np.abs(RNG.standard_normal(4)) + 0.5, name=name) for name in names]
    h, *_ = net.ops("BatchNormalization", outputs, h, *parameters, **settings)
    net.output(net.op("Relu", h))
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in net.initializers}
    return net, *(held[name].astype(np.float64) for name in names)


@pytest.mark.parametrize(
    ("opset", "outputs", "settings"),
    [(15, 3, {"training_mode": 1}), (14, 3, {"training_mode": 1}), (9, 5, {}), (6, 1, {"is_test": 0})],
)
def test_scale_and_shift_are_not_those_of_statistics_that_do_not_count(tmp_path, opset, outputs, settings):
    net, s, o, _, _ = normalised(opset, outputs, **settings)
    trace, units, _ = exported(tmp_path, net)
    hidden = units.filter(units["role"] != "input")
    np.testing.assert_allclose(hidden["scale"], s, rtol=1e-6)
    np.testing.assert_allclose(hidden["shift"], o, rtol=1e-6)
    (said,) = trace.warnings
    assert said.startswith("training mode: BatchNormalization normalises each batch by its own statistics")


@pytest.mark.parametrize(("opset", "settings"), [(15, {}), (13, {}), (9, {}), (6, {"is_test": 1})])
def test_stored_statistics_count_in_inference(tmp_path, opset, settings):
    net, s, o, m, v = normalised(opset, **settings)
    trace, units, _ = exported(tmp_path, net)
    hidden = units.filter(units["role"] != "input")
    factor = s / np.sqrt(v + 1e-5)
    np.testing.assert_allclose(hidden["scale"], factor, rtol=1e-6)
    np.testing.assert_allclose(hidden["shift"], o - m * factor, rtol=1e-5)
    assert trace.warnings == ()


def dropped(opset, **settings):
    net = Net(opset=opset, seed=2)
    h = net.op("MatMul", net.input(1, 6, name="x"), net.param(6, 24), name="wide")
    inputs = [] if opset < 12 else [net.value(np.float32(0.6)), net.value(np.asarray(True))]
    h = net.op("Dropout", h, *inputs, **settings)
    net.output(net.op("MatMul", h, net.param(24, 3), name="head"))
    return net


@pytest.mark.parametrize(
    ("opset", "settings"), [(13, {"seed": 7}), (12, {}), (6, {"is_test": 0, "ratio": 0.6})]
)
def test_no_unit_is_dead_because_a_random_mask_hit_it(tmp_path, opset, settings):
    net = dropped(opset, **settings)
    onnx.save(net.model(), tmp_path / "net.onnx")
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        trace = export_onnx(tmp_path / "net.onnx", store).trace
        record_trace(store, None, tmp_path / "net.onnx", RandomInputs(n=8, seed=0))
        seen = store.graph().activations()
        assert trace.n_weight_edges == 6 * 24 + 24 * 3
        hidden = seen.filter(seen["layer"] == 1) if "layer" in seen.columns else seen
        assert (hidden["mean_abs"] > 0).all()
    assert [w.partition(" (")[0] for w in trace.warnings] == [
        "training mode: Dropout drops values at random; it is traced as the identity"
    ]


def test_a_mask_that_is_drawn_is_no_constant(tmp_path):
    net = Net(opset=15, seed=3)
    h = net.op("MatMul", net.input(1, 6, name="x"), net.param(6, 24))
    drawn = net.op("RandomUniform", shape=[1, 24], seed=1.0)
    mask = net.op("Cast", net.op("Greater", drawn, net.value(np.float32(0.5))), to=TensorProto.FLOAT)
    net.output(net.op("MatMul", net.op("Mul", h, mask), net.param(24, 3)))
    trace, units, _ = exported(tmp_path, net)
    assert trace.n_weight_edges == 6 * 24 + 24 * 3
    assert units["scale"].null_count() == units.height


def test_old_neighbours_give_each_channel_its_shift_and_scale(tmp_path):
    net = Net(opset=6, seed=4)
    x = net.input(1, 3, 5, 5, name="x")
    h = net.op("Conv", x, net.param(4, 3, 1, 1))
    shift, scale = (net.value(RNG.standard_normal(4), name=name) for name in ("shift", "scale"))
    h = net.op("Add", h, shift, broadcast=1, axis=1)
    h = net.op("Mul", h, scale, broadcast=1, axis=1)
    net.output(net.op("Conv", h, net.param(2, 4, 1, 1)))
    held = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in net.initializers}
    trace, units, layers = exported(tmp_path, net)
    assert not trace.opaque
    assert trace.coverage == 1.0
    hidden = units.filter(units["layer"] == 1)
    np.testing.assert_allclose(hidden["scale"], held["scale"], rtol=1e-6)
    np.testing.assert_allclose(hidden["bias"], held["shift"], rtol=1e-6)
    assert layers["n_units"].to_list() == [3, 4, 2]
