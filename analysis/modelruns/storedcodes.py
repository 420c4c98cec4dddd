"""What the stored values of a model's tensors mean: codes of quantized weights, and which of them is zero."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes, input_name
from emergraph.exporters.operations import Codes, Kind, spec_of
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.quantization import dequantize, laid_out, quantize

Array = NDArray[np.generic]


@dataclass(frozen=True)
class _Coding:
    """How the codes of a tensor are read."""

    scale: str
    zero: str
    axis: int
    block_size: int = 0


class StoredCodes:
    """How a model's tensors are stored: as they are, or as codes with a scale and a zero point.

    Args:
        flat: The model.
        read: Gives the values of an initializer by name.
    """

    def __init__(self, flat: FlatModel, read: Callable[[str], Array]) -> None:
        self._flat, self._read = flat, read

    @cached_property
    def _codings(self) -> dict[str, _Coding]:
        """By initializer; those whose scales and zero points the model computes are left out."""
        known: dict[str, _Coding] = {}
        for node in self._flat.nodes:
            for position, codes in spec_of(node).codes.items():
                if codes.packed:
                    continue
                name, coding = input_name(node, position), _coding(node, codes)
                given = {part for part in (name, coding.scale, coding.zero) if part}
                if given <= self._flat.initializers.keys():
                    known.setdefault(name, coding)
        return known

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Scales and zero points: they say how other tensors are stored."""
        parts = {part for coding in self._codings.values() for part in (coding.scale, coding.zero) if part}
        return frozenset(parts)

    def is_coded(self, name: str) -> bool:
        """Whether a tensor holds codes."""
        return name in self._codings

    def of(self, name: str) -> Array:
        """The stored value that means zero, such that it broadcasts to the tensor."""
        coding = self._codings.get(name)
        if coding is None or not coding.zero:
            return np.zeros((), np.int8)
        return self._spread(name, coding, coding.zero)

    def weights(self, name: str, values: Array) -> Array:
        """Codes as the weights that they stand for, as far as the model says; other tensors as they are."""
        coding = self._codings.get(name)
        if coding is None:
            return values
        scale = self._spread(name, coding, coding.scale) if coding.scale else None
        return dequantize(values, scale, self.of(name))

    def codes(self, name: str, weights: Array, dtype: np.dtype[np.generic]) -> Array:
        """Weights as the codes that come closest to them; tensors that hold no codes as they are."""
        coding = self._codings.get(name)
        if coding is None:
            return weights.astype(dtype, copy=False)
        scale = self._read(coding.scale) if coding.scale else np.ones((), np.float32)
        zero = self._read(coding.zero) if coding.zero else None
        return quantize(weights, scale, zero, dtype=dtype, axis=coding.axis, block_size=coding.block_size)

    def _spread(self, name: str, coding: _Coding, numbers: str) -> Array:
        shape = tuple(int(d) for d in self._flat.initializers[name].dims)
        found = self._read(numbers)
        return laid_out(found, shape, axis=coding.axis, block_size=coding.block_size)

    def put(self, name: str, values: Array, places: NDArray[np.int64]) -> Array:
        """A copy of a tensor with its stored zero at some raveled places."""
        copy = np.array(values, order="C")
        zero = np.broadcast_to(self.of(name), copy.shape)
        index = np.unravel_index(places, copy.shape)
        copy[index] = zero[index].astype(copy.dtype)
        return copy


def _coding(node: onnx.NodeProto, codes: Codes) -> _Coding:
    given = attributes(node)
    turned = spec_of(node).plain_kind is Kind.GEMM and given.get("transB")
    return _Coding(
        "" if codes.scale is None else input_name(node, codes.scale),
        input_name(node, codes.zero),
        int(str(given.get("axis", 0 if turned else codes.axis))),
        int(str(given.get("block_size", 0))),
    )
