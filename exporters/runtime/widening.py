"""bfloat16 models run as float32: onnxruntime has hardly any bfloat16 operations for CPUs.

Every bfloat16 value is a float32 value, so only the rounding of intermediate results differs.
"""

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import subgraphs
from emergraph.exporters.runtime.bfloat16 import BFLOAT16

FLOAT = int(onnx.TensorProto.FLOAT)

TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
"""Attributes whose value is an element type."""


def widened_type(element_type: int) -> int:
    """float32 for bfloat16, everything else as it is."""
    return FLOAT if element_type == BFLOAT16 else element_type


def widened(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """An array of bfloat16 as float32, every other one as it is."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def widen_node(node: onnx.NodeProto) -> None:
    """Replace bfloat16 by float32 in the attributes and subgraphs of a node, in place.

    Attribute tensors must hold their values themselves.
    """
    stack = [node]
    while stack:
        current = stack.pop()
        for attribute in current.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.type == onnx.AttributeProto.INT:
                attribute.i = widened_type(attribute.i)
            for tensor in (attribute.t, *attribute.tensors):
                if tensor.data_type == BFLOAT16:
                    values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        for graph in subgraphs(current):
            for value in (*graph.input, *graph.output):
                _widen_type(value.type)
            stack.extend(graph.node)


def _widen_type(declared: onnx.TypeProto) -> None:
    while declared.HasField("sequence_type") or declared.HasField("optional_type"):
        inner = declared.sequence_type if declared.HasField("sequence_type") else declared.optional_type
        declared = inner.elem_type
    if declared.HasField("tensor_type"):
        declared.tensor_type.elem_type = widened_type(declared.tensor_type.elem_type)
