"""From a weight matrix and the labels of its rows to a block of edges."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.builder import LayerDraft
from emergraph.exporters.tracing.codes import CodedWeights
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.context import ParameterUse, TraceContext
from emergraph.graphstore.inplace import Matrix
from emergraph.graphstore.records import EdgeKind, Kernels, MatrixKernels, Place

FloatArray = NDArray[np.floating]
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class KernelMatrix:
    """A weight matrix (n_src, n_dst) whose entries may stand for several parameters."""

    weights: NDArray[Any]
    kernels: MatrixKernels | None = None
    coded: tuple[Matrix, Place] | None = None
    """Of weights that are codes in the file, and stay there: they stand in for `weights`, which are none."""

    def computed(self) -> "KernelMatrix":
        """The same with its weights, for what cannot do without them."""
        return self if self.coded is None else KernelMatrix(self.coded[0].array())


def kernel_matrix(values: NDArray[Any], *, taps: int) -> KernelMatrix:
    """Sum the last `taps` axes of weights (n_src, n_dst, *kernel) into one entry per pair.

    Returns:
        The DC gain of every kernel, with l1, l2, the largest absolute value and the number of non-zero
        parameters beside it; plain weights where a kernel has one tap.
    """
    axes = tuple(range(values.ndim - taps, values.ndim))
    size = int(np.prod([values.shape[a] for a in axes], dtype=np.int64))
    if size == 1:
        return KernelMatrix(values.reshape(values.shape[: values.ndim - taps]))
    along = int(values.shape[1] > values.shape[0])
    # two at least: numpy adds the taps of a single pair in another order than those of several
    n_pieces = max(1, min(-(-values.size // _CHUNK_ELEMENTS), values.shape[along] // 2))
    pieces = [_summed(piece, axes) for piece in np.array_split(values, n_pieces, axis=along)]
    total, l1, l2, max_abs, n_params = (
        np.concatenate(parts, axis=along) for parts in zip(*pieces, strict=True)
    )
    return KernelMatrix(total, MatrixKernels(l1=l1, l2=l2, max_abs=max_abs, n_params=n_params))


def _summed(values: NDArray[Any], axes: tuple[int, ...]) -> tuple[NDArray[Any], ...]:
    """Sum, l1, l2, the largest absolute value and the number of non-zero weights of every kernel."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are counted and told elsewhere
        wide = values.astype(np.float64)
        magnitude = np.abs(wide)
        return (
            wide.sum(axis=axes),
            magnitude.sum(axis=axes),
            np.sqrt((wide * wide).sum(axis=axes)),
            magnitude.max(axis=axes),
            np.count_nonzero(values, axis=axes).astype(np.int32),
        )


def write_block(
    ctx: TraceContext,
    layer: LayerDraft,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    matrix: KernelMatrix,
    *,
    kind: EdgeKind = EdgeKind.WEIGHT,
    tensor: str | None = None,
    note: str | None = None,
) -> int:
    """Write the edges of a weight matrix; rows that carry the same unit are aggregated.

    Args:
        ctx: The trace.
        layer: Target layer.
        rows: (n_src,) label of each row; -1 for rows that carry no unit, which give no edge.
        columns: (n_dst,) target unit of each column.
        matrix: The weights.
        kind: Kind of the edges.
        tensor: Parameter tensor behind them.
        note: What a reader should know.

    Returns:
        The number of the block within the graph.
    """
    carried = rows >= 0
    units = rows[carried]
    if not carried.all():
        matrix = _take_rows(matrix.computed(), carried)
    if np.unique(units).size < units.size:
        units, matrix = _aggregate(units, matrix.computed())
    weights, place = (matrix.weights, None) if matrix.coded is None else matrix.coded
    block = ctx.builder.matrix(
        layer,
        name=ctx.name,
        op=ctx.op,
        kind=kind,
        src_units=units,
        dst_units=columns,
        weights=weights,
        place=place,
        kernels=matrix.kernels,
        tensor=tensor,
        note=note,
    )
    return block.id


def left_in_file(codes: CodedWeights, matrices: Sequence[KernelMatrix]) -> list[KernelMatrix] | None:
    """Matrices of weights that are codes in the file, and are not computed.

    Args:
        codes: The weights.
        matrices: Of their stand-in.

    Returns:
        The matrices; None where one is not rows and columns of what is in the file.
    """
    found = []
    for matrix in matrices:
        coded = None if matrix.kernels is not None else codes.matrix(matrix.weights)
        if coded is None:
            return None
        found.append(replace(matrix, coded=coded))
    return found


def _take_rows(matrix: KernelMatrix, keep: NDArray[np.bool_]) -> KernelMatrix:
    if matrix.kernels is None:
        return KernelMatrix(matrix.weights[keep])
    k = matrix.kernels
    return KernelMatrix(
        matrix.weights[keep],
        MatrixKernels(l1=k.l1[keep], l2=k.l2[keep], max_abs=k.max_abs[keep], n_params=k.n_params[keep]),
    )


def _aggregate(units: NDArray[np.int64], matrix: KernelMatrix) -> tuple[NDArray[np.int64], KernelMatrix]:
    """Sum the rows of each unit, a slice of columns at a time."""
    distinct, inverse = np.unique(units, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(distinct.size))
    n_dst = matrix.weights.shape[1]
    shape = (distinct.size, n_dst)
    total, l1 = np.empty(shape), np.empty(shape)
    l2, biggest, count = np.empty(shape), np.empty(shape), np.empty(shape, np.int32)
    step = max(1, _CHUNK_ELEMENTS // max(units.size, 1))
    k = matrix.kernels
    for start in range(0, n_dst, step):
        part = slice(start, min(start + step, n_dst))
        w = matrix.weights[order, part].astype(np.float64)
        a = np.abs(w) if k is None else k.l1[order, part]
        s = w * w if k is None else k.l2[order, part] ** 2
        m = a if k is None else k.max_abs[order, part]
        n = (w != 0).astype(np.int32) if k is None else k.n_params[order, part]
        total[:, part] = np.add.reduceat(w, starts, axis=0)
        l1[:, part] = np.add.reduceat(a, starts, axis=0)
        l2[:, part] = np.sqrt(np.add.reduceat(s, starts, axis=0))
        biggest[:, part] = np.maximum.reduceat(m, starts, axis=0)
        count[:, part] = np.add.reduceat(n, starts, axis=0)
    return distinct, KernelMatrix(total, MatrixKernels(l1=l1, l2=l2, max_abs=biggest, n_params=count))


def write_pairs(
    ctx: TraceContext,
    layer: LayerDraft,
    src: NDArray[np.int64],
    dst: NDArray[np.int64],
    values: FloatArray,
    *,
    tensor: str | None = None,
    note: str | None = None,
) -> None:
    """Write a sparse block: one entry per (src, dst) with kernel taps on the last axis of `values`.

    Pairs that repeat are aggregated; pairs without a non-zero parameter are dropped.
    """
    wide = values.reshape(src.size, -1).astype(np.float64)
    keep = (src >= 0) & (wide != 0).any(axis=1)
    src, dst, wide = src[keep], dst[keep], wide[keep]
    pair = np.stack([src, dst], axis=1)
    distinct, inverse = np.unique(pair, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    n = len(distinct)
    sums: list[NDArray[np.float64]] = [
        np.bincount(inverse, weights=x, minlength=n).astype(np.float64)
        for x in (wide.sum(1), np.abs(wide).sum(1), (wide**2).sum(1))
    ]
    biggest = np.zeros(n)
    np.maximum.at(biggest, inverse, np.abs(wide).max(axis=1, initial=0.0))
    count = np.bincount(inverse, weights=np.count_nonzero(wide, axis=1), minlength=n).astype(np.int32)
    plain = values.reshape(values.shape[0], -1).shape[1] == 1 and n == src.size
    kernels = None if plain else Kernels(l1=sums[1], l2=np.sqrt(sums[2]), max_abs=biggest, n_params=count)
    ctx.builder.edges(
        layer,
        name=ctx.name,
        op=ctx.op,
        kind=EdgeKind.WEIGHT,
        src=distinct[:, 0],
        dst=distinct[:, 1],
        weight=sums[0],
        kernels=kernels,
        tensor=tensor,
        note=note,
    )


def main_root(constant: Constant, ctx: TraceContext) -> str | None:
    """The parameter tensor that names a weight: the largest of its roots."""
    if not constant.roots:
        return None
    return max(
        sorted(constant.roots), key=lambda r: int(np.prod(ctx.model.initializers[r].shape, dtype=object))
    )


def restorable(ctx: TraceContext, constant: Constant, rows: NDArray[np.int64], matrix: KernelMatrix) -> bool:
    """Whether a block written from a matrix (n_src, n_dst) holds the constant's one root bit for bit.

    It does when every row is one distinct unit, the tensor is float32 and no value is a negative zero.
    """
    values = matrix.weights
    if matrix.coded is not None or constant.root is None or values.dtype != np.float32 or values.ndim != 2:
        return False
    tensor = ctx.model.initializers[constant.root]
    if tensor.dtype_name != "float32" or len(tensor.shape) != 2:
        return False
    if (rows < 0).any() or np.unique(rows).size < rows.size:
        return False
    return not bool((np.signbit(values) & (values == 0)).any())


def remember_block(ctx: TraceContext, constant: Constant, block: int, *, transposed: bool) -> None:
    """Note that a block restores a parameter tensor, so that its raw values need not be stored."""
    root = constant.root
    if root is None:
        return
    use = ctx.uses.setdefault(root, ParameterUse())
    if use.block is None:
        ctx.uses[root] = replace(use, block=block, block_transposed=transposed)
