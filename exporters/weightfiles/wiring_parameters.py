"""Parameters as modules see them: a tensor with its scales where it is quantized; statistics of values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.graphstore.records import MatrixKernels

FloatArray = NDArray[np.floating]

_CHUNK = 1 << 22
_NUMPY_FLOATS = frozenset({"float16", "float32", "float64"})
_QUANTIZED = frozenset(
    {"int8", "uint8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}
)
_SCALE_SUFFIXES = ("_scale", ".scale", "_scale_inv", ".scales", "_scales")
_ZERO_SUFFIXES = ("_zero_point", ".zero_point", ".zero_points", "_zero_points")


@dataclass(frozen=True, kw_only=True, eq=False)
class Parameter:
    """A tensor in the role that its name gives it."""

    name: str
    """Name of the parameter: for `layer.weight.qweight` this is `layer.weight`."""
    tensor: LazyTensor
    scale: LazyTensor | None = None
    """Multiplies the stored values, broadcast against them from the front."""
    zero_point: LazyTensor | None = None
    """Taken off the stored values before."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        return self.tensor.shape

    @property
    def canonical(self) -> str:
        """Name of the stored tensor; of tied ones the first."""
        return self.tensor.alias_of or self.tensor.name

    @property
    def is_plain(self) -> bool:
        """Whether the stored values are the weights."""
        return self.scale is None and self.tensor.quantization is None

    def floats(self) -> FloatArray:
        """Return the weights: the stored values themselves, or (q - zero_point) * scale in float32."""
        values = self.tensor.array()
        given = self.tensor.quantization
        if given is not None:
            shape = (
                ()
                if given.axis is None
                else tuple(-1 if axis == given.axis else 1 for axis in range(values.ndim))
            )
            scale = np.array(given.scale).reshape(shape)
            return _dequantized(values, scale, np.array(given.zero_point).reshape(shape))
        if self.scale is not None:
            zero = np.zeros(()) if self.zero_point is None else _spread(self.zero_point.array(), values.ndim)
            return _dequantized(values, _spread(self.scale.array(), values.ndim), zero)
        plain: FloatArray = values if self.tensor.dtype in _NUMPY_FLOATS else values.astype(np.float32)  # type: ignore[assignment]
        return plain


def _dequantized(
    values: NDArray[np.generic], scale: NDArray[np.float64], zero: NDArray[np.float64]
) -> FloatArray:
    result: FloatArray = ((values.astype(np.float64) - zero) * scale).astype(np.float32)
    return result


def parameters(weights: WeightFile) -> dict[str, Parameter]:
    """Pair quantized tensors with their scales and give every other tensor as it is.

    Known spellings: `x.qweight` with `x.scale`, and integers or 8-bit floats `x` with `x_scale`, `x.scale`,
    `x_scale_inv` (which multiplies all the same) or their plurals, each with an optional `zero_point`. A
    scale counts where it broadcasts against the values.

    Args:
        weights: The file.

    Returns:
        Parameters by name, in file order; scales and zero points are part of theirs and do not stand alone.
    """
    names = weights.tensors
    used: set[str] = set()
    found: dict[str, Parameter] = {}
    for name, tensor in names.items():
        base = name.removesuffix(".qweight")
        if tensor.dtype not in _QUANTIZED:
            continue
        stems = (base, base.removesuffix(".weight")) if name.endswith((".qweight", ".weight")) else (base,)
        scale = _partner(names, stems, _SCALE_SUFFIXES, tensor)
        if scale is None:
            continue
        zero = _partner(names, stems, _ZERO_SUFFIXES, tensor)
        used.update(part.name for part in (tensor, scale, zero) if part is not None)
        found[name] = Parameter(name=base, tensor=tensor, scale=scale, zero_point=zero)
    result: dict[str, Parameter] = {}
    for name, tensor in names.items():
        if name in found:
            result[found[name].name] = found[name]
        elif name not in used:
            result[name] = Parameter(name=name, tensor=tensor)
    return result


def _partner(
    names: Mapping[str, LazyTensor], stems: tuple[str, ...], suffixes: tuple[str, ...], tensor: LazyTensor
) -> LazyTensor | None:
    for stem in stems:
        for suffix in suffixes:
            other = names.get(stem + suffix)
            if other is not None and _broadcasts(other.shape, tensor.shape):
                return other
    return None


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a scale fits: one value, or the leading axes of the weight (trailing ones may be left out)."""
    padded = shape + (1,) * (len(target) - len(shape))
    return len(shape) <= len(target) and (
        shape in {(), (1,)} or all(a in {1, b} for a, b in zip(padded, target, strict=True))
    )


def _spread(values: NDArray[np.generic], ndim: int) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    return wide.reshape(()) if wide.size == 1 else wide.reshape(wide.shape + (1,) * (ndim - wide.ndim))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts over the stored values of a tensor."""

    n_params: int
    n_zeros: int
    n_nonfinite: int


def count_values(tensor: LazyTensor, zero_point: float = 0.0) -> Counts:
    """Count a tensor's values, zeros (values at the zero point) and non-finite values, a part at a time."""
    values = tensor.array().reshape(-1) if tensor.n_elements else np.empty(0, np.float32)
    zeros = bad = 0
    floating = values.dtype.kind not in "biu" and not re.fullmatch(r"u?int\d", values.dtype.name)
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        zeros += part.size - int(np.count_nonzero(part != np.asarray(zero_point).astype(part.dtype)))
        bad += part.size - int(np.count_nonzero(np.isfinite(part))) if floating else 0
    return Counts(n_params=values.size, n_zeros=zeros, n_nonfinite=bad)


def column_kernels(values: FloatArray) -> tuple[NDArray[np.float64], MatrixKernels]:
    """Sum the rows of a table (n, d) into one row, a part at a time, with what the sum leaves out.

    Args:
        values: (n, d) weights.

    Returns:
        (1, d) sums and the kernels' columns of the same shape.
    """
    width = values.shape[1]
    total, l1, squares, biggest = (np.zeros(width) for _ in range(4))
    count = np.zeros(width, np.int64)
    step = max(1, _CHUNK // max(width, 1))
    for start in range(0, values.shape[0], step):
        part = values[start : start + step].astype(np.float64)
        size = np.abs(part)
        total += part.sum(axis=0)
        l1 += size.sum(axis=0)
        squares += (part * part).sum(axis=0)
        biggest = np.maximum(biggest, size.max(axis=0))
        count += np.count_nonzero(part, axis=0)
    kernels = MatrixKernels(
        l1=l1[None],
        l2=np.sqrt(squares)[None],
        max_abs=biggest[None],
        n_params=count.astype(np.int32)[None],
    )
    return total[None], kernels
