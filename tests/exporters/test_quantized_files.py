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
    assert found["n_params"].to_list() == layers["n_params"].to_list()
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


class Tokens(quantization.CalibrationDataReader):
    """A few random sequences."""

    def __init__(self):
        self.left = iter(np.random.default_rng(0).integers(0, VOCABULARY, (3, 1, 6)))

    def get_next(self):
        ids = next(self.left, None)
        return None if ids is None else {"ids": ids}


VOCABULARY, WIDTH, HEADS = 4200, 16, 2
"""The table and the head have more elements than a run gives back."""


def normalised(net, x):
    """A layer normalisation, written out as before opset 17."""
    mean = {"axes": [-1]} if net.opsets[""] < 18 else {}
    axes = [] if mean else [net.ints(-1)]
    centred = net.op("Sub", x, net.op("ReduceMean", x, *axes, **mean))
    variance = net.op("ReduceMean", net.op("Mul", centred, centred), *axes, **mean)
    scaled = net.op("Div", centred, net.op("Sqrt", net.op("Add", variance, net.value(np.float32(1e-5)))))
    return net.op("Add", net.op("Mul", scaled, net.param(WIDTH)), net.param(WIDTH))


def transformer(opset):
    """One block with a table of embeddings and a head."""
    net = Net(seed=3, opset=opset)
    x = net.op("Gather", net.param(VOCABULARY, WIDTH), net.input(1, 6, name="ids", dtype=np.int64))
    a = normalised(net, x)

    def dense(h, wide=WIDTH, fan_in=WIDTH):
        return net.op("Add", net.op("MatMul", h, net.param(fan_in, wide)), net.param(wide))

    def heads(h, perm):
        split = net.op("Reshape", h, net.ints(1, 6, HEADS, WIDTH // HEADS))
        return net.op("Transpose", split, perm=perm)

    q, k, v = (dense(a) for _ in range(3))
    score = net.op("MatMul", heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1]))
    mixed = net.op("MatMul", net.op("Softmax", score, axis=-1), heads(v, [0, 2, 1, 3]))
    merged = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(1, 6, WIDTH))
    x = net.op("Add", x, dense(merged))
    x = net.op("Add", x, dense(net.op("Relu", dense(normalised(net, x), 32)), WIDTH, 32))
    net.output(net.op("MatMul", normalised(net, x), net.param(WIDTH, VOCABULARY)))
    return net.model()


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_a_quantized_transformer_is_the_transformer(tmp_path, opset):
    onnx.save(transformer(opset), tmp_path / "float.onnx")
    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "qdq.onnx", Tokens(), per_channel=opset >= 13
    )
    assert onnx.load(tmp_path / "qdq.onnx").opset_import[0].version == opset
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        plain = export_onnx(tmp_path / "float.onnx", store)
        base = store.graph()
        quantized = export_onnx(tmp_path / "qdq.onnx", store)
        found = store.graph()
        assert not quantized.trace.opaque
        assert plain.trace.coverage == quantized.trace.coverage == 1.0
        columns = ["name", "op", "kind", "depth", "n_units", "n_params"]
        assert found.layers().select(columns).equals(base.layers().select(columns))
        edges = base.edges().join(found.edges(), on=["src", "dst", "kind"], how="full", suffix="_q")
        weights = edges.filter(pl.col("weight").is_not_null())
        assert edges["src"].is_not_null().all()
        # what rounding made zero is no edge any more, and was small
        largest = weights["weight"].abs().max()
        lost = weights.filter(pl.col("weight_q").is_null())
        assert (lost["weight"].abs() < 0.02 * largest).all()
        assert (weights["weight"] - weights["weight_q"]).abs().max() < 0.02 * largest
        zeros = dict(found.layers().select("name", "n_zeros").iter_rows())
        assert sum(zeros.values()) == lost.height == edges.filter(pl.col("src_q").is_null()).height
