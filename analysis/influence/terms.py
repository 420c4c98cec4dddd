"""What each unit adds to each other unit: the terms of the sums that a model's operations compute."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes
from emergraph.exporters.operations import PICKING, Kind, kind_of
from emergraph.exporters.tracing.contraction_axes import Plan, contraction
from emergraph.exporters.tracing.labels import NO_UNIT, Labels, compress, core, distinct_rows, joint_core
from emergraph.exporters.tracing.sums import Operand, Sum
from emergraph.graphstore.records import EdgeKind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class NotMeasured(Exception):  # noqa: N818 - a reason that is told, not an error
    """Why the terms of a layer are not computed."""


class Terms(NamedTuple):
    """Terms of some edges, summed over all positions; the arrays broadcast to each other."""

    kind: EdgeKind
    src: Ints
    """Unit; -1 for what carries none: biases and constants."""
    dst: Ints
    total: Floats
    size: Floats
    """Sum of the absolute values of the terms of each position."""
    exists: Bools
    """Whether there is such an edge: a weight that is not zero."""


class Written(NamedTuple):
    """What an operation of several layers computes, written out."""

    terms: list[Terms]
    outputs: dict[str, Floats]
    """By name, to be compared with what the operation gives."""
    positions: tuple[int, ...]
    """Of each of its layers."""


@dataclass(frozen=True)
class Wanted:
    """Units whose terms are asked for."""

    units: Ints
    """Sorted."""

    def among(self, labels: Ints) -> Bools:
        """Which of some units are."""
        return np.isin(labels, self.units)


def terms_of(one: Sum, values: Sequence[Floats | None], wanted: Wanted) -> list[Terms]:
    """The terms of one operation on one sample.

    Args:
        one: The operation, not a recurrent one.
        values: Of its operands, as the operation means them; None for those that are constants.
        wanted: Target units.

    Raises:
        NotMeasured: The operation is no sum of products.
    """
    kind = kind_of(one.node)
    if kind is Kind.DEFORMED:
        raise NotMeasured("its taps move with the data")
    if one.letters is None and one.operands[-1].constant is not None:
        return _of_convolution(one, _given(values[0]), wanted)
    if one.letters is None:
        return _of_join(one, [_given(v) for v in values], wanted)
    if one.operands[1].constant is not None:
        return _of_weights(one, _given(values[0]), wanted)
    return _of_activations(one, _given(values[0]), _given(values[1]), wanted)


def _given(values: Floats | None) -> Floats:
    if values is None:
        raise NotMeasured("what it reads is made inside of another operation")
    return values


def dense_terms(
    kind: EdgeKind, row: Ints, x: Floats, weights: Floats, targets: Ints, wanted: Wanted
) -> Iterator[Terms]:
    """Terms of `x @ weights`.

    Args:
        kind: Of the edges.
        row: (n_summed,) unit that each column of x carries.
        x: (positions, n_summed).
        weights: (n_summed, n_new).
        targets: (n_new,) unit of each column.
        wanted: Which of them.
    """
    chosen = wanted.among(targets)
    if not chosen.any():
        return
    w, dst = np.asarray(weights[:, chosen], np.float64), targets[chosen][None]
    order = np.argsort(row, kind="stable")
    units, starts, counts = np.unique(row[order], return_index=True, return_counts=True)
    single = order[starts[counts == 1]]
    if single.size:
        own = w[single]
        total = x[:, single].sum(0)[:, None] * own
        size = np.abs(x[:, single]).sum(0)[:, None] * np.abs(own)
        yield Terms(kind, row[single][:, None], dst, total, size, own != 0)
    for unit, start, count in zip(units, starts, counts, strict=True):
        if count > 1:
            own = order[start : start + count]
            each = x[:, own] @ w[own]
            yield Terms(
                kind,
                np.array([[unit]]),
                dst,
                each.sum(0)[None],
                np.abs(each).sum(0)[None],
                (w[own] != 0).any(0)[None],
            )


def _of_weights(one: Sum, x: Floats, wanted: Wanted) -> list[Terms]:
    """A contraction with constant weights."""
    operand, weight = one.operands[0], one.operands[1].constant
    assert one.letters is not None and weight is not None and one.labels is not None  # noqa: S101, PT018 - by `Sum`
    labels = np.asarray(operand.labels)
    weights = np.asarray(weight.floats(), np.float64) * one.scale
    letters = one.letters
    laid = contraction(labels, weights, letters.left, letters.right, letters.out)
    rows = _rows(x, letters.left, laid.plan, laid.plan.free + laid.plan.summed, len(laid.plan.summed))
    targets = _rows(one.labels, letters.out, laid.plan, laid.plan.free + laid.plan.new, len(laid.plan.new))
    found: list[Terms] = []
    for row, values, after, matrix in zip(laid.labels, rows, targets, laid.matrices, strict=True):
        n, weight_rows = len(values), np.asarray(matrix.weights, np.float64)
        flat = np.broadcast_to(row, (*_sizes(laid.plan.free, laid.sizes), row.shape[-1])).reshape(n, -1)
        kinds = np.concatenate([flat, after[:, :1]], axis=1)
        distinct = distinct_rows(kinds)
        for number, pattern in enumerate(distinct.rows):
            here = distinct.which == number
            first = int(np.argmax(here))
            own = dense_terms(EdgeKind.WEIGHT, pattern[:-1], values[here], weight_rows, after[first], wanted)
            found += own
    return found


def _sizes(letters: str, sizes: dict[str, int]) -> list[int]:
    return [sizes[c] for c in letters]


def _rows(array: NDArray[np.generic], own: str, plan: Plan, inner: str, n_last: int) -> NDArray[np.generic]:
    """(batch, positions, last) of an array; axes of size 1 that the other operand fills are taken away."""
    kept = [k for k, c in enumerate(own) if c in plan.batch + inner]
    index = tuple(slice(None) if k in kept else 0 for k in range(array.ndim))
    letters = "".join(own[k] for k in kept)
    moved = array[index].transpose([letters.index(c) for c in plan.batch + inner])
    n_batch = len(plan.batch)
    shape = moved.shape
    last = int(np.prod(shape[len(shape) - n_last :], dtype=np.int64))
    return moved.reshape(int(np.prod(shape[:n_batch], dtype=np.int64)), -1, last)


def _of_convolution(one: Sum, x: Floats, wanted: Wanted) -> list[Terms]:
    """A convolution: what each unit adds at each position, over the taps of its channels."""
    weight = one.operands[1].constant
    assert weight is not None and one.labels is not None  # noqa: S101, PT018 - by `Sum`
    weights = np.asarray(weight.floats(), np.float64)
    if one.transposed:  # (I, O/g, k...) to one matrix per group
        grouped = weights.reshape(one.group, -1, *weights.shape[1:])
        grouped = np.flip(grouped, tuple(range(3, grouped.ndim)))
    else:
        grouped = np.swapaxes(weights.reshape(one.group, -1, *weights.shape[1:]), 1, 2)
    labels = compress(np.asarray(one.operands[0].labels))
    targets = core(compress(np.moveaxis(one.labels, 1, 0))).reshape(one.labels.shape[1], -1)[:, 0]
    slide = _Slide.of(one, x.shape[2:], weights.shape[2:])
    per_group = x.shape[1] // one.group
    found = []
    for number, kernel in enumerate(grouped):  # (I/g, O/g, k...)
        after = targets[number * kernel.shape[1] : (number + 1) * kernel.shape[1]]
        chosen = wanted.among(after)
        if not chosen.any():
            continue
        channels = np.arange(number * per_group, (number + 1) * per_group)
        for unit, own, mask in _channels_of(labels, channels):
            values = x[:, own] if mask is None else np.where(mask, x[:, own], 0.0)
            part = kernel[own - channels[0]][:, chosen]
            each = slide.columns(values) @ np.moveaxis(part, 1, -1).reshape(-1, part.shape[1])
            found.append(
                Terms(
                    EdgeKind.WEIGHT,
                    np.array([[unit]]),
                    after[chosen][None],
                    each.sum(0)[None],
                    np.abs(each).sum(0)[None],
                    (part != 0).any(axis=(0, *range(2, part.ndim)))[None],
                )
            )
    return found


def _channels_of(labels: Labels, channels: Ints) -> Iterator[tuple[int, Ints, Bools | None]]:
    """Each unit of some channels, which of them carry it, and where, if not everywhere."""
    own = labels[:, channels]
    inner = core(own)
    if inner.size == inner.shape[1]:
        flat = np.broadcast_to(inner.reshape(1, -1), (1, len(channels)))[0]
        for unit in np.unique(flat):
            yield int(unit), channels[flat == unit], None
        return
    for unit in np.unique(inner):
        mask = np.broadcast_to(own == unit, own.shape)
        carrying = mask.any(axis=(0, *range(2, mask.ndim)))
        yield int(unit), channels[carrying], mask[:, carrying]


class _Slide(NamedTuple):
    """How a kernel slides over positions."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    """Padding in front; negative where positions are cut off."""
    out: tuple[int, ...]
    spread: tuple[int, ...]
    """Of a transposed convolution: how far apart its input's positions are laid."""

    @classmethod
    def of(cls, one: Sum, size: Sequence[int], kernel: Sequence[int]) -> "_Slide":
        """From the attributes of an operation, and the size of its output."""
        given, rank = attributes(one.node), len(kernel)
        assert one.labels is not None  # noqa: S101 - by `Sum`
        out = one.labels.shape[2:]
        strides, dilations = (_numbers(given, key, [1] * rank) for key in ("strides", "dilations"))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        auto = str(given.get("auto_pad", "NOTSET"))
        begin = _numbers(given, "pads", [0] * 2 * rank)[:rank]
        if one.transposed:
            extra = _numbers(given, "output_padding", [0] * rank)
            whole = [(n - 1) * s + e + r for n, s, e, r in zip(size, strides, extra, reach, strict=True)]
            cut = [w - o for w, o in zip(whole, out, strict=True)]
        else:
            cut = [max((o - 1) * s + r - n, 0) for n, o, s, r in zip(size, out, strides, reach, strict=True)]
        if auto.startswith("SAME") or (one.transposed and "output_shape" in given):
            begin = [c // 2 if auto == "SAME_UPPER" else c - c // 2 for c in cut]
        elif auto == "VALID":
            begin = [0] * rank
        if one.transposed:
            front = tuple(r - 1 - b for r, b in zip(reach, begin, strict=True))
            return cls(tuple(kernel), (1,) * rank, tuple(dilations), front, tuple(out), tuple(strides))
        return cls(tuple(kernel), tuple(strides), tuple(dilations), tuple(begin), tuple(out), (1,) * rank)

    def columns(self, x: Floats) -> Floats:
        """(positions, channels * taps) of what the kernel sees."""
        n_batch, n_channels = x.shape[:2]
        for k, step in enumerate(self.spread):
            if step > 1:
                shape = list(x.shape)
                shape[2 + k] = (shape[2 + k] - 1) * step + 1
                wide = np.zeros(shape)
                wide[(slice(None),) * (2 + k) + (slice(None, None, step),)] = x
                x = wide
        for k, begin in enumerate(self.begin):
            needed = (self.out[k] - 1) * self.strides[k] + (self.kernel[k] - 1) * self.dilations[k] + 1
            if begin < 0:
                x = x[(slice(None),) * (2 + k) + (slice(-begin, None),)]
            missing = max(0, needed - x.shape[2 + k] - max(begin, 0))
            pads = [(0, 0)] * x.ndim
            pads[2 + k] = (max(begin, 0), missing)
            x = np.pad(x, pads)
        taps = []
        for tap in product(*map(range, self.kernel)):
            index = tuple(
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, self.dilations, self.out, self.strides, strict=True)
            )
            taps.append(np.moveaxis(x[(slice(None), slice(None), *index)], 1, -1))
        return np.stack(taps, axis=-1).reshape(-1, n_channels * len(taps)) if n_batch else x.reshape(0, 1)


def _numbers(given: dict[str, object], key: str, default: list[int]) -> list[int]:
    found = given.get(key)
    return [int(n) for n in found] if isinstance(found, list | tuple) and found else default


class _Place(NamedTuple):
    """Where a unit is in an operand."""

    unit: int
    where: tuple[Ints, ...]
    """Of each axis the indices at which it is."""
    mask: Bools | None
    """Where among them; None for everywhere."""


def _places(labels: Labels) -> Iterator[_Place]:
    """Where each unit of an operand is."""
    packed = compress(labels)
    inner = core(packed)
    flat = inner.ravel()
    order = np.argsort(flat, kind="stable")
    units, starts = np.unique(flat[order], return_index=True)
    for unit, own in zip(units, np.split(order, starts[1:]), strict=True):
        index: list[Ints] = []
        for axis, at in enumerate(np.unravel_index(own, inner.shape)):
            everywhere = inner.shape[axis] == 1 and packed.shape[axis] > 1
            index.append(np.arange(packed.shape[axis]) if everywhere else np.unique(at))
        inside = packed[np.ix_(*index)] == unit
        yield _Place(int(unit), tuple(index), None if inside.all() else inside)


def _of_activations(one: Sum, left: Floats, right: Floats, wanted: Wanted) -> list[Terms]:
    """A contraction of two activations: each product is divided between its factors."""
    assert one.letters is not None and one.labels is not None  # noqa: S101, PT018 - by `Sum`
    letters, labels = one.letters, compress(one.labels)
    if not wanted.among(np.asarray(core(labels))).any():
        return []
    found: list[Terms] = []
    sides = ((left, letters.left, right, letters.right), (right, letters.right, left, letters.left))
    for operand, share, (own, mine, other, theirs) in zip(one.operands, one.factors, sides, strict=True):
        for place in _places(np.asarray(operand.labels)):
            at = dict(zip(mine, place.where, strict=True))
            part = own[np.ix_(*place.where)] * (share * one.scale)
            if place.mask is not None:
                part = part * place.mask
            sizes = {c: own.shape[k] for k, c in enumerate(mine)}
            there, whole = (
                tuple(
                    at[c] if c in at and size == sizes[c] else np.arange(size)
                    for c, size in zip(names, shape, strict=True)
                )
                for names, shape in ((theirs, other.shape), (letters.out, labels.shape))
            )
            each = np.einsum(f"{mine},{theirs}->{letters.out}", part, other[np.ix_(*there)], optimize=True)
            each = np.broadcast_to(each, [len(axis) for axis in whole])
            source = np.broadcast_to(np.asarray(place.unit), each.shape)
            found += _summed(EdgeKind.ATTENTION, source, _part(labels, whole), each, wanted)
    return found


def _part(labels: Labels, index: Sequence[Ints]) -> Labels:
    """Labels at some indices of each axis; axes along which they do not change stay so."""
    steady = [stride == 0 and size > 1 for stride, size in zip(labels.strides, labels.shape, strict=True)]
    picked = labels[np.ix_(*(at[:1] if same else at for at, same in zip(index, steady, strict=True)))]
    return np.broadcast_to(picked, [len(at) for at in index])


def _summed(kind: EdgeKind, src: Labels, dst: Labels, each: Floats, wanted: Wanted) -> list[Terms]:
    """Terms element by element, summed by pair of labels."""
    inner = [np.asarray(a, np.int64) for a in joint_core([compress(src), compress(dst)])]
    same = tuple(k for k in range(each.ndim) if inner[0].shape[k] == 1 and each.shape[k] > 1)
    total = each.sum(axis=same, keepdims=True).ravel()
    size = np.abs(each).sum(axis=same, keepdims=True).ravel()
    sources, targets = inner[0].ravel(), inner[1].ravel()
    chosen = wanted.among(targets)
    if not chosen.any():
        return []
    pairs = np.stack([sources[chosen], targets[chosen]], axis=1)
    distinct, inverse = np.unique(pairs, axis=0, return_inverse=True)
    sums: list[Floats] = [
        np.bincount(inverse.ravel(), part[chosen], len(distinct)).astype(np.float64) for part in (total, size)
    ]
    everywhere = np.ones(len(distinct), bool)
    return [Terms(kind, distinct[:, 0], distinct[:, 1], sums[0], sums[1], everywhere)]


def _of_join(one: Sum, values: Sequence[Floats], wanted: Wanted) -> list[Terms]:
    """A sum of activations, each with its weight; or a product, divided evenly between its factors."""
    assert one.labels is not None  # noqa: S101 - by `Sum`
    kind = kind_of(one.node)
    shape = one.labels.shape
    if one.factors:
        edges = EdgeKind.WEIGHT if kind in PICKING else EdgeKind.IDENTITY
        parts = [f * v for f, v in zip(one.factors, values, strict=True)]
    elif kind in (Kind.PRODUCT, Kind.QUOTIENT):
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = (
                values[0] / values[1]
                if kind is Kind.QUOTIENT
                else np.prod(np.broadcast_arrays(*values), axis=0)
            )
        edges, parts = EdgeKind.GATE, [whole / len(values)] * len(values)
    else:
        raise NotMeasured(f"{one.node.op_type} of activations is neither a sum nor a product")
    found: list[Terms] = []
    for operand, part in zip(one.operands, parts, strict=True):
        source = np.broadcast_to(np.asarray(operand.labels), shape)
        found += _summed(edges, source, one.labels, np.broadcast_to(part, shape), wanted)
    return found


def positions(labels: Labels, units: Ints) -> Ints:
    """How many elements of an output carry each of some units."""
    packed = compress(labels)
    inner = core(packed)
    repeats = packed.size // max(inner.size, 1)
    place = np.searchsorted(units, inner.ravel())
    place = np.minimum(place, len(units) - 1)
    hit = units[place] == inner.ravel()
    return np.bincount(place[hit], minlength=len(units)) * repeats


__all__ = [
    "NO_UNIT",
    "NotMeasured",
    "Operand",
    "Terms",
    "Wanted",
    "dense_terms",
    "positions",
    "terms_of",
]
