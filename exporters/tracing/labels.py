"""Label arrays: which unit every element of a tensor carries.

A label array has the shape of its tensor; an element holds the id of the unit that it carries, or -1 where it
carries none (a constant, padding). Axes along which the labels do not change are kept as one slice with
stride 0, so that a convolution's output costs as much as its channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""Array of unit ids with the shape of a tensor; -1 where an element carries no unit."""

NO_UNIT = -1

Number = TypeVar("Number", bound=np.generic)


def compress(labels: Labels) -> Labels:
    """Return equal labels in which every axis along which they do not change has stride 0."""
    labels = np.asarray(labels)
    inner = core(labels)
    for axis in range(inner.ndim):
        if inner.shape[axis] <= 1 or _corners_differ(inner, axis):
            continue
        first, last = (np.take(inner, [k], axis=axis) for k in (0, -1))
        if np.array_equal(first, last) and bool((inner == first).all()):
            inner = first
    return spread(inner, labels.shape)


def _corners_differ(labels: Labels, axis: int) -> bool:
    """Whether the first and the last element along an axis differ: most axes that change are told so."""
    if labels.size == 0:
        return False
    start = [0] * labels.ndim
    end = start.copy()
    end[axis] = labels.shape[axis] - 1
    return labels.item(*start) != labels.item(*end)


def spread(array: NDArray[Number], shape: tuple[int, ...]) -> NDArray[Number]:
    """`numpy.broadcast_to`, which takes its time also where nothing has to be done."""
    return array if array.shape == shape else np.broadcast_to(array, shape)


def core(labels: Labels) -> Labels:
    """Return the labels with every stride-0 axis reduced to length 1: as much as is really different."""
    if 0 not in labels.strides:
        return labels
    index = tuple(
        slice(0, 1) if stride == 0 and size > 1 else slice(None)
        for stride, size in zip(labels.strides, labels.shape, strict=True)
    )
    return labels[index]


def look_up(table: NDArray[np.int64], which: NDArray[np.int64]) -> Labels:
    """table[which], with stride 0 along the axes along which `which` has stride 0."""
    return spread(table[core(which)], which.shape)


def joint_core(arrays: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """Reduce axes on which *all* arrays (of one shape) are constant to length 1."""
    ndim = arrays[0].ndim
    index = tuple(
        slice(0, 1) if all(a.strides[k] == 0 or a.shape[k] <= 1 for a in arrays) else slice(None)
        for k in range(ndim)
    )
    return [a[index] for a in arrays]


def units_in(labels: Labels) -> NDArray[np.int64]:
    """Sorted distinct unit ids in a label array, without -1."""
    found = np.unique(core(labels))
    return found[found >= 0]


def unit_axes(labels: Labels, first: int, count: int) -> tuple[int, ...] | None:
    """Axes which, raveled in C order, give the unit index of a layer; None when there is no such layout.

    The layer's units are `first .. first + count - 1`; the labels must be constant along all other axes.
    """
    inner = core(compress(labels))
    if inner.size != count:
        return None
    start = (0,) * inner.ndim
    steps = {
        k: int(inner[tuple(int(k == axis) for axis in range(inner.ndim))] - inner[start])
        for k in range(inner.ndim)
        if inner.shape[k] > 1
    }
    axes = tuple(sorted(steps, key=lambda k: -steps[k]))
    rest = [k for k in range(inner.ndim) if k not in axes]
    if not np.array_equal(inner.transpose([*axes, *rest]).ravel(), np.arange(first, first + count)):
        return None
    if axes:
        return axes
    # A single unit: any axis of length 1 would do; the channel axis where there is one.
    return (1,) if labels.ndim > 1 and labels.shape[1] == 1 else ()


@dataclass(frozen=True)
class DistinctRows:
    """Distinct rows of a matrix of labels, and which of them every row is."""

    rows: Labels
    """(n_distinct, row length)."""
    which: NDArray[np.int64]
    """(n_rows,) index into `rows`."""


def distinct_rows(matrix: Labels) -> DistinctRows:
    """Find the distinct rows of a (possibly stride-0) matrix, in order of first appearance."""
    n_rows = matrix.shape[0]
    if n_rows and (
        n_rows == 1
        or matrix.strides[0] == 0
        or np.array_equal(matrix, np.broadcast_to(matrix[:1], matrix.shape))
    ):
        return DistinctRows(matrix[:1], np.zeros(n_rows, np.int64))
    narrow = matrix[:, :1] if matrix.shape[1] > 1 and matrix.strides[1] == 0 else matrix
    _, index, inverse = np.unique(narrow, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(index, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return DistinctRows(matrix[index[order]], rank[inverse.ravel()])


def absorb_padding(found: DistinctRows) -> DistinctRows:
    """Take rows that are another row with some labels left out (padding at a border) as that row."""
    rows = found.rows
    gaps = (rows < 0).any(axis=1)
    if not gaps.any() or len(rows) == 1:
        return found
    filled = (rows >= 0).sum(axis=1)
    target = np.arange(len(rows))
    for i in np.flatnonzero(gaps).tolist():
        fits = np.flatnonzero(((rows == rows[i]) | (rows[i] < 0)).all(axis=1))
        target[i] = fits[np.argmax(filled[fits])]
    kept, which = np.unique(target, return_inverse=True)
    return DistinctRows(rows[kept], which[found.which])


@dataclass(frozen=True)
class ReducedRows:
    """Labels laid out as one row per element that a reduction over some axes leaves."""

    rows: Labels
    """(kept elements, reduced elements), each axis that does not change anything taken once."""
    shape: tuple[int, ...]
    """Shape of the kept elements in the tensor's rank: 1 along reduced axes and where nothing changes."""
    repeats: int
    """How often every element of a row stands in the tensor."""


def reduced_rows(labels: Labels, axes: Sequence[int]) -> ReducedRows:
    """Lay labels out for a reduction over some axes."""
    packed = compress(labels)
    inner = core(packed)
    kept = [k for k in range(packed.ndim) if k not in axes]
    moved = inner.transpose([*kept, *axes])
    n_rows = prod(inner.shape[k] for k in kept)
    repeats = prod(packed.shape[k] // max(inner.shape[k], 1) for k in axes)
    shape = tuple(1 if k in axes else inner.shape[k] for k in range(packed.ndim))
    length = prod(inner.shape[k] for k in axes)
    return ReducedRows(np.ascontiguousarray(moved).reshape(n_rows, length), shape, repeats)


def distinct_sets(matrix: Labels) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Distinct sets of labels among the rows of a matrix (order and repetition within a row do not matter).

    Returns:
        The sets as sorted arrays without -1, in order of first appearance, and the set index of every row.
    """
    rows = distinct_rows(matrix)
    keys: dict[bytes, int] = {}
    sets: list[NDArray[np.int64]] = []
    remap = np.empty(rows.rows.shape[0], np.int64)
    for i, row in enumerate(rows.rows):
        members = np.unique(row)
        members = members[members >= 0]
        key = members.tobytes()
        if key not in keys:
            keys[key] = len(sets)
            sets.append(members)
        remap[i] = keys[key]
    return sets, remap[rows.which]


def distinct_multisets(
    matrix: Labels,
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]], NDArray[np.int64]]:
    """Distinct multisets of labels among the rows of a matrix (order within a row does not matter).

    Returns:
        The labels of each as sorted arrays without -1, how often each occurs, and the multiset of every row.
    """
    rows = distinct_rows(matrix)
    keys: dict[tuple[bytes, bytes], int] = {}
    sets: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    remap = np.empty(rows.rows.shape[0], np.int64)
    for i, row in enumerate(rows.rows):
        members, times = np.unique(row[row >= 0], return_counts=True)
        key = (members.tobytes(), times.tobytes())
        if key not in keys:
            keys[key] = len(sets)
            sets.append(members)
            counts.append(times.astype(np.int64))
        remap[i] = keys[key]
    return sets, counts, remap[rows.which]


def distinct_tuples(arrays: Sequence[Labels]) -> tuple[NDArray[np.int64], Labels]:
    """Distinct tuples (a[i], b[i], ...) over elements of equally shaped label arrays.

    Returns:
        (n_distinct, n_arrays) tuples in order of first appearance, and an array of tuple indices that has the
        arrays' shape (stride 0 where none of them changes).
    """
    shape = arrays[0].shape
    inner = joint_core([compress(a) for a in arrays])
    stacked = np.stack([a.ravel() for a in inner], axis=1).astype(np.int64, copy=False)
    found = distinct_rows(np.ascontiguousarray(stacked))
    which = found.which.reshape(inner[0].shape)
    return found.rows, np.broadcast_to(which, shape)


def channel_labels(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct (channel, label) pairs of a tensor (N, C, ...), as two arrays sorted by channel."""
    packed = core(compress(labels))
    n_channels = labels.shape[1]
    flat = np.moveaxis(packed, 1, 0).reshape(packed.shape[1], -1)
    if packed.shape[1] == 1 and n_channels > 1:
        flat = np.broadcast_to(flat, (n_channels, flat.shape[1]))
    channel = np.broadcast_to(np.arange(n_channels)[:, None], flat.shape)
    pairs = np.unique(np.stack([channel.ravel(), flat.ravel()], axis=1), axis=0)
    pairs = pairs[pairs[:, 1] >= 0]
    return pairs[:, 0], pairs[:, 1]
