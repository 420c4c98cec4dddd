"""Positions: axes along which a tensor shows the same units again, whatever else differs along them.

There is one unit per index of the output axes of a layer's weight, whatever position carries it. So the label
rows of two positions are one row, with the labels of both, unless they *contend*: unless somewhere they hold
two different units of one family, a family being a layer, what one learned query attends to, or the steps of
one unrolled recurrence. Rows of different layers do not contend (a class token beside patches, a rotary
embedding that leaves position 0 alone, every second token through another layer), nor do labels that are
missing (padding, masks, learned tokens). Positions that are units in truth do: weights have contracted over
them, or an image was flattened.

An axis that a weight does not contract is an axis of positions when nothing contends along it. Where no
weight tells (sums and products of activations, batch axes of attention), an axis must also be seen to be none
of features: another operand shows one unit all along it, or each layer lies along other axes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.labels import (
    NO_UNIT,
    DistinctRows,
    Labels,
    absorb_padding,
    compress,
    core,
    distinct_rows,
)

Families = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""The family of each unit of an array without gaps; see `GraphBuilder.families`."""


def close_gaps(labels: Labels, axes: Sequence[int]) -> Labels:
    """Take each of the axes along which labels are equal or missing as one slice, without the gaps."""
    inner = core(labels)
    for axis in axes:
        if inner.shape[axis] > 1:
            top = inner.max(axis=axis, keepdims=True)
            if bool(((inner == top) | (inner < 0)).all()):
                inner = top
    return np.broadcast_to(inner, labels.shape)


def is_steady(labels: Labels, axis: int) -> bool:
    """Whether an axis shows one unit all along, up to gaps."""
    inner = core(labels)
    return core(close_gaps(inner, [axis])).shape[axis] == 1 and bool((inner >= 0).any())


def contends(labels: Labels, axes: Sequence[int], families: Families) -> bool:
    """Whether two different units of one family stand at indices that differ along some axes alone."""
    inner = core(close_gaps(labels, axes))
    open_axes = [k for k in axes if inner.shape[k] > 1]
    if not open_axes:
        return False
    rows = distinct_rows(np.ascontiguousarray(_rows_along(inner, open_axes))).rows
    rank = np.full(rows.shape, NO_UNIT, np.int64)
    rank[rows >= 0] = families(rows[rows >= 0])
    # Sorted by family, then by unit: neighbours of one family are one unit or contend.
    order = np.lexsort((rows, rank), axis=0)
    unit, family = np.take_along_axis(rows, order, 0), np.take_along_axis(rank, order, 0)
    same = (family[1:] == family[:-1]) & (family[1:] >= 0)
    return bool((same & (unit[1:] != unit[:-1])).any())


def _rows_along(labels: Labels, axes: Sequence[int]) -> Labels:
    """(indices along the axes, all other elements)."""
    rest = [k for k in range(labels.ndim) if k not in axes]
    return labels.transpose([*axes, *rest]).reshape(prod(labels.shape[k] for k in axes), -1)


def lies_elsewhere(labels: Labels, families: Families) -> bool:
    """Whether each family of a tensor along one of whose axes nothing contends has its units along others."""
    units = np.unique(core(labels))
    units = units[units >= 0]
    return bool((np.unique(families(units), return_counts=True)[1] > 1).all()) if units.size else True


def free_positions(
    labels: Labels, axes: Sequence[int], families: Families, *, by_weight: bool = True
) -> tuple[int, ...]:
    """Which of the axes that an operand has for itself in a contraction are axes of positions.

    Args:
        labels: Of the operand.
        axes: The axes that only it and the output have.
        families: Of units.
        by_weight: Whether a weight says that these axes are not its own.
    """
    found = [k for k in axes if labels.shape[k] > 1 and labels.strides[k] != 0]
    if not found or not contends(labels, found, families):
        return _not_features(labels, found, families, by_weight=by_weight)
    chosen: list[int] = []
    for axis in found:
        if not contends(labels, [*chosen, axis], families):
            chosen.append(axis)
    return _not_features(labels, chosen, families, by_weight=by_weight)


def _not_features(
    labels: Labels, axes: Sequence[int], families: Families, *, by_weight: bool
) -> tuple[int, ...]:
    return tuple(axes) if by_weight or lies_elsewhere(labels, families) else ()


def shared_positions(
    operands: Sequence[Labels],
    sizes: Sequence[Sequence[int]],
    axes: Sequence[int],
    families: Families,
    *,
    scores: Sequence[bool] = (),
) -> tuple[int, ...]:
    """Which axes that several operands share, element by element, are axes of positions.

    Args:
        operands: Labels of one shape.
        sizes: The operands' own sizes along every axis, before they were broadcast.
        axes: The axes in question.
        families: Of units.
        scores: Whether an operand holds attention scores. Their queries and keys are positions, whatever is
            added to them there (products with learned relative positions).
    """
    chosen: list[int] = []
    for axis in axes:
        changing = [o for o in operands if o.strides[axis] != 0 and o.shape[axis] > 1]
        if not changing:
            continue
        steady = [is_steady(o, axis) for o in operands]
        seen = any(s and own[axis] > 1 for s, own in zip(steady, sizes, strict=True))
        decided = any(
            d and s and own[axis] > 1 for d, s, own in zip(scores, steady, sizes, strict=bool(scores))
        )
        only_gaps = all(steady) and all(lies_elsewhere(o, families) for o in changing)
        if decided or (
            (seen or only_gaps) and not any(contends(o, [*chosen, axis], families) for o in operands)
        ):
            chosen.append(axis)
    return tuple(chosen)


@dataclass(frozen=True)
class Uses:
    """The sets of units that a weight makes, and which set is where."""

    rows: list[list[Labels]]
    """For each set, rows of labels along what is contracted; several where positions carry different ones.

    A label that an earlier row of the set has in the same place is left out of a later one."""
    which: NDArray[np.int64]
    """Index of the set, with the rank of the axes that are not contracted (length 1 where it stays)."""

    @property
    def n_rows(self) -> int:
        """Rows of all sets."""
        return sum(len(rows) for rows in self.rows)

    def rows_with(self, per_set: NDArray[np.int64]) -> Iterator[tuple[Labels, int]]:
        """Each row with what belongs to its set."""
        for rows, value in zip(self.rows, per_set.tolist(), strict=True):
            for row in rows:
                yield row, value


def uses_of(labels: Labels, families: Families) -> Uses:
    """Sets of units that a weight makes of labels whose last axis it contracts.

    Args:
        labels: (axes that are not contracted..., contracted).
        families: Of units.
    """
    free = range(labels.ndim - 1)
    inner = compress(close_gaps(labels, free))
    inner = inner[tuple(slice(0, 1) if inner.strides[k] == 0 else slice(None) for k in free)]
    merged = free_positions(inner, free, families)
    kept = [k for k in free if k not in merged]
    moved = np.ascontiguousarray(inner.transpose([*merged, *kept, labels.ndim - 1]))
    length = labels.shape[-1]
    n_kept = prod(inner.shape[k] for k in kept)
    variants = distinct_rows(moved.reshape(-1, n_kept * length)).rows
    wide = np.moveaxis(variants.reshape(-1, n_kept, length), 0, 1).reshape(n_kept, -1)
    found = absorb_padding(distinct_rows(np.ascontiguousarray(wide)))
    shape = [1 if k in merged else inner.shape[k] for k in free]
    rows = [_without_repeats(row.reshape(len(variants), length)) for row in found.rows]
    return Uses(rows, found.which.reshape(shape))


def _without_repeats(rows: Labels) -> list[Labels]:
    if len(rows) == 1:
        return [rows[0]]
    column = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    _, first = np.unique(np.stack([column.ravel(), rows.ravel()], axis=1), axis=0, return_index=True)
    kept = np.full(rows.size, NO_UNIT, np.int64)
    kept[first] = rows.ravel()[first]
    left = kept.reshape(rows.shape)
    return [row for k, row in enumerate(left) if k == 0 or (row >= 0).any()]


@dataclass(frozen=True)
class JoinedTuples:
    """Tuples of labels that stand at positions of one unit."""

    tuple_of: NDArray[np.int64]
    """(pairs,) index of a tuple that belongs to a group."""
    group_of: NDArray[np.int64]
    """(pairs,) the group."""
    which: NDArray[np.int64]
    """Group of every element (length 1 along positions)."""


def join_tuples(which: NDArray[np.int64], axes: Sequence[int]) -> JoinedTuples:
    """Group tuples that stand at indices which differ along some axes alone, in order of appearance.

    Args:
        which: Index of the tuple at every element.
        axes: Axes of positions.
    """
    inner = core(which)
    rest = [k for k in range(inner.ndim) if k not in axes]
    columns = distinct_rows(np.ascontiguousarray(_rows_along(inner, list(axes)))).rows
    found: DistinctRows = distinct_rows(np.sort(columns.T, axis=1))
    pairs = np.unique(
        np.stack([np.repeat(np.arange(len(found.rows)), found.rows.shape[1]), found.rows.ravel()], axis=1),
        axis=0,
    )
    shape = [1 if k in axes else inner.shape[k] for k in range(inner.ndim)]
    where = found.which.reshape([inner.shape[k] for k in rest]).reshape(shape)
    return JoinedTuples(pairs[:, 1], pairs[:, 0], where)
