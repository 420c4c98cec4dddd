"""Parameters as modules see them: a stored tensor, or weights that follow from several stored tensors."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.counts import Counts, count
from emergraph.exporters.filetensors import as_held
from emergraph.exporters.weightfiles.gguf.elements import GGML
from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.graphstore.modelfiles import Coding, WantedTensor

FloatArray = NDArray[np.floating]

COUNTED = frozenset({"weight", "scale"})
"""Roles of parts that are parameters of their own; scales of a quantization and buffers are not."""

_CHUNK = 1 << 22
_NUMPY_FLOATS = frozenset({"float16", "float32", "float64"})


@dataclass(frozen=True, slots=True)
class Part:
    """A stored tensor that takes part in making the weights, besides the one that holds them."""

    tensor: LazyTensor
    role: str
    """As in the store: "quantization", "buffer", "scale" (a learned factor), "weight" (an adapter's)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """How weights follow from stored tensors."""

    scheme: str
    """What a reader of a note would call it: "nf4 (bitsandbytes)"."""
    shape: tuple[int, ...]
    """Of the weights."""
    parts: tuple[Part, ...] = ()
    decode: Callable[[], FloatArray] | None = field(default=None, repr=False)
    """Gives the weights, of `shape`; None where the file does not define them."""
    blocks: str = ""
    """Type of the blocks that the stored bytes are, where nothing else takes part."""
    problem: str = ""
    """Why the file does not define the weights."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parameter:
    """Weights in the role that their name gives them."""

    name: str
    """Name of the parameter: for `layer.qweight` this is `layer.weight`."""
    tensor: LazyTensor
    """The stored tensor that holds the weights."""
    encoding: Encoding | None = None
    """None where the stored values are the weights."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the weights."""
        return self.tensor.shape if self.encoding is None else self.encoding.shape

    @property
    def n_elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def canonical(self) -> str:
        """Name of the stored tensor; of tied ones the first."""
        return self.tensor.alias_of or self.tensor.name

    @property
    def parts(self) -> tuple[Part, ...]:
        """Other stored tensors that the weights are made from."""
        return () if self.encoding is None else self.encoding.parts

    @property
    def problem(self) -> str:
        """Why the weights are not understood; "" where they are."""
        if self.encoding is not None:
            return self.encoding.problem
        is_complex = self.tensor.dtype.startswith("complex")
        return "complex numbers, which are not weights of single edges" if is_complex else ""

    @property
    def is_plain(self) -> bool:
        """Whether the stored values are the weights."""
        return self.encoding is None and self.tensor.quantization is None

    def held(self) -> FloatArray:
        """Return the weights as the file holds them, in its type and without a copy; else as floats."""
        values = as_held(self.tensor.held()) if self.is_plain and not self.problem else None
        return self.floats() if values is None else values

    def source(self) -> Coding | WantedTensor | None:
        """Return how the weights follow from what the file holds; None where no part can be told alone."""
        if self.problem or self.tensor.held() is None:
            return None
        one = self.tensor
        stored = WantedTensor(name=one.name, dtype=one.dtype, shape=one.shape, sha256=one.sha256)
        if self.is_plain:
            return stored
        blocks = "" if self.encoding is None else self.encoding.blocks
        return Coding(GGML, (blocks,), (stored,)) if blocks else None

    def floats(self) -> FloatArray:
        """Return the weights: the stored values themselves, or what they stand for."""
        if self.problem:
            raise AssertionError(f"{self.name} has no values: {self.problem}")
        if self.encoding is not None and self.encoding.decode is not None:
            return self.encoding.decode()
        values = self.tensor.array()
        given = self.tensor.quantization
        if given is not None:
            shape = (
                ()
                if given.axis is None
                else tuple(-1 if axis == given.axis else 1 for axis in range(values.ndim))
            )
            scale = np.array(given.scale).reshape(shape)
            return scaled(values, scale, np.array(given.zero_point).reshape(shape))
        plain: FloatArray = values if self.tensor.dtype in _NUMPY_FLOATS else values.astype(np.float32)  # type: ignore[assignment]
        return plain


def scaled(values: NDArray[np.generic], scale: NDArray[np.float64], zero: NDArray[np.float64]) -> FloatArray:
    """Return (values - zero) * scale in float32, a part of the first axis at a time.

    Args:
        values: Stored values.
        scale: As many axes as the values, along which it broadcasts, or a single value without axes.
        zero: The same.
    """
    if not values.ndim or not values.size:
        return np.asarray((values.astype(np.float64) - zero) * scale, np.float32)
    result = np.empty(values.shape, np.float32)
    step = max(1, _CHUNK * values.shape[0] // values.size)

    def rows(factor: NDArray[np.float64], part: slice) -> NDArray[np.float64]:
        return factor[part] if factor.ndim and factor.shape[0] > 1 else factor

    for start in range(0, values.shape[0], step):
        part = slice(start, start + step)
        result[part] = (values[part].astype(np.float64) - rows(zero, part)) * rows(scale, part)
    return result


def count_parameter(parameter: Parameter) -> Counts:
    """Count the weights of a parameter; of one that is not understood its stored elements."""
    if parameter.problem:
        return Counts(n_params=parameter.tensor.n_elements, n_zeros=0, n_nonfinite=0)
    if parameter.is_plain:
        return count_values(parameter.tensor)
    return count(parameter.floats())


def count_values(tensor: LazyTensor) -> Counts:
    """Count a tensor's stored values, zeros and non-finite values."""
    if not tensor.n_elements:
        return Counts(n_params=0, n_zeros=0, n_nonfinite=0)
    held = tensor.held()
    return count(tensor.array() if held is None else held)
