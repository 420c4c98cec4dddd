"""Experts chosen by the data, selective scans, sampled places, box decoders: no path is missing."""

import numpy as np
import pytest
import routednets
import torch
from edgesink import reach
from exportedmodule import as_onnx
from nets import Net
from pathtruth import influence
from tracedmodel import trace_model

from emergraph.graphstore.records import NEURON_LAYER_KINDS, PATH_KINDS, EdgeKind, LayerKind, SplitBy

TOKENS = (1, 5, 3)
NETS = {
    "scattered_experts": (routednets.ScatteredExperts, [TOKENS], {"einsum": 15, "einsum_1": 12, "head": 2}),
    "gathered_experts": (routednets.GatheredExperts, [TOKENS], {"einsum": 5, "einsum_1": 4, "head": 2}),
    "looped_experts": (routednets.LoopedExperts, [TOKENS], {"experts.2.0": 5, "experts.2.2": 4, "head": 2}),
    "unrolled_scan": (routednets.SelectiveScan, [TOKENS], {"step": 4, "mix": 6, "head": 2}),
    "cumulative_scan": (lambda: routednets.SelectiveScan(cumulative=True), [TOKENS], {"step": 4, "mix": 6}),
    "deformable_attention": (
        routednets.DeformableAttention,
        [(1, 3, 5, 5), (1, 4, 3)],
        {"value": 4, "offsets": 8, "weights": 4, "out": 2},
    ),
}


def assert_no_path_is_missing(traced, *, size):
    """Changes are small where they may not change a route: which one is taken is control."""
    found = influence(traced, draws=2, size=size)
    reached = reach(traced.sink, (*PATH_KINDS, EdgeKind.NORM))
    for unit in found.sources:
        missing = np.flatnonzero(found.observed & found.changed[unit] & ~reached[unit])
        assert missing.size == 0, (unit, missing)


@pytest.mark.parametrize("name", sorted(NETS))
def test_understood_without_a_missing_path(name):
    make, shapes, expected = NETS[name]
    torch.manual_seed(0)
    traced = trace_model(as_onnx(make(), *(torch.randn(shape) for shape in shapes)))
    assert not traced.summary.opaque
    assert traced.summary.n_parameters_understood == traced.summary.n_parameters
    neurons = [la for la in traced.sink.layers if la.kind in NEURON_LAYER_KINDS]
    assert expected.items() <= {la.name: la.n_units for la in neurons}.items()
    assert [la.name for la in neurons if la.split_by] == []
    assert_no_path_is_missing(traced, size=1e-3 if "experts" in name else 1.0)


def test_a_box_decoder_has_a_unit_for_each_side():
    torch.manual_seed(0)
    traced = trace_model(as_onnx(routednets.BoxDecoder(), torch.randn(1, 3, 4, 4)))
    decode = traced.sink.layer("decode")
    assert (decode.n_units, decode.split_by) == (4, SplitBy.POINTWISE)
    boxes = traced.sink.layer("boxes").first_unit
    pairs = [
        (int(s - boxes) // 4, int(d - decode.first_unit), float(w))
        for b in traced.sink.of_kind(EdgeKind.WEIGHT)
        if b.block.layer == decode.id
        for s, d, w in zip(b.src, b.dst, b.weight, strict=True)
    ]
    assert all(side == unit for side, unit, _ in pairs)
    assert [w for *_, w in pairs] == [1.0, 2.0, 3.0] * 4
    assert traced.summary.n_parameters_understood == traced.summary.n_parameters
    assert_no_path_is_missing(traced, size=1.0)


@pytest.mark.parametrize(
    ("op", "shape", "index", "attributes", "units"),
    [
        ("Gather", (5, 3), [[1, 4]], {}, 3),
        ("GatherND", (5, 3), [[[1], [4]]], {}, 3),
        ("GatherND", (2, 5, 3), [[[1, 1], [0, 4]]], {}, 3),
        ("GatherND", (2, 5, 3), [[1], [4]], {"batch_dims": 1}, 6),
        ("GatherElements", (5, 3), [[1, 4, 0], [2, 2, 2]], {}, 3),
        ("GatherElements", (5, 3), [[1, 4], [2, 2]], {}, 3),
        ("GatherElements", (3, 5), [[1], [4], [0]], {"axis": 1}, 3),
    ],
)
def test_rows_of_a_table_are_looked_up_by_any_gather(op, shape, index, attributes, units):
    net = Net(opset=18)
    at = np.asarray(index, np.int64)
    out = net.op(
        op, net.param(*shape, name="table"), net.input(*at.shape, name="at", dtype=np.int64), **attributes
    )
    net.output(out)
    traced = trace_model(net.model(), {"at": at})
    dense = [la for la in traced.sink.layers if la.kind is LayerKind.DENSE]
    assert [la.n_units for la in dense] == [units]
    assert [la.kind for la in traced.sink.layers if la.kind is LayerKind.INPUT] == []
    assert (traced.labels[out] >= 0).all()
    values = next(p for p in traced.model.graph.initializer if p.name == "table")
    table = np.frombuffer(values.raw_data, np.float32).reshape(shape)
    for unit in traced.units(out):
        shown = traced.values[out][traced.labels[out] == unit]
        column = unit - dense[0].first_unit
        axis = attributes.get("axis", 0) if op == "GatherElements" else 0
        rows = np.moveaxis(table, axis, -1).reshape(-1, shape[axis]) if len(shape) == 2 else None
        assert rows is None or np.isin(shown, rows[column]).all()


@pytest.mark.parametrize(
    ("axis", "x_shape", "chosen", "contract"),
    [
        (0, (1, 1, 4), [2], lambda net, x, w: net.op("MatMul", x, w)),
        (0, (3, 1, 4), [2, 0, 2], lambda net, x, w: net.op("MatMul", x, w)),
        (1, (4,), [2, 0], lambda net, x, w: net.op("Einsum", x, w, equation="d,dkh->kh")),
        (2, (3, 4), [[2], [0]], lambda net, x, w: net.op("Einsum", x, w, equation="td,dhkj->tkh")),
        (0, (2, 4), [1], lambda net, x, w: net.op("Gemm", x, net.op("Squeeze", w, net.ints(0)))),
    ],
)
def test_an_edge_to_a_chosen_matrix_stands_for_its_weights_in_all(axis, x_shape, chosen, contract):
    net = Net(opset=18)
    table = net.param(*{0: (3, 4, 5), 1: (4, 3, 5), 2: (4, 5, 3)}[axis], name="experts")
    at = np.asarray(chosen, np.int64)
    which = net.input(*at.shape, name="which", dtype=np.int64)
    out = contract(net, net.input(*x_shape, name="x"), net.op("Gather", table, which, axis=axis))
    net.output(out)
    traced = trace_model(net.model(), {"which": at})
    (layer,) = (la for la in traced.sink.layers if la.kind is LayerKind.DENSE)
    (block,) = traced.sink.into(layer.name)
    values = next(p for p in traced.model.graph.initializer if p.name == "experts")
    weights = np.moveaxis(np.frombuffer(values.raw_data, np.float32).reshape(values.dims), axis, -1)
    assert (layer.n_units, layer.n_params, layer.split_by) == (5, 60, None)
    assert np.array_equal(np.unique(traced.labels[out]), layer.first_unit + np.arange(5))
    order = np.lexsort((block.dst, block.src))
    assert np.allclose(block.weight[order], weights.sum(-1).ravel(), atol=1e-6)
    assert np.allclose(block.l1[order], np.abs(weights).sum(-1).ravel())
    assert (block.n_params == 3).all()
    assert traced.summary.n_parameters_understood == 60


@pytest.mark.parametrize("use", ["Relu", "output"])
def test_a_chosen_matrix_that_no_contraction_reads_is_units(use):
    net = Net(opset=18)
    which = net.input(2, name="which", dtype=np.int64)
    rows = net.op("Transpose", net.op("Gather", net.param(3, 4, 5, name="experts"), which), perm=[0, 2, 1])
    net.output(rows if use == "output" else net.op(use, rows))
    traced = trace_model(net.model(), {"which": np.asarray([2, 0])})
    (layer,) = (la for la in traced.sink.layers if la.kind is LayerKind.DENSE)
    assert layer.n_units == 20
    assert traced.summary.n_parameters_understood == 60


def test_inputs_without_elements():
    net = Net(opset=18)
    x = net.input(1, 3, name="x")
    y = net.op("MatMul", x, net.param(3, 2, name="w"), name="w")
    net.output(net.op("ReduceSum", y, net.input(0, name="axes", dtype=np.int64), noop_with_empty_axes=1))
    net.output(net.op("Concat", y, net.input(1, 0, name="none"), axis=1))
    traced = trace_model(net.model(), {"axes": np.empty(0, np.int64), "none": np.empty((1, 0), np.float32)})
    assert traced.sink.layer("w").n_units == 2
