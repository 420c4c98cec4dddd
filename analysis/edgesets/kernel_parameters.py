"""Which parameters of a convolution's tensor each edge stands for.

The graph keeps of a kernel its sum and norms; the single taps are in the tensor. A layout is accepted only
when the taps that it gives each edge have the norms that the graph recorded for it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, permutations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, Floats
from emergraph.analysis.edgesets.ordering import positions_in
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import EmergraphError
from emergraph.graphstore.records import LayerKind

TOLERANCE = 1e-9
Element = TypeVar("Element", bound=np.generic)
Arrange = Callable[[NDArray[Any]], NDArray[Any]]
"""Gives a tensor three axes: two that find a kernel, and its parameters."""


@dataclass(frozen=True, eq=False)
class Taps:
    """The non-zero parameters of a block's kernels, in the order of the block's edges.

    Only the kernels are held; the rest follows from them, and is made when it is asked for.
    """

    kernels: NDArray[np.floating]
    """(n_edges, kernel size) parameters, zeros included."""
    places: Callable[[], NDArray[np.int64]] = field(repr=False)
    """Gives the places of these in the tensor, raveled in C order."""

    @property
    def n(self) -> int:
        """Parameters that are not zero."""
        return int(np.count_nonzero(self.kernels))

    @property
    def edge(self) -> NDArray[np.int64]:
        """(n,) edge within the block."""
        return np.nonzero(self.kernels)[0]

    @property
    def tap(self) -> NDArray[np.int64]:
        """(n,) its place in its kernel."""
        return np.nonzero(self.kernels)[1]

    @property
    def value(self) -> Floats:
        """(n,) the parameter."""
        found: Floats = self.kernels[self.kernels != 0].astype(np.float64)
        return found

    @property
    def element(self) -> NDArray[np.int64]:
        """(n,) its place in the tensor, raveled in C order."""
        found: NDArray[np.int64] = self.places()[self.kernels != 0]
        return found

    @property
    def starts(self) -> NDArray[np.int64]:
        """(n_edges,) where each edge's parameters begin."""
        counts = np.count_nonzero(self.kernels, axis=1)
        return np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64)

    @property
    def kernel_size(self) -> int:
        """Parameters of one kernel, zeros included."""
        return int(self.kernels.shape[1])

    @property
    def magnitude(self) -> Floats:
        """(n,) absolute values."""
        return np.abs(self.value)


def kernel_taps(
    block: BlockTable, graph: UnitGraph, tensor_values: Callable[[str], NDArray[np.generic]] | None
) -> Taps | None:
    """The parameters behind each edge of a block of kernels; None where the layout cannot be told.

    Tried are (targets, sources, taps...) and (sources, targets, taps...), with all sources or those of the
    target's group, and for matrices sources with several rows or columns each, side by side or interleaved.
    """
    if tensor_values is None or block.block.tensor is None:
        return None
    try:
        values = tensor_values(block.block.tensor)
    except EmergraphError:
        return None
    return None if values.dtype.kind not in "fV" else parameters_behind(block, graph, values)


def parameters_behind(
    block: BlockTable, graph: UnitGraph, values: NDArray[np.generic], *, shared: bool = False
) -> Taps | None:
    """The non-zero elements of a tensor behind each edge of any block; None where the layout cannot be told.

    Integers around zero are accepted when they are the weights up to one factor per target, source or tensor.

    Args:
        block: The edges.
        graph: Their graph.
        values: The block's tensor.
        shared: Accept that several sources of a target stand behind the same parameters: units that one
            input channel of a convolution carries at different positions.
    """
    wide = values.astype(np.float64)
    for part in _planes(wide.shape):
        plane = wide[part]
        if plane.ndim < 2:
            continue
        layouts = _layouts(block, graph, plane.shape)
        if shared and plane.shape[1] == 1:
            layouts = chain(layouts, _one_source(block, graph, plane.shape))
        for arrange, first, second in layouts:
            flat = arrange(plane)
            if first.max() >= flat.shape[0] or second.max() >= flat.shape[1]:
                continue
            kernels = flat[first, second]
            if _agrees(block, kernels) or (values.dtype.kind in "iu" and _proportional(block, kernels)):
                narrow = kernels.astype(np.float32) if _is_narrow(values.dtype) else kernels
                found = first.astype(np.int32), second.astype(np.int32)
                return Taps(narrow, partial(_places, wide.shape, part, arrange, *found))
    return None


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether float32 holds every number of a type."""
    return dtype.kind in "fV" and dtype.itemsize <= np.dtype(np.float32).itemsize


def _places(
    shape: tuple[int, ...],
    part: int | slice,
    arrange: Arrange,
    first: NDArray[np.int32],
    second: NDArray[np.int32],
) -> NDArray[np.int64]:
    """(n_edges, kernel size) places in a tensor of the kernels that a layout finds."""
    found: NDArray[np.int64] = arrange(np.arange(math.prod(shape)).reshape(shape)[part])[first, second]
    return found


def kernel_elements(
    block: BlockTable, graph: UnitGraph, values: NDArray[np.generic], moved: BlockTable
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Elements of a tensor behind a block's edges, and behind other pairs of its units; None as above.

    Args:
        block: The edges as they are.
        graph: Their graph.
        values: The block's tensor.
        moved: The same block with other edges between the same units.

    Returns:
        Places in the tensor, raveled in C order, zeros included: (n_edges, kernel size) for both.
    """
    wide = values.astype(np.float64)
    places = np.arange(wide.size).reshape(wide.shape)
    for part in _planes(wide.shape):
        plane, place_plane = wide[part], places[part]
        if plane.ndim < 2:
            continue
        layouts = (_layouts(one, graph, plane.shape) for one in (block, moved))
        for (arrange, first, second), (_, other_first, other_second) in zip(*layouts, strict=False):
            flat = arrange(plane)
            if first.max() >= flat.shape[0] or second.max() >= flat.shape[1]:
                continue
            kernels = flat[first, second]
            if _agrees(block, kernels) or (values.dtype.kind in "iu" and _proportional(block, kernels)):
                place = arrange(place_plane)
                return place[first, second], place[other_first, other_second]
    return None


def _planes(shape: tuple[int, ...]) -> list[int | slice]:
    """The tensor as it is; and each direction of a recurrent one, (directions, rows, columns)."""
    whole: list[int | slice] = [slice(None)]
    return [*whole, *range(shape[0])] if len(shape) == 3 and shape[0] <= 2 else whole


def _proportional(block: BlockTable, kernels: Floats) -> bool:
    """Whether kernels are the block's weights up to a factor per target, per source or for all."""
    if not np.array_equal(np.count_nonzero(kernels, axis=1), block.parameters):
        return False
    ratio = np.abs(kernels).sum(axis=1) / block.l1
    for ends in (np.zeros(len(ratio), dtype=np.int64), block.dst, block.src):
        order = np.argsort(ends, kind="stable")
        starts = np.flatnonzero(np.concatenate(([True], np.diff(ends[order]) != 0)))
        low, high = (f.reduceat(ratio[order], starts) for f in (np.minimum, np.maximum))
        if np.all(high <= low * (1 + 1e-4)) and len(starts) < len(ratio):
            return True
    return False


def _rank_within(groups: NDArray[np.integer], by: NDArray[np.integer]) -> NDArray[np.int64]:
    """(n,) how many entries of the same group have a smaller `by`."""
    order = np.lexsort((by, groups))
    ordered = groups[order]
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return ranks


def _layouts(
    block: BlockTable, graph: UnitGraph, shape: tuple[int, ...]
) -> Iterator[tuple[Arrange, NDArray[np.int64], NDArray[np.int64]]]:
    """Candidates: how to see the tensor as (first, second, taps), and both indices of each edge's kernel."""
    about = block.block
    if about.dst_units is None:
        target = block.dst.astype(np.int64) - graph.layer_of(about.layer).first_unit
    else:
        target = positions_in(about.dst_units, block.dst)
    sources = block.rows if about.src_units is None else about.src_units
    source = positions_in(sources, block.src)
    rows, columns = shape[:2]
    taps = math.prod(shape[2:])

    def kernels(array: NDArray[Element]) -> NDArray[Element]:
        return array.reshape(rows, columns, taps)

    yield kernels, target, source
    yield kernels, source, target
    yield kernels, target, _rank_within(block.dst, block.src)
    yield kernels, source, _rank_within(block.src, block.dst)
    if len(shape) == 2 and graph.layer_of(about.layer).kind == LayerKind.RNN_GATE:
        # Gates in another order than the operation's: PyTorch has i, f, g, o and ONNX i, o, f, c.
        for gates in (4, 3):
            for order_of in permutations(range(gates)) if rows % gates == 0 else ():
                size = rows // gates
                moved = np.asarray(order_of)[np.minimum(target // size, gates - 1)] * size + target % size
                yield kernels, moved, source
    # Features that were flattened or folded: each source has as many columns (or rows) as it had positions.
    n = len(sources)
    if n and columns % n == 0 and columns > n:
        yield (lambda a: a.reshape(rows, n, -1)), target, source
        yield (
            (lambda a: a.reshape(rows, columns // n, n, taps).swapaxes(1, 2).reshape(rows, n, -1)),
            target,
            source,
        )
    if n and rows % n == 0 and rows > n:
        yield (
            (lambda a: np.moveaxis(a.reshape(n, rows // n, columns, taps), 1, 2).reshape(n, columns, -1)),
            source,
            target,
        )
        yield (
            (lambda a: np.moveaxis(a.reshape(rows // n, n, columns, taps), 0, 2).reshape(n, columns, -1)),
            source,
            target,
        )


def _one_source(
    block: BlockTable, graph: UnitGraph, shape: tuple[int, ...]
) -> Iterator[tuple[Arrange, NDArray[np.int64], NDArray[np.int64]]]:
    """All edges into a target have the kernel of the one input channel."""
    _, target, _ = next(iter(_layouts(block, graph, shape)))
    taps = math.prod(shape[2:])
    yield (lambda a: a.reshape(shape[0], 1, taps)), target, np.zeros_like(target)


def _agrees(block: BlockTable, kernels: Floats) -> bool:
    magnitude = np.abs(kernels)
    counts = np.count_nonzero(kernels, axis=1)
    return bool(
        np.allclose(magnitude.sum(axis=1), block.l1, rtol=TOLERANCE, atol=0, equal_nan=True)
        and np.allclose(np.sqrt((kernels**2).sum(axis=1)), block.l2, rtol=TOLERANCE, atol=0, equal_nan=True)
        and np.array_equal(counts, block.parameters)
    )
