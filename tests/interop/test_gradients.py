"""Attributions by gradients, through the packages that write a model file for torch."""

import re

import numpy as np
import onnx
import polars as pl
import pytest
from nets import Net

import emergraph
from emergraph.analysis.influence import gradients
from emergraph.analysis.influence.options import Baseline, InfluenceOptions, Method, ModelRunOptions
from emergraph.analysis.influence.views import influence_view
from emergraph.errors import InvalidInputError

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True, scope="module")
def converters(pytestconfig):
    """torchvision is needed by both, and its wheel of the package index is for another torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pytestconfig.rootpath / "benchmarks"))
        from zoomodels.torchvisionfix import import_torchvision

        import_torchvision()
        yield


@pytest.fixture
def asked(tmp_path):
    """Export a network, and attribute one of its outputs."""

    def run(net, arrays, **options):
        model = tmp_path / "net.onnx"
        onnx.save(net.model(), model)
        np.savez(tmp_path / "inputs.npz", **arrays)
        graph = emergraph.export(model, tmp_path / "net.duckdb")
        runs = ModelRunOptions(model=model, inputs=tmp_path / "inputs.npz")
        return graph, graph.analyse("influence", runs, InfluenceOptions(**options))

    return run


def matrices(*shapes, seed=4):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def two_layers(samples=8):
    """5 inputs, 12 rectified units, 9 of tanh, 3 outputs."""
    net, (first, second, head) = Net(), matrices((5, 12), (12, 9), (9, 3))
    x = net.input("n", 5)
    one = net.op("Relu", net.op("MatMul", x, net.value(first), name="one"))
    two = net.op("Tanh", net.op("MatMul", one, net.value(second), name="two"))
    net.output(net.op("MatMul", two, net.value(head), name="head"))
    return net, {x: matrices((samples, 5), seed=9)[0]}, (first, second, head)


def slope_of(first_layer, second, head):
    """Gradient of output 1 with respect to the first layer, by hand."""
    return ((1 - np.tanh(first_layer @ second) ** 2) * head[:, 1]) @ second.T


@pytest.mark.parametrize("baseline", [Baseline.MEAN, Baseline.ZERO, Baseline.RESAMPLE])
@pytest.mark.parametrize("method", [Method.GRADIENT, Method.INTEGRATED])
def test_attributions_are_what_calculus_says(asked, method, baseline):
    net, arrays, (first, second, head) = two_layers()
    _, result = asked(net, arrays, method=method, baseline=baseline, target="head.out:1")
    (x,) = (array.astype(np.float64) for array in arrays.values())
    hidden = np.maximum(x @ first, 0)
    base = {
        Baseline.MEAN: np.broadcast_to(hidden.mean(0), hidden.shape),
        Baseline.ZERO: np.zeros_like(hidden),
        Baseline.RESAMPLE: np.roll(hidden, -1, axis=0),
    }[baseline]
    places = [1.0] if method is Method.GRADIENT else (np.arange(2000) + 0.5) / 2000
    slope = np.mean([slope_of(base + at * (hidden - base), second, head) for at in places], axis=0)
    expected = (hidden - base) * slope
    rows = result.attributions.filter(pl.col("layer") == result.attributions["layer"].min())
    scale = np.abs(np.tanh(hidden @ second) @ head).max()  # absolute distances of parts: ten times the sum's
    within = 1e-5 if method is Method.GRADIENT else gradients.PARTS_ADD_UP * gradients.ADDS_UP * scale
    np.testing.assert_allclose(rows["attribution"], expected.mean(0), atol=within)
    np.testing.assert_allclose(rows["attribution_abs"], np.abs(expected).mean(0), atol=within)
    assert result.converter == "onnx2pytorch"


def convolution():
    net, (kernel, head) = Net(), matrices((4, 1, 3, 3), (64, 3))
    x = net.input("n", 1, 6, 6)
    bent = net.op("Relu", net.op("Conv", x, net.value(kernel), name="conv"))
    flat = net.op("Flatten", bent)
    net.output(net.op("Softmax", net.op("MatMul", flat, net.value(head), name="head")))
    return net, {x: matrices((5, 1, 6, 6))[0]}


def attention():
    net, (q, k, v, head) = Net(), matrices((6, 8), (6, 8), (6, 8), (8, 3))
    x = net.input("n", 4, 6)
    queries, keys, values = (
        net.op("MatMul", x, net.value(one), name=name) for one, name in ((q, "q"), (k, "k"), (v, "v"))
    )
    scores = net.op("MatMul", queries, net.op("Transpose", keys, perm=[0, 2, 1]))
    net.output(
        net.op("MatMul", net.op("MatMul", net.op("Softmax", scores, axis=-1), values), net.value(head))
    )
    return net, {x: matrices((5, 4, 6))[0]}


@pytest.mark.parametrize("made", [lambda: two_layers()[:2], convolution, attention])
@pytest.mark.parametrize("at_one_position", [False, True])
def test_integrated_gradients_add_up_to_the_knockout_of_the_layer(asked, made, at_one_position):
    net, arrays = made()
    axes = next(iter(arrays.values())).ndim - 2
    at = (1,) * axes if at_one_position else ()
    _, result = asked(net, arrays, method=Method.INTEGRATED, at=at)
    whole = result.frame.filter(what="layer").select("layer", "target_change")
    summed = result.attributions.group_by("layer").agg(pl.col("attribution").sum())
    both = whole.join(summed, on="layer")
    assert both.height == whole.height
    scale = 1.0 if result.measure == "kl" else 10.0  # probabilities, or outputs of about this size
    np.testing.assert_allclose(both["attribution"], -both["target_change"], atol=gradients.ADDS_UP * scale)
    assert result.gap <= gradients.ADDS_UP


def test_what_is_before_and_inside_of_a_recurrent_operation(asked):
    """Its weights are made of other constants, as in some files; what is inside has no gradient."""
    net, (first, w, r, head) = Net(), matrices((3, 6), (16, 6), (16, 4), (4, 2))
    x = net.input("n", 5, 3)
    one = net.op("Tanh", net.op("MatMul", x, net.value(first), name="one"))
    made = [net.op("Unsqueeze", net.value(part), net.ints(0)) for part in (w, r)]
    _, last = net.ops("LSTM", 2, net.op("Transpose", one, perm=[1, 0, 2]), *made, hidden_size=4, name="rnn")
    net.output(net.op("MatMul", net.op("Squeeze", last, net.ints(0)), net.value(head), name="head"))
    _, result = asked(net, {x: matrices((6, 5, 3))[0]}, method=Method.INTEGRATED)
    inside = {name for name, why in result.left_out.items() if "inside of an operation" in why}
    assert len(inside) == 3
    (layer,) = result.attributions["layer"].unique()
    whole = result.frame.filter(what="layer", layer=layer)["target_change"].item()
    assert result.attributions["attribution"].sum() == pytest.approx(-whole, abs=1e-3)


def test_the_agreement_with_knockouts_is_kept_and_shown(asked):
    net, arrays, _ = two_layers()
    graph, result = asked(net, arrays, method=Method.GRADIENT)
    rows = result.agreement.rows(named=True)
    assert [row["scope"] for row in rows] == ["all", "within layers", "layer", "layer"]
    ranked = [result.attributions[name].rank() for name in ("attribution_abs", "knockout_abs")]
    assert rows[0]["rho"] == pytest.approx(np.corrcoef(*ranked)[0, 1])
    assert rows[0]["low"] < rows[0]["rho"] < rows[0]["high"]
    view = influence_view(result)
    said = r"Activation x gradient order units as knock-outs do: Spearman 0\.\d\d \(0\.\d\d to 0\.\d\d\)"
    assert re.search(said, view.finding)
    assert view.document["agreement"] == result.agreement.to_dicts()
    assert len(view.document["attributions"]) == 21
    stored = emergraph.open(graph.path).sql("SELECT rho FROM attribution_agreement WHERE scope = 'all'")
    assert stored.item() == rows[0]["rho"]


def test_a_model_that_no_converter_computes_is_refused(asked, monkeypatch):
    net, arrays, _ = two_layers()
    right = dict(gradients.CONVERTERS)

    def other(package, model):
        model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        return right["onnx2pytorch"](package, model)

    monkeypatch.setattr(gradients, "CONVERTERS", {"onnx2pytorch": other})
    with pytest.raises(InvalidInputError, match=r"onnx2pytorch differs by \d.*--method knockout needs none"):
        asked(net, arrays, method=Method.GRADIENT)


@pytest.mark.parametrize(("factor", "converter"), [(0.5, "onnx2torch"), (2.0, "onnx2pytorch")])
def test_the_first_converter_within_the_tolerance_is_taken(asked, monkeypatch, factor, converter):
    """One whose outputs are off by half the tolerance passes; by twice it, the next one is tried."""
    net, arrays, _ = two_layers()
    convert = gradients.CONVERTERS["onnx2torch"]
    torch = pytest.importorskip("torch")

    class Scaled(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *given):
            return self.inner(*given) * (1 + factor * gradients.EXACT)

    order = {"onnx2torch": lambda package, model: Scaled(convert(package, model))}
    order["onnx2pytorch"] = gradients.CONVERTERS["onnx2pytorch"]
    monkeypatch.setattr(gradients, "CONVERTERS", order)
    _, result = asked(net, arrays, method=Method.GRADIENT)
    assert result.converter == converter
