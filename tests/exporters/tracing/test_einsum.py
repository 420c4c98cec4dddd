"""Einsum of any equation: what is traced agrees with what perturbing a unit changes."""

import numpy as np
import pytest
from nets import Net
from pathtruth import assert_path_truth
from tracedmodel import trace_model

from emergraph.graphstore.records import EdgeKind, LayerKind

CONSTANT = {
    "bi,ij->bj": [(1, 4), (4, 3)],
    "ij,bj->bi": [(3, 4), (1, 4)],
    "bi,ij": [(1, 4), (4, 3)],
    "bi,ij->": [(1, 4), (4, 3)],
    "bi,bi->": [(1, 4), (1, 4)],
    "i,i": [(4,), (4,)],
    "bi,i->bi": [(1, 4), (4,)],
    "bi,i->ib": [(1, 4), (4,)],
    "bi,j->bij": [(1, 4), (2,)],
    "bi,ij,jk->bk": [(1, 4), (4, 3), (3, 2)],
    "ij,jk,bi->bk": [(4, 3), (3, 2), (1, 4)],
    "bi,ii->bi": [(1, 4), (4, 4)],
    "bi,iij->bj": [(1, 4), (4, 4, 3)],
    "...i,ij->...j": [(1, 2, 4), (4, 3)],
    "...B,BC->...C": [(1, 2, 4), (4, 3)],
    "A...,AB->B...": [(4, 2), (4, 3)],
    "...i,...ij": [(1, 2, 4), (2, 4, 3)],
    "...i,kij,...": [(1, 4), (2, 4, 3), (1,)],
    "bi,ij->b": [(1, 4), (4, 3)],
    " b i , i j -> b j ": [(1, 4), (4, 3)],
}
"""Equations with one operand that carries units, at the place of the letter b or of the dots."""

JOINT = {
    "bi,bj->bij": [(1, 3), (1, 2)],
    "bi,bi->bi": [(1, 3), (1, 3)],
    "bi,bi->b": [(1, 3), (1, 3)],
    "bi,bi->": [(1, 3), (1, 3)],
    "bi,bj,bk->bijk": [(1, 2), (1, 2), (1, 2)],
    "bi,bj,bj->bi": [(1, 2), (1, 3), (1, 3)],
    "bii->bi": [(1, 3, 3)],
    "bii->b": [(1, 3, 3)],
    "bii": [(1, 3, 3)],
    "bij->jb": [(1, 3, 2)],
    "bij->bji": [(1, 3, 2)],
    "...ij->...ji": [(1, 3, 2)],
    "bi->": [(1, 3)],
    "bii,bi->b": [(1, 3, 3), (1, 3)],
    "bij,bjk,bkl->bil": [(1, 2, 3), (1, 3, 2), (1, 2, 2)],
}
"""Equations all of whose operands carry units of their own."""


def _units(net, shape, name):
    """An activation whose elements are different units."""
    size = int(np.prod(shape))
    h = net.op("MatMul", net.input(1, 2, name=name), net.param(2, size, name=f"{name}.w"), name=f"{name}.w")
    return net.op("Reshape", h, net.ints(*shape))


def _traced(equation, shapes, carried):
    net = Net()
    names = [
        _units(net, s, f"x{k}") if k in carried else net.param(*s, name=f"p{k}") for k, s in enumerate(shapes)
    ]
    net.output(net.op("Einsum", *names, equation=equation, name="einsum"))
    traced = trace_model(net.model())
    assert not traced.summary.opaque, traced.summary.opaque
    assert traced.summary.n_parameters_understood == traced.summary.n_parameters
    return traced


@pytest.mark.parametrize("equation", sorted(CONSTANT))
def test_weights_on_either_side(equation):
    terms = equation.replace(" ", "").split("->")[0].split(",")
    carried = next(k for k, t in enumerate(terms) if "b" in t or "." in t or (k == 0 and "b" not in equation))
    traced = _traced(equation, CONSTANT[equation], {carried})
    assert_path_truth(traced)
    weighted = {b.block.tensor for b in traced.sink.of_kind(EdgeKind.WEIGHT)} - {f"x{carried}.w"}
    scales = {"bi,i->bi", "bi,i->ib", "bi,ii->bi"}
    assert weighted or equation in scales


@pytest.mark.parametrize("equation", sorted(JOINT))
def test_activations_alone(equation):
    shapes = JOINT[equation]
    assert_path_truth(_traced(equation, shapes, set(range(len(shapes)))), draws=6)


def _scaled(equation, shape):
    net = Net()
    x = net.op("MatMul", net.input(1, 5, 2), net.param(2, 3, name="w"), name="w")
    scale = net.random(*shape)
    net.output(net.op("MatMul", net.op("Einsum", x, net.value(scale), equation=equation), net.param(3, 2)))
    traced = trace_model(net.model())
    layers = [(la.n_units, la.split_by) for la in traced.sink.layers if la.kind is LayerKind.DENSE]
    assert layers == [(3, None), (2, None)]
    return scale, traced.sink.columns[1].scale


def test_a_product_with_a_constant_is_a_scale():
    scale, found = _scaled("bti,i->bti", (3,))
    assert np.allclose(found, scale)


def test_a_scale_by_position_splits_no_unit():
    _, found = _scaled("bti,t->bti", (5,))
    assert np.isnan(found).all()


def test_the_experts_that_a_code_of_the_data_chooses():
    """One-hot dispatch: codes that carry no unit say which tokens are summed, and never which feature."""
    net = Net()
    x = net.op("MatMul", net.input(5, 3, name="x"), net.param(3, 4, name="in"), name="in")
    router = net.op("MatMul", x, net.param(4, 3, name="router"), name="router")
    _, top = net.ops("TopK", 2, router, net.ints(1), axis=-1)
    code = net.op("OneHot", net.op("Squeeze", top, net.ints(1)), net.value(3), net.value([0.0, 1.0]))
    sent = net.op("Einsum", code, x, equation="te,td->etd")
    hidden = net.op(
        "Relu", net.op("Einsum", sent, net.param(3, 4, 6, name="up"), equation="etd,edh->eth", name="up")
    )
    made = net.op("Einsum", hidden, net.param(3, 6, 4, name="down"), equation="eth,ehd->etd", name="down")
    net.output(net.op("Einsum", made, code, equation="etd,te->td"))
    traced = trace_model(net.model())
    assert not traced.summary.opaque
    dense = {la.name: la.n_units for la in traced.sink.layers if la.kind is LayerKind.DENSE}
    assert dense == {"in": 4, "router": 3, "up": 18, "down": 12}
    down, up = traced.sink.layer("down"), traced.sink.layer("up")
    for b in traced.sink.blocks:
        if b.block.tensor == "down":
            assert ((b.src - up.first_unit) // 6 == (b.dst - down.first_unit) // 4).all()
