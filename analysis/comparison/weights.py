"""The weight tensors of a graph in one form, so that those of two graphs can be compared.

Rows are target units. A matrix is read from the edges of its block, which hold quantized weights dequantized;
a quantized embedding is dequantized by the scale and zero point beside it.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.blockmatrix import block_matrix
from emergraph.errors import UsageError
from emergraph.exporters.operations import Kind, kind_named
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.restore import restore_tensor

Matrix = NDArray[np.float64]
IGNORED = frozenset({"unused", "quantization", "other", "shape of the nonlinearity", "buffer"})
"""Roles of tensors that are not weights."""
_QUANTIZED = re.compile(r"_(?:q|quantized|quant)$")
_SCALE = re.compile(r"_(?:scale|zero_point|zp)$")
_LAST_AXIS = frozenset({Kind.MATMUL, Kind.GATHER, Kind.CONV_TRANSPOSE})
"""Operations whose targets are not on axis 0 of the tensor, where nothing says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One parameter tensor."""

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str | None
    n_params: int
    block: BlockInfo | None
    """Its first use; None for biases, scales and other tensors without edges."""
    op: str
    """Operation of that use; empty for none."""
    layer: str | None
    """Name of the target layer of that use."""

    @property
    def is_float(self) -> bool:
        """Whether the stored elements are the weights themselves."""
        return "float" in self.dtype


def weights_of(reader: GraphReader) -> list[Weight]:
    """Return the weight tensors of a graph in the order of their first use, those without edges last."""
    layers = dict(reader.layers().select("id", "name").iter_rows())
    ops = dict(reader.blocks().select("id", "op").iter_rows())
    blocks: dict[str, BlockInfo] = {}
    for block in reader.blocks_info():
        if block.tensor is not None:
            blocks.setdefault(block.tensor, block)
    found = []
    names = set(reader.tensors()["name"].to_list())
    for row in reader.tensors().iter_rows(named=True):
        if row["role"] in IGNORED or row["n_params"] == 0 or _is_scale(row["name"], names):
            continue
        first = blocks.get(row["name"])
        found.append(
            Weight(
                name=row["name"],
                role=row["role"],
                dtype=row["dtype"],
                shape=tuple(row["shape"]),
                sha256=row["sha256"],
                n_params=row["n_params"],
                block=first,
                op="" if first is None else ops[first.id],
                layer=None if first is None else layers[first.layer],
            )
        )
    return sorted(found, key=lambda w: (w.block is None, w.block.id if w.block else 0, w.name))


def _is_scale(name: str, names: set[str]) -> bool:
    """Whether a tensor says how another one is quantized."""
    stem = _SCALE.sub("", name)
    return stem != name and any(f"{stem}{ending}" in names for ending in ("_q", "_quantized", "_quant", ""))


def size_of(weight: Weight) -> tuple[int, ...]:
    """Return the shape without axes of length 1, sorted: what tensors that could be the same one share."""
    return tuple(sorted(size for size in weight.shape if size > 1))


def values_of(reader: GraphReader, weight: Weight) -> Matrix | None:
    """Return a tensor as (target units, rest); None where its numbers cannot be told.

    Biases and other vectors are (length, 1).
    """
    block = weight.block
    if block is not None and not block.has_kernels and block.src_units is not None:
        return block_matrix(reader, block).T
    if weight.is_float:
        return by_target(restore_tensor(reader, weight.name).astype(np.float64), weight)
    values = _dequantized(reader, weight)
    return None if values is None else by_target(values, weight)


def by_target(values: NDArray[np.float64], weight: Weight) -> Matrix:
    """Return values as (target units, rest)."""
    if values.ndim <= 1:
        return values.reshape(-1, 1)
    axis = _target_axis(values.shape, weight)
    moved = np.moveaxis(values, axis, 0)
    return moved.reshape(moved.shape[0], -1)


def _target_axis(shape: tuple[int, ...], weight: Weight) -> int:
    """The axis that target units are on: as long as the block has targets, on the side the operation says."""
    block = weight.block
    if block is None:
        return len(shape) - 1 if weight.role == "embedding" else 0
    axes = [axis for axis, size in enumerate(shape) if size == block.n_dst]
    if not axes:
        return 0
    return axes[-1] if kind_named(weight.op) in _LAST_AXIS else axes[0]


def _dequantized(reader: GraphReader, weight: Weight) -> Matrix | None:
    """Scale times (value - zero point), where tensors named after this one hold them."""
    names = set(reader.tensors()["name"].to_list())
    stem = _QUANTIZED.sub("", weight.name)
    scale = next((name for name in (f"{stem}_scale", f"{weight.name}_scale") if name in names), None)
    zero = next(
        (n for n in (f"{stem}_zero_point", f"{stem}_zp", f"{weight.name}_zero_point") if n in names), None
    )
    if scale is None:
        return None
    try:
        raw = restore_tensor(reader, weight.name).astype(np.float64)
        factor = restore_tensor(reader, scale).astype(np.float64)
        offset = restore_tensor(reader, zero).astype(np.float64) if zero is not None else np.zeros(())
    except UsageError:
        return None
    axis = next((a for a, size in enumerate(raw.shape) if size == factor.size), 0)
    shape = [factor.size if a == axis else 1 for a in range(raw.ndim)] if factor.size > 1 else []
    return np.asarray(factor.reshape(shape) * (raw - offset.reshape(shape if offset.size > 1 else [])))
