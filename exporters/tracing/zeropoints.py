"""Zero points of quantized tensors: which stored value means zero, laid out like the tensor."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def laid_out(zero: Array, shape: tuple[int, ...], *, axis: int, block_size: int = 0) -> Array:
    """Zero points of DequantizeLinear such that they broadcast to the stored tensor.

    Args:
        zero: One value, one per index along `axis`, or one per block along `axis`.
        shape: Of the stored tensor.
        axis: Axis that they run along, from either end.
        block_size: Values per block; 0 where there are no blocks.

    Example:
        >>> laid_out(np.array([1, 2]), (2, 3), axis=0).shape
        (2, 1)
    """
    flat = np.asarray(zero)
    rank = len(shape)
    if flat.size == 1 or rank == 0:
        return flat.reshape(-1)[:1].reshape(())
    where = axis % rank
    if flat.ndim == rank and block_size:
        repeated = np.repeat(flat, block_size, axis=where)
        return repeated[tuple(slice(0, n) for n in shape)]
    if flat.ndim == 1:
        return flat.reshape([-1 if k == where else 1 for k in range(rank)])
    return flat


def of_the_root(zero: Array, permutation: tuple[int, ...] | None) -> Array | None:
    """Zero points of a permuted view as those of the tensor itself; None where that cannot be said."""
    if zero.ndim == 0:
        return zero
    if permutation is None or len(permutation) != zero.ndim:
        return None
    return zero.transpose(np.argsort(permutation))


__all__ = ["laid_out", "of_the_root"]
