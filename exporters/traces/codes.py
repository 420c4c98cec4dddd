"""Activation tensors that hold codes: what a quantized operation makes stands for (code - zero) * scale."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.flat_model import FlatModel

_SCALE_INPUT = {
    "QuantizeLinear": 1,
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QGemm": 7,
    "QLinearWhere": 7,
    "QLinearConcat": 0,
    "QLinearSigmoid": 3,
    "QLinearLeakyRelu": 3,
    "QLinearSoftmax": 3,
    "QLinearAveragePool": 3,
    "QLinearGlobalAveragePool": 3,
}
"""Operations that make codes, and which of their inputs is the output's scale; the zero point follows it."""
_PASSING = frozenset(
    [
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Identity",
        "MaxPool",
        "Slice",
        "Split",
        "Relu",
    ]
)
"""Operations on codes that keep their scale."""


@dataclass(frozen=True)
class Codes:
    """Scale and zero point of a tensor, one for all of its elements."""

    scale: float
    zero: float

    def floats(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of what codes stand for, from the mean of the codes."""
        return np.asarray((means - self.zero) * self.scale)


def activation_codes(flat: FlatModel, source: ModelSource) -> Mapping[str, Codes]:
    """The tensors of a model that hold codes with a constant scale and zero point.

    Args:
        flat: The model; operations in data order.
        source: Gives the values of its initializers.

    Returns:
        By tensor name. Tensors whose scale is data, or differs between channels, are left out.
    """
    found: dict[str, Codes] = {}
    for node in flat.nodes:
        position = _SCALE_INPUT.get(node.op_type)
        codes = _of_inputs(node, position, flat, source) if position is not None else None
        if node.op_type in _PASSING and node.input[0] in found:
            codes = found[node.input[0]]
        if codes is not None:
            found.update(dict.fromkeys((name for name in node.output if name), codes))
    return found


def _of_inputs(node: onnx.NodeProto, position: int, flat: FlatModel, source: ModelSource) -> Codes | None:
    scale = _scalar(node, position, flat, source)
    zero = _scalar(node, position + 1, flat, source)
    has_zero = position + 1 < len(node.input) and node.input[position + 1] != ""
    if scale is None or (has_zero and zero is None):
        return None
    return Codes(scale, zero or 0.0)


def _scalar(node: onnx.NodeProto, position: int, flat: FlatModel, source: ModelSource) -> float | None:
    proto = flat.initializers.get(node.input[position]) if position < len(node.input) else None
    if proto is None or any(size != 1 for size in proto.dims):
        return None
    return float(np.ravel(source.array(proto).astype(np.float64))[0])
