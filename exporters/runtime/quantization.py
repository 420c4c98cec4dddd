"""Quantization in numpy, bit for bit what onnxruntime computes.

Used where onnxruntime has no kernel for the types (4-bit floats), and by the rules of fused operations, which
hold quantized weights without an operation that dequantizes them.
"""

from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes
from emergraph.exporters.onnxfile.dtypes import ELEMENT_TYPES

Array = NDArray[np.generic]


def laid_out(numbers: Array, shape: tuple[int, ...], *, axis: int, block_size: int = 0) -> Array:
    """Scales or zero points such that they broadcast to the stored tensor.

    Args:
        numbers: One value, one per index along `axis`, one per block along `axis`, or one per direction and
            column of the weights of a recurrent operation, (directions, rows, columns).
        shape: Of the stored tensor.
        axis: Axis that they run along, from either end.
        block_size: Values per block; 0 where there are no blocks.

    Example:
        >>> laid_out(np.array([1, 2]), (2, 3), axis=0).shape
        (2, 1)
    """
    flat = np.asarray(numbers)
    rank = len(shape)
    if flat.size == 1 or rank == 0:
        return flat.reshape(-1)[:1].reshape(())
    where = axis % rank
    if flat.ndim == rank and block_size:
        repeated = np.repeat(flat, block_size, axis=where)
        return repeated[tuple(slice(0, n) for n in shape)]
    if flat.ndim == 2 and rank == 3 and not block_size:
        return flat[:, None, :]
    if flat.ndim == 1:
        return flat.reshape([-1 if k == where else 1 for k in range(rank)])
    return flat


def dequantize(
    codes: Array, scale: Array | None, zero: Array | None = None, *, axis: int = 1, block_size: int = 0
) -> Array:
    """(codes - zero) * scale as DequantizeLinear has it; the result has the type of the scale.

    Args:
        codes: Integers, or floats of few bits.
        scale: Per tensor, per index along `axis`, or per block; None for 1.
        zero: Like the scale; None for 0.
        axis: Where vectors of scales and zero points run along.
        block_size: Codes per block along `axis`; 0 where there are no blocks.

    Example:
        >>> dequantize(np.array([3, 5], np.int8), np.float32(0.5), np.int8(1)).tolist()
        [1.0, 2.0]
    """
    is_float = "float" in codes.dtype.name
    wide = codes.astype(np.float32 if is_float else np.int32)
    if zero is not None and not is_float:
        wide = wide - laid_out(zero, codes.shape, axis=axis, block_size=block_size).astype(np.int32)
    floats = wide.astype(np.float32)
    if scale is None:
        return floats
    factor = laid_out(scale, codes.shape, axis=axis, block_size=block_size)
    return np.asarray(floats * factor.astype(np.float32)).astype(factor.dtype)


def quantize(
    values: Array,
    scale: Array,
    zero: Array | None = None,
    *,
    dtype: "np.dtype[np.generic]",
    axis: int = 1,
    block_size: int = 0,
) -> Array:
    """round(values / scale) + zero, ties to even, saturated to `dtype`, as QuantizeLinear has it.

    Args:
        values: Floats.
        scale: Per tensor, per index along `axis`, or per block.
        zero: Like the scale; None for 0.
        dtype: Of the result.
        axis: Where vectors of scales and zero points run along.
        block_size: Values per block along `axis`; 0 where there are no blocks.
    """
    factor = laid_out(scale, values.shape, axis=axis, block_size=block_size)
    ratio = values.astype(np.float32) / factor.astype(np.float32)
    if "float" in dtype.name:
        return ratio.astype(dtype)
    whole = np.rint(ratio)
    if zero is not None:
        whole = whole + laid_out(zero, values.shape, axis=axis, block_size=block_size).astype(np.float32)
    info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return np.asarray(np.clip(whole, int(info.min), int(info.max)).astype(np.int32).astype(dtype))


def dequantize_node(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> list[Array]:
    """DequantizeLinear of any version."""
    codes, scale, zero = (*inputs, None)[:3]
    if codes is None or scale is None:
        raise ValueError("DequantizeLinear needs values and a scale")
    found = attributes(node)
    axis, block = int(str(found.get("axis", 1))), int(str(found.get("block_size", 0)))
    floats = dequantize(codes, scale, zero, axis=axis, block_size=block)
    wanted = ELEMENT_TYPES.get(int(str(found.get("output_dtype", 0))))
    return [floats if wanted is None else floats.astype(wanted.dtype)]


def quantize_node(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> list[Array]:
    """QuantizeLinear of any version."""
    values, scale, zero = (*inputs, None)[:3]
    if values is None or scale is None:
        raise ValueError("QuantizeLinear needs values and a scale")
    found = attributes(node)
    wanted = ELEMENT_TYPES.get(int(str(found.get("output_dtype", 0))))
    dtype = np.dtype(np.uint8) if wanted is None else wanted.dtype
    axis, block = int(str(found.get("axis", 1))), int(str(found.get("block_size", 0)))
    return [
        quantize(
            values, scale, zero, dtype=dtype if zero is None else zero.dtype, axis=axis, block_size=block
        )
    ]


NODE_RULES: Mapping[str, Callable[[onnx.NodeProto, Sequence[Array | None]], list[Array]]] = {
    "DequantizeLinear": dequantize_node,
    "QuantizeLinear": quantize_node,
}
"""By operation type, in the standard domain and in onnxruntime's own."""
