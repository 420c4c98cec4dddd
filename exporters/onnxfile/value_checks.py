"""Findings about the values of tensors: not finite, subnormal, all zero."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.tensors import OnnxTensor

_CHUNK = 1 << 20
_SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022, "bfloat16": 2.0**-126}
"""Types in which subnormal values are accidents; the smaller types are made to use them."""


@dataclass(frozen=True)
class ValueCounts:
    """How many values of a tensor are special."""

    n_values: int
    nan: int
    infinite: int
    subnormal: int
    zero: int


def count_values(tensor: OnnxTensor) -> ValueCounts:
    """Count special values; works in chunks, so memory is one copy of the tensor at most.

    Raises:
        InvalidInputError: The tensor holds text, or values out of the range of their type.
    """
    flat = tensor.array().reshape(-1)
    is_float = "float" in tensor.dtype or "complex" in tensor.dtype
    smallest = _SMALLEST_NORMAL.get(tensor.dtype)
    nan = infinite = subnormal = zero = 0
    for at in range(0, len(flat), _CHUNK):
        part = flat[at : at + _CHUNK]
        if is_float and part.dtype.kind not in "fc":
            part = part.astype(np.float32)
        zero += len(part) - int(np.count_nonzero(part))
        if is_float:
            nan += int(np.count_nonzero(np.isnan(part)))
            infinite += int(np.count_nonzero(np.isinf(part)))
        if smallest is not None:
            subnormal += int(np.count_nonzero((np.abs(part) < smallest) & (part != 0)))
    return ValueCounts(len(flat), nan, infinite, subnormal, zero)


def value_findings(tensor: OnnxTensor) -> Iterator[Finding]:
    """Yield what a user should know about a tensor's values. Single numbers are left alone.

    Raises:
        InvalidInputError: Values out of the range of their type.
    """
    where = f"tensor {printable(tensor.name)!r}"
    if tensor.dtype.startswith(("string", "complex")):
        yield Finding("ONNX-TENSOR-SKIPPED", f"holds {tensor.dtype}", where)
        return
    if not tensor.n_elements:
        return
    counts = count_values(tensor)
    if counts.n_values < 2:
        return
    if counts.nan or counts.infinite:
        message = f"{counts.nan} NaN and {counts.infinite} infinite of {counts.n_values} values"
        yield Finding("ONNX-VALUE-NONFINITE", message, where)
    if counts.subnormal:
        yield Finding("ONNX-VALUE-SUBNORMAL", f"{counts.subnormal} of {counts.n_values} values", where)
    if len(tensor.shape) > 1 and counts.zero == counts.n_values:
        yield Finding("ONNX-VALUE-ZERO", f"all {counts.n_values} values are zero", where)
