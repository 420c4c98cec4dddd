"""Activation tensors that hold codes: what a quantized operation makes stands for (code - zero) * scale."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.operations import VIEWING, Kind, OpSpec, spec_of
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.flat_model import FlatModel


@dataclass(frozen=True)
class ActivationCodes:
    """Scale and zero point of a tensor, one for all of its elements."""

    scale: float
    zero: float

    def floats(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of what codes stand for, from the mean of the codes."""
        return np.asarray((means - self.zero) * self.scale)


def activation_codes(flat: FlatModel, source: ModelSource) -> Mapping[str, ActivationCodes]:
    """The tensors of a model that hold codes with a constant scale and zero point.

    Args:
        flat: The model; operations in data order.
        source: Gives the values of its initializers.

    Returns:
        By tensor name. Tensors whose scale is data, or differs between channels, are left out.
    """
    found: dict[str, ActivationCodes] = {}
    for node in flat.nodes:
        spec = spec_of(node)
        codes = None if spec.codes_out is None else _of_inputs(node, spec.codes_out, flat, source)
        if _keeps_codes(spec, node) and node.input[0] in found:
            codes = found[node.input[0]]
        if codes is not None:
            found.update(dict.fromkeys((name for name in node.output if name), codes))
    return found


def _keeps_codes(spec: OpSpec, node: onnx.NodeProto) -> bool:
    """Whether an operation on codes gives codes of the same scale."""
    largest = spec.kind in (Kind.POOL, Kind.GLOBAL_POOL) and not spec.is_linear
    return spec.kind in VIEWING or (largest and spec.keeps_value) or node.op_type == "Relu"


def _of_inputs(
    node: onnx.NodeProto, position: int, flat: FlatModel, source: ModelSource
) -> ActivationCodes | None:
    scale = _scalar(node, position, flat, source)
    zero = _scalar(node, position + 1, flat, source)
    has_zero = position + 1 < len(node.input) and node.input[position + 1] != ""
    if scale is None or (has_zero and zero is None):
        return None
    return ActivationCodes(scale, zero or 0.0)


def _scalar(node: onnx.NodeProto, position: int, flat: FlatModel, source: ModelSource) -> float | None:
    proto = flat.initializers.get(node.input[position]) if position < len(node.input) else None
    if proto is None or any(size != 1 for size in proto.dims):
        return None
    return float(np.ravel(source.array(proto).astype(np.float64))[0])
