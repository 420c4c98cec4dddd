"""What is not understood is opaque: edges without weights, a row with the reason, less coverage."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from edgesink import EdgeSink, reach
from nets import Net
from onnx import helper
from tracedmodel import Parameter, trace_model

from emergraph.exporters.runtime.folding import Folder
from emergraph.exporters.tracing.context import TensorFacts, TracedModel
from emergraph.exporters.tracing.tracer import trace
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs

_UNITS = 4


def with_custom(domain: str = "strange.domain") -> tuple[TracedModel, EdgeSink]:
    """A dense layer, an operation that nothing knows, a dense layer; facts are made up, nothing is run."""
    net = Net(domains={domain: 1})
    first, second, inner = net.param(3, _UNITS), net.param(_UNITS, 2), net.param(7, name="secret")
    net.input(1, 3, name="x")
    nodes = [
        helper.make_node("MatMul", ["x", first], ["h"], name="before"),
        helper.make_node("Mystery", ["h", inner], ["m"], name="mystery", domain=domain),
        helper.make_node("MatMul", ["m", second], ["y"], name="after"),
    ]
    shapes = {"x": (1, 3), "h": (1, _UNITS), "m": (1, _UNITS), "y": (1, 2)}
    model = TracedModel(
        nodes=nodes,
        initializers={t.name: Parameter(t) for t in net.initializers},
        facts={name: TensorFacts(shape, np.dtype(np.float32)) for name, shape in shapes.items()},
        inputs=["x"],
        outputs=["y"],
        opsets={"": 17, domain: 1},
        folder=Folder({"": 17, domain: 1}),
    )
    return model, EdgeSink()


def test_an_unknown_operation_connects_all_with_all_without_a_weight():
    model, sink = with_custom()
    trace(model, sink)
    before, after = sink.layer("before"), sink.layer("after")
    blocks = sink.of_kind(EdgeKind.OPAQUE)
    assert blocks
    assert not any(b.has_weight for b in blocks)
    reached = reach(sink, (EdgeKind.OPAQUE,))
    mystery = next(la for la in sink.layers if la.name == "mystery:0")
    for source in range(before.first_unit, before.first_unit + _UNITS):
        assert reached[source, mystery.first_unit : mystery.first_unit + _UNITS].all()
    paths = reach(sink, (EdgeKind.WEIGHT, EdgeKind.IDENTITY))
    assert not paths[before.first_unit, after.first_unit :].any()


def test_edges_through_an_unknown_operation_are_as_many_as_its_units():
    model, sink = with_custom()
    trace(model, sink)
    assert sink.count(EdgeKind.OPAQUE) == 2 * _UNITS
    assert {la.kind for la in sink.layers if la.op == "strange.domain::Mystery"} == {LayerKind.OPAQUE}


@pytest.mark.parametrize(
    ("op", "shape", "parameter", "expected", "features"),
    [
        ("Mystery", (1, 9, 5), (5, 7), (1, 9, 7), 7),
        ("Mystery", (1, 9, 5), (5,), (1, 9, 5), 5),
        ("Mystery", (1, 7, 5), (5, 7), (1, 7, 7), 7),
        ("MysteryConv", (1, 5, 8, 8), (6, 5, 3, 3), (1, 6, 3, 3), 6),
        ("Mystery", (1, 2, 9, 5), (3,), (1, 2, 9, 5), 5),
        ("Mystery", (1, 9, 5), (3,), (1, 9, 4, 4), 9),
        ("Mystery", (4, 5), (3,), (4, 5), 5),
        ("Mystery", (5,), (3,), (6,), 6),
        ("Mystery", (1, 5), (3,), (), 1),
    ],
)
def test_an_unknown_operation_keeps_features_not_positions(op, shape, parameter, expected, features):
    assert features_behind(op, shape, parameter, expected) == features


def test_sizes_and_places_say_nothing_about_features():
    assert features_behind("Mystery", (1, 6, 5), (6,), (1, 6, 5), np.int64) == 5
    assert features_behind("Mystery", (1, 6, 5), (6,), (1, 6, 5), np.float32) == 6


def features_behind(op, shape, parameter, expected, dtype=np.float32):
    """Units of the output of an operation that nothing knows."""
    net = Net(domains={"strange.domain": 1})
    inner = net.value(np.ones(parameter, dtype), name="inner")
    weight = net.param(shape[-1], shape[-1])
    nodes = [
        helper.make_node("MatMul", ["x", weight], ["h"], name="before"),
        helper.make_node(op, ["h", inner], ["m"], name="mystery", domain="strange.domain"),
    ]
    facts = {
        name: TensorFacts(size, np.dtype(np.float32))
        for name, size in (("x", shape), ("h", shape), ("m", expected))
    }
    model = TracedModel(
        nodes=nodes,
        initializers={t.name: Parameter(t) for t in net.initializers},
        facts=facts,
        inputs=["x"],
        outputs=["m"],
        opsets={"": 17, "strange.domain": 1},
        folder=Folder({"": 17}),
    )
    sink = EdgeSink()
    trace(model, sink)
    return next(la.n_units for la in sink.layers if la.name == "mystery:0")


def test_the_reason_is_told_and_the_coverage_falls():
    model, sink = with_custom()
    summary = trace(model, sink)
    row = sink.operations[1]
    assert (row.traced_as, row.domain, row.op) == (TracedAs.OPAQUE, "strange.domain", "Mystery")
    assert row.reason == "operation strange.domain::Mystery has no tracing rule"
    assert summary.opaque == (row,)
    assert summary.n_operations_understood == 2
    assert summary.coverage == pytest.approx(1 - 7 / (3 * _UNITS + 2 * _UNITS + 7))
    assert sink.tensors["secret"].understood is False
    assert sink.tensors["secret"].data is not None


def test_an_operation_that_does_not_fit_its_rule_is_opaque():
    model, sink = with_custom()
    lying = helper.make_node("Transpose", ["h"], ["m"], name="mystery", perm=[0, 1, 2])
    summary = trace(replace(model, nodes=[model.nodes[0], lying, model.nodes[2]]), sink)
    assert [op.op for op in summary.opaque] == ["Transpose"]
    assert "does not fit" in (summary.opaque[0].reason or "")
    assert any("Transpose" in line for line in summary.warnings)


@pytest.mark.parametrize("op", ["ArgMax", "NonZero", "Shape"])
def test_indices_steer_and_reach_nothing(op):
    net = Net()
    h = net.op("MatMul", net.input(1, 3), net.param(3, 4), name="dense")
    net.output(net.op(op, h), net.op("Relu", h))
    sink = trace_model(net.model()).sink
    assert [la.name for la in sink.layers] == ["x_1", "dense"]
    assert sink.operations[1].traced_as in (TracedAs.CONTROL, TracedAs.CONSTANT)


def test_a_model_of_another_ir_is_still_flat():
    model = Net()
    model.output(model.op("Relu", model.input(1, 3, name="x")))
    proto = model.model()
    proto.ir_version = 4
    kept = onnx.ModelProto()
    kept.CopyFrom(proto)
    trace_model(proto)
    assert proto == kept
