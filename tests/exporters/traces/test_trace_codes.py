"""Activations of a model of quantized operations are what its codes stand for."""

import numpy as np
import onnx
import polars as pl
import pytest
from nets import Net

from emergraph.exporters.export import export_onnx
from emergraph.exporters.traces.record import record_trace
from emergraph.graphstore.store import open_store

SCALE, ZERO = 0.1, 7


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """x -> QLinearMatMul -> QLinearMatMul -> y, and the trace of eight samples."""
    folder = tmp_path_factory.mktemp("codes")
    net = Net(seed=1, opset=17)
    out = [net.value(np.float32(SCALE)), net.value(np.asarray(ZERO, np.int8))]
    weights = [net.rng.integers(-90, 90, size).astype(np.int8) for size in ((3, 4), (4, 2))]
    codes = net.op("QuantizeLinear", net.input(1, 3, name="x"), *out)
    for weight in weights:
        stored = [net.value(weight), net.value(np.float32(0.01)), net.value(np.asarray(0, np.int8))]
        codes = net.op("QLinearMatMul", codes, *out, *stored, *out)
    net.output(net.op("DequantizeLinear", codes, *out))
    onnx.save(net.model(), folder / "m.onnx")
    samples = net.rng.normal(size=(8, 3)).astype(np.float32)
    with open_store(folder / "s.duckdb", mode="create") as store:
        export_onnx(folder / "m.onnx", store)
        record_trace(store, None, folder / "m.onnx", {"x": samples})
        reader = store.graph()
        yield reader.layers(), reader.activations(), samples, weights


def test_values_are_dequantized(traced):
    layers, activations, samples, weights = traced
    expected = samples.astype(np.float64)
    for layer, weight in zip(
        layers.filter(pl.col("kind") == "dense").iter_rows(named=True), weights, strict=True
    ):
        expected = expected @ (weight * 0.01)
        units = range(layer["first_unit"], layer["first_unit"] + layer["n_units"])
        rows = activations.filter(pl.col("unit").is_in(list(units))).sort("unit")
        found = np.array(rows["values"].to_list()).T
        np.testing.assert_allclose(found, expected, atol=0.45)
        steps = found / SCALE
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
