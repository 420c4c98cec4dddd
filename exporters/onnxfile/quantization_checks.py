"""Findings about quantization: scales that are zero, negative or not finite, shapes that do not fit."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from emergraph.exporters.onnxfile.constants import Constants
from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.tensors import OnnxTensor
from emergraph.exporters.operations import Kind, spec_of

_SCALE_LIMIT = 1 << 24


def quantization_findings(constants: Constants) -> Iterator[Finding]:
    """Yield unusable scales, and scales or zero points that do not fit the constant that they belong to."""
    for at, body in enumerate(constants.bodies):
        for node in body.proto.node:
            spec = spec_of(node)
            for place in spec.scales:
                if place < len(node.input):
                    yield from _scale_findings(node, at, node.input[place], constants)
            if spec.kind is Kind.DEQUANTIZE and len(node.input) > 1:
                yield from _fit_findings(node, at, constants)


def _scale_findings(node: NodeProto, at: int, name: str, constants: Constants) -> Iterator[Finding]:
    scale = constants.numbers(at, name, at_most=_SCALE_LIMIT)
    if scale is None:
        return
    bad = int(np.count_nonzero(~(np.isfinite(scale) & (scale > 0))))
    if bad:
        message = (
            f"{bad} of {len(scale)} values of scale {printable(name)!r} are zero, negative or not finite"
        )
        yield Finding("ONNX-QUANT-SCALE", message, _label(node))


def _fit_findings(node: NodeProto, at: int, constants: Constants) -> Iterator[Finding]:
    values, scale = (constants.find(at, name) for name in node.input[:2])
    zero = constants.find(at, node.input[2]) if len(node.input) > 2 else None
    if values is None:
        return
    if zero is not None and zero.data_type != values.data_type:
        message = f"zero point of {zero.dtype} for values of {values.dtype}"
        yield Finding("ONNX-QUANT-SHAPE", message, _label(node))
    if scale is not None and not _fits(node, values, scale):
        message = f"scale of shape {scale.shape} for values of shape {values.shape}"
        yield Finding("ONNX-QUANT-SHAPE", message, _label(node))


def _fits(node: NodeProto, values: OnnxTensor, scale: OnnxTensor) -> bool:
    """Tell whether a scale is per tensor, per axis or per block of the values."""
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    axis, block, rank = numbers.get("axis", 1), numbers.get("block_size", 0), len(values.shape)
    if not scale.shape or (scale.shape == (1,) and not block):
        return True
    if not -rank <= axis < rank:
        return False
    axis %= rank
    if not block:
        return scale.shape == (values.shape[axis],)
    expected = list(values.shape)
    expected[axis] = -(-expected[axis] // block) if block > 0 else -1
    return scale.shape == tuple(expected)


def _label(node: NodeProto) -> str:
    return f"{printable(node.op_type)} {printable(node.name)!r}" if node.name else printable(node.op_type)
