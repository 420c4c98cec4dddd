"""One network quantized in the three ways of onnxruntime's own tool: the same layers, units and weights."""

import numpy as np
import onnx
import polars as pl
import pytest
from nets import Net
from onnxruntime import quantization

from emergraph.exporters.export import export_onnx
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.filterwarnings("ignore")


class Samples(quantization.CalibrationDataReader):
    """A few random images."""

    def __init__(self):
        self.left = iter(np.random.default_rng(0).normal(size=(3, 1, 3, 8, 8)).astype(np.float32))

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {"x": image}


def network(path):
    net = Net(seed=3, opset=17)
    h = net.op("Conv", net.input(1, 3, 8, 8, name="x"), net.param(6, 3, 3, 3), net.param(6))
    h = net.op("Relu", h)
    h = net.op("Add", h, net.op("Conv", h, net.param(6, 6, 1, 1), net.param(6)))
    h = net.op("Flatten", net.op("GlobalAveragePool", h))
    net.output(net.op("MatMul", h, net.param(6, 4)))
    model = net.model()
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info(model.graph.output[0].name, onnx.TensorProto.FLOAT, [1, 4])
    )
    onnx.save(model, path)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    network(folder / "float.onnx")
    for name in ("QOperator", "QDQ"):
        form = quantization.QuantFormat[name]
        quantization.quantize_static(
            folder / "float.onnx", folder / f"{name}.onnx", Samples(), quant_format=form, per_channel=True
        )
    quantization.quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx")
    found = {}
    with open_store(folder / "s.duckdb", mode="create") as store:
        for name in ("float", "QOperator", "QDQ", "dynamic"):
            summary = export_onnx(folder / f"{name}.onnx", store)
            reader = store.graph()
            scales = reader.units().select(pl.col("id").cast(pl.Int32).alias("dst"), "scale")
            edges = reader.edges(kinds=["weight"]).with_columns(pl.col("dst").cast(pl.Int32))
            found[name] = (summary.trace, reader.layers(), edges.join(scales, on="dst", how="left"))
    return found


@pytest.mark.parametrize("name", ["QOperator", "QDQ", "dynamic"])
def test_a_quantized_network_is_the_network(graphs, name):
    (_, layers, edges), (trace, found, weights) = graphs["float"], graphs[name]
    assert not trace.opaque
    assert trace.coverage == 1.0
    assert found["n_units"].to_list() == layers["n_units"].to_list()
    assert found["kind"].to_list() == layers["kind"].to_list()
    joined = edges.join(weights, on=["src", "dst"], how="inner", suffix="_q")
    assert joined.height == edges.height == weights.height
    # ConvInteger and MatMulInteger multiply by the weights' scale afterwards: it is the units' scale.
    factor = joined["scale_q"].fill_null(1.0) if name == "dynamic" else 1.0
    for column in ("l1", "weight"):
        difference = joined[column] - joined[f"{column}_q"] * factor
        assert difference.abs().max() < 0.03 * edges[column].abs().max()


@pytest.mark.parametrize("name", ["float", "QOperator", "QDQ", "dynamic"])
def test_integer_weights_are_told(graphs, name):
    told = [line for line in graphs[name][0].warnings if "are integers" in line and "units.scale" in line]
    assert len(told) == (name == "dynamic")
