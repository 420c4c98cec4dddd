"""What operations sum up into the units of a layer, for those who run the model and ask for the terms."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx

from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.labels import Labels
from emergraph.exporters.tracing.tracks import Track

if TYPE_CHECKING:
    from emergraph.exporters.tracing.contraction_axes import Letters


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor that an operation reads."""

    name: str
    """In the model; empty where it is made inside of a fused operation."""
    shape: tuple[int, ...]
    labels: Labels | None
    constant: Constant | None = None
    """Its values as the operation means them, such as dequantized weights."""
    scale: "Operand | None" = None
    """Of a tensor of codes: what one step is; None for 1."""
    zero: "Operand | None" = None
    """Of a tensor of codes: the code that means zero; None for 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sum:
    """One operation, and what it sums: products of operands, or the operands themselves."""

    layer: int
    node: onnx.NodeProto
    """The operation; inside of a fused one, the plain one."""
    operands: tuple[Operand, ...]
    labels: Labels | None
    """Of its first output."""
    letters: "Letters | None" = None
    """Of a contraction of the first two operands."""
    factors: tuple[float, ...] = ()
    """Of joined operands: the weight of each; of two contracted activations: the share of the product that
    each is given. Empty where each product is divided evenly."""
    scale: float = 1.0
    """Of the products."""
    group: int = 1
    """Of a convolution."""
    transposed: bool = False
    """Of a convolution."""
    layers: tuple[int, ...] = ()
    """Of a recurrent operation: gates, then cell or reset and candidate, then state; of a fused attention:
    scores and context."""


@dataclass
class Sums:
    """All sums of a model, and the tensors and biases of its layers."""

    found: list[Sum] = field(default_factory=list)
    raw: dict[int, Track] = field(default_factory=dict)
    """By layer: the bias that was added to the sum, where there is one, and the tensor after it."""

    def of(self, layers: Sequence[int]) -> list[Sum]:
        """The sums that make the units of some layers."""
        return [one for one in self.found if one.layer in layers or set(one.layers) & set(layers)]
