"""Contractions laid out as matrices against numpy's einsum."""

import string

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph.exporters.tracing.contraction_axes import (
    contracted_axes,
    contraction,
    einsum_letters,
    matmul_letters,
)


def product(values: np.ndarray, weight: np.ndarray, x: str, w: str, out: str) -> np.ndarray:
    """The contraction by way of the laid-out matrices: positions of x stand for its values."""
    ids = np.arange(values.size).reshape(values.shape)
    laid_out = contraction(ids, weight, x, w, out)
    order = laid_out.plan.order
    parts = [
        values.ravel()[labels.reshape(-1, labels.shape[-1])] @ m.weights
        for labels, m in zip(laid_out.labels, laid_out.matrices, strict=True)
    ]
    shaped = np.concatenate(parts).reshape([laid_out.sizes[c] for c in order])
    return shaped.transpose([order.index(c) for c in out if c in order])


@st.composite
def equations(draw):
    """Two operands without diagonals and a result."""
    letters = string.ascii_lowercase[:5]
    x = "".join(draw(st.permutations(letters))[: draw(st.integers(1, 4))])
    w = "".join(draw(st.permutations(letters))[: draw(st.integers(1, 4))])
    both = sorted(set(x + w))
    out = "".join(c for c in draw(st.permutations(both)) if draw(st.booleans()))
    sizes = {c: draw(st.integers(2, 3)) for c in letters}
    return x, w, out, sizes


@given(equations(), st.integers(0, 999))
def test_any_contraction_of_two_operands(equation, seed):
    x, w, out, sizes = equation
    rng = np.random.default_rng(seed)
    values, weight = (rng.normal(size=[sizes[c] for c in term]) for term in (x, w))
    expected = np.einsum(f"{x},{w}->{out}", values, weight)
    np.testing.assert_allclose(product(values, weight, x, w, out), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((4, 3), (3,)),
        ((4, 3), (3, 2)),
        ((5, 4, 3), (3, 2)),
        ((4, 3), (5, 3, 2)),
        ((5, 4, 3), (5, 3, 2)),
        ((1, 4, 3), (5, 3, 2)),
        ((5, 4, 3), (1, 3, 2)),
        ((2, 1, 4, 3), (5, 3, 2)),
    ],
)
def test_matmul_of_any_ranks(left, right):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=left), rng.normal(size=right)
    letters = matmul_letters(len(left), len(right))
    expected = a @ b
    found = product(a, b, letters.left, letters.right, letters.out)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-12)
    flipped = product(b, a, letters.right, letters.left, letters.out)
    np.testing.assert_allclose(flipped.reshape(expected.shape), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...ij,jk->...ik", [(2, 3, 4), (4, 5)]),
        ("bi...,io->bo...", [(2, 3, 4), (3, 5)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("...i,ij", [(5, 2, 3), (3, 4)]),
        ("b...d,df -> b...f", [(2, 3, 4, 5), (5, 6)]),
    ],
)
def test_einsum_with_an_ellipsis_or_no_result(equation, shapes):
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=shape) for shape in shapes)
    terms, out = einsum_letters(equation, [a.ndim, b.ndim])
    np.testing.assert_allclose(
        np.einsum(f"{','.join(terms)}->{out}", a, b), np.einsum(equation, a, b), atol=1e-12
    )
    np.testing.assert_allclose(product(a, b, terms[0], terms[1], out), np.einsum(equation, a, b), atol=1e-12)


@pytest.mark.parametrize(
    ("op", "attributes", "position", "rank", "axes"),
    [
        ("Conv", {}, 0, 4, (1,)),
        ("Conv", {}, 1, 4, None),
        ("Gemm", {}, 0, 2, (1,)),
        ("Gemm", {"transB": 1}, 1, 2, (1,)),
        ("Gemm", {}, 2, 1, (0,)),
        ("MatMul", {}, 0, 3, (2,)),
        ("MatMul", {}, 1, 3, (1,)),
        ("QLinearMatMul", {}, 3, 2, (0,)),
        ("LSTM", {}, 0, 3, (2,)),
        ("LSTM", {}, 4, 1, None),
        ("LSTM", {}, 5, 3, (0, 2)),
        ("LSTM", {"layout": 1}, 5, 3, (1, 2)),
        ("Attention", {}, 0, 3, (2,)),
        ("Attention", {}, 1, 4, (1, 3)),
        ("Attention", {}, 3, 2, None),
        ("Einsum", {"equation": "bthf,hfe->bte"}, 0, 4, (2, 3)),
        ("Einsum", {"equation": "...ij,jk->...ik"}, 0, 4, (3,)),
    ],
)
def test_contracted_axes_of_operations(op, attributes, position, rank, axes):
    node = onnx.helper.make_node(op, ["a", "b", "c", "d", "e", "f"], ["y"], **attributes)
    assert contracted_axes(node, position, rank) == axes
