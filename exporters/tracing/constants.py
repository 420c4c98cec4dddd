"""Constants of a model: parameters, and everything that follows from parameters and shapes alone.

A constant knows which parameter tensors it is made of (its roots), and whether it *is* one of them up to a
permutation of axes, so that an edge's weight can be traced back to one parameter. Scales and zero points that
only say how a tensor is stored are not roots of the weights: they are its encoding.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes
from emergraph.exporters.onnxfile.dtypes import BY_NAME
from emergraph.exporters.operations import KEEPING, Kind, kind_of
from emergraph.exporters.runtime.derivations import Made, Source

if TYPE_CHECKING:  # made of constants
    from emergraph.exporters.tracing.codes import CodedWeights

Array = NDArray[np.generic]
Layout = Callable[[Array], Array]

CODES = frozenset(name for name, element in BY_NAME.items() if "int" in name and element.bits <= 16)
"""Element types of stored integers that are weights once they are scaled."""


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the model's inputs."""

    shape: tuple[int, ...]
    load: Callable[[], Array]
    """Computes or reads the values; large results are not kept, so call once per use."""
    roots: frozenset[str] = frozenset()
    """Names of the parameter tensors it is made of."""
    permutation: tuple[int, ...] | None = None
    """If the constant is one root with its axes permuted: which axis of the root each axis is."""
    neutral: bool = False
    """A factor that depends on the data (a dynamic quantization scale) and is taken as 1."""
    coding: frozenset[str] = frozenset()
    """Names of the scales and zero points behind it."""
    coded: bool = False
    """Stored integers, perhaps as floats, shifted or scaled: what scales them next belongs to the coding."""
    unmoved: Layout | None = None
    """Takes an array laid out like this constant to the layout of its one root; None where nothing does."""
    codes: "CodedWeights | None" = None
    """What it is of a tensor of codes, where these can stay in the file."""

    @property
    def root(self) -> str | None:
        """The parameter tensor that this constant is a view of, if it is one."""
        return next(iter(self.roots)) if len(self.roots) == 1 and self.permutation is not None else None

    @property
    def names(self) -> frozenset[str]:
        """All parameter tensors behind it: its roots and its coding."""
        return self.roots | self.coding

    def changed(self, load: Callable[[], Array], **others: Any) -> Self:  # noqa: ANN401 - fields
        """The constant with other values, which are no longer those of a tensor; further fields by name."""
        return replace(self, load=load, permutation=None, codes=None, **others)

    def floats(self) -> NDArray[np.floating]:
        """The values as float32 (float64 where the file has it)."""
        values = self.load()
        if values.dtype in (np.float32, np.float64):
            return values  # type: ignore[return-value]
        return values.astype(np.float32)


def literal(values: Array) -> Constant:
    """Wrap computed values that stem from no parameter."""
    return Constant(tuple(values.shape), lambda: values)


def parameter(name: str, shape: tuple[int, ...], dtype: str, read: Callable[[], Array]) -> Constant:
    """A parameter tensor of the file."""
    return Constant(
        shape,
        read,
        frozenset({name}),
        tuple(range(len(shape))),
        coded=dtype in CODES,
        unmoved=lambda values: values,
    )


@dataclass(frozen=True, eq=False)
class FoldedLoad:
    """The values of a constant that operations make; the next operation can go on from them."""

    values: Callable[[Made], Array]
    made: Made

    def __call__(self) -> Array:
        """Compute the values."""
        return self.values(self.made)


def source_of(constant: Constant) -> Source:
    """Where an operation takes a constant from: another operation's output, or values."""
    return constant.load.made if isinstance(constant.load, FoldedLoad) else constant.load


_SHIFTING = frozenset({Kind.SUM, Kind.DIFFERENCE})
_SCALING = _SHIFTING | {Kind.PRODUCT, Kind.QUOTIENT}


def made_of(node: onnx.NodeProto, given: Sequence[Constant | None]) -> tuple[frozenset[str], frozenset[str]]:
    """Roots and coding of what an operation makes of constants.

    Scales and zero points of DequantizeLinear and QuantizeLinear are coding, and so is what stored integers
    are multiplied with and shifted by where a file writes the dequantization out (Cast, Sub, Mul), and what a
    dynamic scale is multiplied with: the scale of the weights.
    """
    kind = kind_of(node)
    if kind is Kind.SHAPE:
        # of the sizes, nothing is in the values
        return frozenset(), frozenset()
    positions: Sequence[int] = (1, 2) if kind in (Kind.DEQUANTIZE, Kind.QUANTIZE) else ()
    if (main := scaled_codes(node, given)) is not None:
        positions = [k for k in range(len(given)) if k != main]
    elif kind in _SCALING and any(c is not None and c.neutral for c in given):
        positions = range(len(given))
    data = [c for k, c in enumerate(given) if c is not None and k not in positions]
    coding = [c for k, c in enumerate(given) if c is not None and k in positions]
    return (
        _union(c.roots for c in data),
        _union(c.coding for c in data) | _union(c.names for c in coding),
    )


def scaled_codes(node: onnx.NodeProto, given: Sequence[Constant | None]) -> int | None:
    """Which input of an arithmetic operation is stored integers that the others shift or scale."""
    if kind_of(node) not in _SCALING:
        return None
    sizes = {k: prod(c.shape) for k, c in enumerate(given) if c is not None and c.coded}
    return max(sizes, key=lambda k: sizes[k], default=None)


def keeps_codes(node: onnx.NodeProto, given: Sequence[Constant | None]) -> bool:
    """Whether what an operation makes are still stored integers, moved, shifted or scaled."""
    moved = kind_of(node) in KEEPING and given[0] is not None and given[0].coded
    return moved or scaled_codes(node, given) is not None


def permutation_of(node: onnx.NodeProto, given: Sequence[Constant | None]) -> tuple[int, ...] | None:
    """How a folded node permutes the axes of its one root, if that is all it does."""
    source = given[0] if given else None
    if source is None or source.permutation is None:
        return None
    if kind_of(node) is Kind.IDENTITY:
        return source.permutation
    if kind_of(node) is Kind.TRANSPOSE:
        return tuple(source.permutation[p] for p in axes_order(node, source))
    return None


def unmoved_of(node: onnx.NodeProto, given: Sequence[Constant | None]) -> Layout | None:
    """How to take an array laid out like a node's output to the layout of its one root."""
    source = given[scaled_codes(node, given) or 0] if given else None
    if source is None or source.unmoved is None:
        return None
    before, shape = source.unmoved, source.shape
    if kind_of(node) is Kind.TRANSPOSE:
        back = np.argsort(axes_order(node, source))
        return lambda values: before(values.transpose(back))
    if kind_of(node) in KEEPING:
        return lambda values: before(values.reshape(shape))
    # behind a scale, what is subtracted is no longer a stored value
    return before if kind_of(node) in _SHIFTING else None


def axes_order(node: onnx.NodeProto, source: Constant) -> list[int]:
    """The axes of a Transpose's input in the order of its output."""
    given = attributes(node).get("perm")
    return [int(p) for p in given] if isinstance(given, list) else list(range(len(source.shape)))[::-1]


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
