"""Models of types that onnxruntime has no CPU operations for run as float32.

bfloat16 always: onnxruntime has hardly any bfloat16 operations, and every bfloat16 value is a float32 value,
so only the rounding of intermediate results differs. float64 where an operation of the model has no kernel
for it (convolutions, recurrences): weights, inputs and results are then rounded to float32.
"""

from collections.abc import Set as AbstractSet

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import subgraphs
from emergraph.exporters.runtime.singles import BFLOAT16, DOUBLE, narrowed

FLOAT = int(onnx.TensorProto.FLOAT)

HALVES = frozenset({BFLOAT16})
"""Types that always run as float32."""
HALVES_AND_DOUBLES = frozenset({BFLOAT16, DOUBLE})
"""Those of a model with an operation that has no float64 kernel."""

TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
"""Attributes whose value is an element type."""


def run_type(element_type: int, replaced: AbstractSet[int]) -> int:
    """float32 for the types that are replaced, everything else as it is."""
    return FLOAT if element_type in replaced else element_type


def as_run(array: NDArray[np.generic], replaced: AbstractSet[int]) -> NDArray[np.generic]:
    """An array of a type that is replaced as float32, every other one as it is."""
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if array.dtype == np.float64 and DOUBLE in replaced:
        return narrowed(array.astype(np.float64, copy=False))
    return array


def replace_types(node: onnx.NodeProto, replaced: AbstractSet[int]) -> bool:
    """Replace types by float32 in the attributes and subgraphs of a node, in place.

    Attribute tensors must hold their values themselves.

    Returns:
        Whether float64 occurs there.
    """
    seen = set()
    stack = [node]
    while stack:
        current = stack.pop()
        for attribute in current.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.type == onnx.AttributeProto.INT:
                seen.add(attribute.i)
                attribute.i = run_type(attribute.i, replaced)
            for tensor in (attribute.t, *attribute.tensors):
                seen.add(tensor.data_type)
                if tensor.data_type in replaced:
                    values = as_run(onnx.numpy_helper.to_array(tensor), replaced)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        for graph in subgraphs(current):
            for value in (*graph.input, *graph.output):
                _replace_type(value.type, replaced)
            stack.extend(graph.node)
    return DOUBLE in seen


def _replace_type(declared: onnx.TypeProto, replaced: AbstractSet[int]) -> None:
    while declared.HasField("sequence_type") or declared.HasField("optional_type"):
        inner = declared.sequence_type if declared.HasField("sequence_type") else declared.optional_type
        declared = inner.elem_type
    if declared.HasField("tensor_type"):
        declared.tensor_type.elem_type = run_type(declared.tensor_type.elem_type, replaced)
