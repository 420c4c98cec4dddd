"""Einsum of any equation, as contractions of two operands, products, sums and diagonals."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from emergraph.exporters.operations import Kind
from emergraph.exporters.tracing.banks import make_units
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import Array, TraceContext, rule
from emergraph.exporters.tracing.contraction_axes import Letters, einsum_letters
from emergraph.exporters.tracing.dispatch import expand
from emergraph.exporters.tracing.join import join
from emergraph.exporters.tracing.rules.contraction import contract
from emergraph.exporters.tracing.rules.elementwise import pass_one
from emergraph.exporters.tracing.rules.reduction import reduce_labels
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import EdgeKind, TracedAs


@rule(Kind.EINSUM)
def einsum(ctx: TraceContext) -> None:
    """Any equation: operands one after the other, diagonals first; a product without a sum is a Mul."""
    values = ctx.inputs()
    terms, out = einsum_letters(ctx.attr_str("equation", ""), [len(v.shape) for v in values])
    if len(values) == 1:
        _alone(ctx, values[0], terms[0], out)
    elif len(values) > 2 or any(_has_diagonal(term) for term in terms):
        _one_at_a_time(ctx, values, terms, out)
    elif _is_product(values, terms, out):
        for name in ctx.node.input:
            make_units(ctx, name)
        values = ctx.inputs()
        _product(ctx, values, terms, out)
    else:
        contract(ctx, values[0], values[1], Letters(terms[0], terms[1], out))


def _has_diagonal(term: str) -> bool:
    return len(set(term)) < len(term)


def _distinct(term: str) -> str:
    return "".join(dict.fromkeys(term))


def _alone(ctx: TraceContext, value: Value, term: str, out: str) -> None:
    """A diagonal, axes in another order, or a sum over some."""
    own = _distinct(term)
    labels = np.einsum(f"{term}->{own}", value.carried) if own != term else value.carried
    kept = "".join(c for c in own if c in out)
    if len(kept) == len(own):
        ctx.set_labels(0, labels.transpose([own.index(c) for c in out]), value.tracks)
        ctx.did(TracedAs.MOVED)
    elif kept == out:
        gone = [k for k, c in enumerate(own) if c not in out]
        diagonal = replace(value, labels=labels, shape=labels.shape)
        reduce_labels(ctx, diagonal, gone, weight="sum", nonlinear=False)
    else:
        name = f"{ctx.node.output[0]}:sum"
        sizes = dict(zip(own, labels.shape, strict=True))
        steps = [
            _step([ctx.node.input[0]], [term], kept, name),
            _step([name], [kept], out, ctx.node.output[0]),
        ]
        expand(ctx, steps, {name: tuple(sizes[c] for c in kept)})


def _step(names: Sequence[str], terms: Sequence[str], out: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Einsum", list(names), [result], equation=f"{','.join(terms)}->{out}")


def _one_at_a_time(ctx: TraceContext, values: Sequence[Value], terms: list[str], out: str) -> None:
    """Diagonals first; then, from the first operand that carries units, whatever shares an axis with it."""
    sizes: dict[str, int] = {}
    for value, term in zip(values, terms, strict=True):
        for letter, size in zip(term, value.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    result = ctx.node.output[0]
    steps: list[onnx.NodeProto] = []
    shapes: dict[str, tuple[int, ...]] = {}
    left = [(name, term) for name, term in zip(ctx.node.input, terms, strict=True)]
    for k, (name, term) in enumerate(left):
        if _has_diagonal(term):
            left[k] = (f"{result}:diagonal{k}", _distinct(term))
            shapes[left[k][0]] = tuple(sizes[c] for c in left[k][1])
            steps.append(_step([name], [term], left[k][1], left[k][0]))
    name, term = left.pop(next((k for k, v in enumerate(values) if v.labels is not None), 0))
    while left:
        other, own = left.pop(next((k for k, (_, t) in enumerate(left) if set(t) & set(term)), 0))
        needed = set(out).union(*(t for _, t in left))
        both = out if not left else "".join(c for c in _distinct(term + own) if c in needed)
        made = result if not left else f"{result}:{len(left)}"
        steps.append(_step([name, other], [term, own], both, made))
        if left:
            shapes[made] = tuple(sizes[c] for c in both)
        name, term = made, both
    expand(ctx, steps, shapes)


def _is_product(values: Sequence[Value], terms: Sequence[str], out: str) -> bool:
    """Whether nothing is summed, and a constant has no axis of its own: element by element."""
    if set(terms[0]) | set(terms[1]) != set(out):
        return False
    pairs = zip(values, terms, reversed(terms), strict=True)
    return all(
        v.labels is not None or v.bank is not None or set(own) <= set(other) for v, own, other in pairs
    )


def _product(ctx: TraceContext, values: Sequence[Value], terms: Sequence[str], out: str) -> None:
    carried: list[Value] = []
    for value, term in zip(values, terms, strict=True):
        if value.labels is not None:
            labels = np.asarray(_laid_out(value.labels, term, out), np.int64)
            carried.append(replace(value, labels=labels, shape=labels.shape))
    if len(carried) > 1:
        join(ctx, carried, kind=EdgeKind.GATE, weights=None)
        return
    constant = next(
        (_aligned(v.constant, t, out) for v, t in zip(values, terms, strict=True) if v.constant), None
    )
    pass_one(ctx, carried[0], multiply=constant)


def _aligned(constant: Constant, term: str, out: str) -> Constant:
    shape = _laid_out(np.broadcast_to(0, constant.shape), term, out).shape
    return replace(
        constant,
        shape=shape,
        load=lambda: _laid_out(constant.load(), term, out),
        permutation=None,
        unmoved=None,
    )


def _laid_out(array: Array, term: str, out: str) -> Array:
    """Axes in the order of the output, of length 1 where the operand has none."""
    order = sorted(range(len(term)), key=lambda k: out.index(term[k]))
    moved = array.transpose(order)
    return moved[tuple(slice(None) if c in term else None for c in out)]
