"""Sums into gathered places: messages along edges reach the nodes that they point at, feature by feature."""

import graphnets
import numpy as np
import pytest
import torch
from edgesink import reach
from exportedmodule import as_onnx
from graphnets import NODES, edges_of
from nets import Net
from pathtruth import influence
from tracedmodel import trace_model

from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind

NETS = {
    "convolution": (graphnets.Convolution, {"first": 4, "second": 3}),
    "means": (graphnets.Sage, {"own": 4, "other": 4, "head": 3}),
    "largest": (lambda: graphnets.Sage("amax"), {"own": 4, "other": 4, "head": 3}),
    "isomorphism": (graphnets.Isomorphism, {"mlp.0": 4, "mlp.2": 4, "head": 3}),
    "attention": (graphnets.Attention, {"project": 8, "out": 3}),
    "edges": (graphnets.EdgeConvolution, {"mlp.0": 4, "head": 3}),
    "fixed_edges": (graphnets.FixedEdges, {"conv.first": 4, "conv.second": 3}),
}


def assert_no_path_is_missing(traced, feeds, *, draws=3):
    found = influence(traced, draws=draws, feeds=feeds)
    reached = reach(traced.sink, (*PATH_KINDS, EdgeKind.NORM))
    for unit in found.sources:
        missing = np.flatnonzero(found.observed & found.changed[unit] & ~reached[unit])
        assert missing.size == 0, (unit, missing)


@pytest.mark.parametrize("name", sorted(NETS))
def test_graph_networks(name):
    make, layers = NETS[name]
    torch.manual_seed(0)
    module = make()
    given = [torch.randn(NODES, 5), edges_of(), torch.tensor([0, 0, 0, 1, 1, 1])]
    n_inputs = module.forward.__code__.co_argcount - 1
    model = as_onnx(module, *given[:n_inputs])
    names = [i.name for i in model.graph.input]
    feeds = [
        {n: a.numpy() for n, a in zip(names, [torch.randn(NODES, 5), edges_of(k), given[2]], strict=False)}
        for k in range(3)
    ]
    traced = trace_model(model, feeds[0])
    assert not traced.summary.opaque
    assert traced.summary.n_parameters_understood == traced.summary.n_parameters
    dense = {la.name: la.n_units for la in traced.sink.layers if la.kind is LayerKind.DENSE}
    assert dense == layers
    inputs = {la.name: la.n_units for la in traced.sink.layers if la.kind is LayerKind.INPUT}
    assert inputs == {"x": 5}  # which edges there are decides where, and is no unit
    assert_no_path_is_missing(traced, feeds)


def _dense(net, rows, outs, name):
    return net.op("MatMul", net.input(rows, 3, name=f"{name}.x"), net.param(3, outs, name=name), name=name)


def _arranged(net, op, at, reduction):
    """Four rows of `put` into six of `there`, along rows; the first node is not written to in this run."""
    there, put = _dense(net, 6, 5, "there"), _dense(net, 4, 5, "put")
    index = net.input(4, name="at", dtype=np.int64)
    if op == "ScatterND":
        places = net.op("Reshape", index, net.ints(-1, 1))
    else:
        places = net.op("Expand", net.op("Reshape", index, net.ints(-1, 1)), net.ints(4, 5))
    extra = {} if op == "ScatterND" else {"axis": 0}
    out = net.op(op, there, places, put, reduction=reduction, **extra)
    first = net.op("Slice", out, net.ints(0), net.ints(1), net.ints(0))
    net.output(net.op("MatMul", first, net.param(5, 2, name="head"), name="head"))
    return trace_model(net.model(), {"at": np.asarray(at, np.int64)}), out


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_any_value_may_reach_any_place(op, reduction):
    traced, out = _arranged(Net(opset=18), op, [1, 1, 2, 2], reduction)
    assert not traced.summary.opaque
    joined = traced.sink.layers[
        int(np.searchsorted([la.first_unit for la in traced.sink.layers], traced.units(out)[0], side="right"))
        - 1
    ]
    assert joined.n_units == 5
    assert len(traced.units(out)) == 5
    assert joined.kind is (LayerKind.JUNCTION if reduction == "add" else LayerKind.GATE)
    block = next(b for b in traced.sink.blocks if b.block.layer == joined.id)
    assert block.src.size == 10
    assert block.has_weight == (reduction == "add")
    reached = reach(traced.sink, PATH_KINDS)
    head, put = traced.sink.layer("head").first_unit, traced.sink.layer("put").first_unit
    assert reached[put : put + 5, head].all(), "the first node may be written to in another run"


def test_features_stay_features_and_fixed_places_are_exact():
    net = Net(opset=18)
    there, put = _dense(net, 1, 4, "there"), _dense(net, 1, 3, "put")
    out = net.op("ScatterElements", there, net.value(np.asarray([[1, 1, 3]])), put, axis=1, reduction="add")
    net.output(out)
    traced = trace_model(net.model())
    first, new = traced.sink.layer("there").first_unit, traced.sink.layer("put").first_unit
    labels = traced.labels[out].ravel().tolist()
    assert labels[0] == first
    assert labels[2] == first + 2
    pairs = {
        (int(s), int(d)): float(w)
        for b in traced.sink.of_kind(EdgeKind.IDENTITY)
        for s, d, w in zip(b.src, b.dst, b.weight, strict=True)
    }
    assert pairs == {
        (first + 1, labels[1]): 1.0,
        (new, labels[1]): 1.0,
        (new + 1, labels[1]): 1.0,
        (first + 3, labels[3]): 1.0,
        (new + 2, labels[3]): 1.0,
    }


def test_a_unit_that_arrives_twice_counts_twice_beside_others():
    net = Net(opset=18)
    there, one = _dense(net, 1, 4, "there"), _dense(net, 1, 1, "one")
    put = net.op("Expand", one, net.ints(1, 3))
    out = net.op("ScatterElements", there, net.value(np.asarray([[2, 2, -1]])), put, axis=1, reduction="add")
    net.output(out)
    traced = trace_model(net.model())
    unit = traced.sink.layer("one").first_unit
    weights = {
        int(d): float(w)
        for b in traced.sink.of_kind(EdgeKind.IDENTITY)
        for s, d, w in zip(b.src, b.dst, b.weight, strict=True)
        if s == unit
    }
    labels = traced.labels[out].ravel().tolist()
    assert weights == {labels[2]: 2.0, labels[3]: 1.0}


@pytest.mark.parametrize("op", ["Gather", "GatherElements", "GatherND"])
def test_an_index_of_the_data_picks_any_of_different_units(op):
    net = Net(opset=18)
    x = _dense(net, 2, 4, "x")
    index = net.input(2, 1, name="at", dtype=np.int64)
    if op == "Gather":
        out = net.op("Gather", x, index, axis=1)
    elif op == "GatherElements":
        out = net.op("GatherElements", x, index, axis=1)
    else:
        out = net.op("GatherND", x, index, batch_dims=1)
    net.output(out)
    traced = trace_model(net.model(), {"at": np.asarray([[1], [3]])})
    assert not traced.summary.opaque
    (unit,) = traced.units(out)
    first = traced.sink.layer("x").first_unit
    assert {
        int(s) for b in traced.sink.blocks for s, d in zip(b.src, b.dst, strict=True) if d == unit
    } == set(range(first, first + 4))
