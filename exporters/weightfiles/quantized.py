"""The scales of torch's quantized tensors."""

from collections.abc import Callable

import numpy as np

from emergraph.exporters.weightfiles.placeholders import Named, TensorRef, wrong_value
from emergraph.exporters.weightfiles.tensors import Array, Quantization


def quantization(ref: TensorRef, read: Callable[[TensorRef], Array], where: str) -> Quantization:
    """Return scales and zero points of a quantized tensor, checked against its shape.

    Args:
        ref: The tensor, with the parameters of its scheme as torch pickles them: (per_tensor_affine, scale,
            zero_point) or (per_channel_affine, scales, zero_points, axis).
        read: Gives the values of a checked tensor.
        where: How to name the tensor in messages.

    Raises:
        InvalidInputError: parameters that do not fit the tensor (PICKLE-VALUE).
    """
    scheme = ref.scheme or ()
    kind = scheme[0].name if scheme and isinstance(scheme[0], Named) else ""
    if kind == "per_tensor_affine" and len(scheme) == 3:
        scale, zero = scheme[1], scheme[2]
        if isinstance(scale, (int, float)) and isinstance(zero, (int, float)):
            return Quantization(scale=(float(scale),), zero_point=(float(zero),), axis=None)
    if kind.startswith("per_channel_affine") and len(scheme) == 4:
        axis = scheme[3]
        if type(axis) is int and 0 <= axis < len(ref.shape):
            scales, zeros = (_values(part, read, ref.shape[axis], where) for part in scheme[1:3])
            return Quantization(scale=scales, zero_point=zeros, axis=axis)
    raise wrong_value(f"the quantized tensor {where}")


def _values(part: object, read: Callable[[TensorRef], Array], count: int, where: str) -> tuple[float, ...]:
    if isinstance(part, list) and len(part) == count and all(isinstance(item, (int, float)) for item in part):
        return tuple(float(item) for item in part)
    if isinstance(part, TensorRef) and part.shape == (count,):
        return tuple(float(value) for value in read(part).astype(np.float64))
    raise wrong_value(f"the quantized tensor {where}")
