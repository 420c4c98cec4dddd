"""Sparse tensors written out as dense arrays, every index checked first."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.placeholders import wrong_value
from emergraph.exporters.weightfiles.tensors import Array, check_shape


def sparse_reader(layout: str, parts: list[Array], shape: tuple[int, ...], where: str) -> Callable[[], Array]:
    """Return what reads a sparse tensor as a dense array; entries that repeat are added up, as torch does.

    Args:
        layout: "torch.sparse_coo", "torch.sparse_csr" or "torch.sparse_csc".
        parts: (indices, values), or (compressed indices, plain indices, values).
        shape: Dimensions of the dense array.
        where: How to name the tensor in messages.

    Raises:
        InvalidInputError: parts that do not fit each other or the shape (PICKLE-VALUE, TENSOR-SHAPE).
    """
    values = parts[-1]
    check_shape(shape, values.dtype.name, where)
    if any(part.dtype.kind not in "iu" for part in parts[:-1]) or values.ndim != 1:
        raise wrong_value(f"the sparse tensor {where}")
    if layout == "torch.sparse_coo":
        indices = parts[0].astype(np.int64)
        if len(parts) != 2 or indices.shape != (len(shape), len(values)):
            raise wrong_value(f"the sparse tensor {where}")
    else:
        indices = _expanded(parts, shape, transposed=layout == "torch.sparse_csc", where=where)
    bounds = np.array(shape, np.int64)[:, None]
    if np.any(indices < 0) or np.any(indices >= bounds):
        raise wrong_value(f"the sparse tensor {where}")

    def read() -> Array:
        dense = np.zeros(shape, values.dtype)
        np.add.at(dense, tuple(indices), values)
        return dense

    return read


def _expanded(
    parts: list[Array], shape: tuple[int, ...], *, transposed: bool, where: str
) -> NDArray[np.int64]:
    """Return row and column of every entry from compressed rows (or columns)."""
    if len(parts) != 3 or len(shape) != 2 or parts[0].ndim != 1 or parts[1].ndim != 1:
        raise wrong_value(f"the sparse tensor {where}")
    starts, plain = parts[0].astype(np.int64), parts[1].astype(np.int64)
    lines = shape[1] if transposed else shape[0]
    counts = np.diff(starts)
    fits = len(starts) == lines + 1 and len(plain) == len(parts[2])
    if not fits or starts[0] != 0 or starts[-1] != len(plain) or np.any(counts < 0):
        raise wrong_value(f"the sparse tensor {where}")
    major = np.repeat(np.arange(lines), counts)
    return np.stack([plain, major] if transposed else [major, plain])
