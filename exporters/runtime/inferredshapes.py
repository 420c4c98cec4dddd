"""Shapes of tensors that are not computed, because weights that they depend on are left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.dtypes import numpy_dtype
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.inference import inferred_types
from emergraph.exporters.runtime.partial import declared_type
from emergraph.exporters.runtime.quoting import plain, quoted
from emergraph.exporters.runtime.reference import EvaluationError, run_node

Array = NDArray[np.generic]

MAX_VALUES = 1024
"""Elements of a constant on which shapes may depend: sizes, axes, places."""


@dataclass(frozen=True)
class Inferred:
    """What is known of a tensor that was not computed."""

    shape: tuple[int, ...] | None
    """None for what is not a tensor."""
    element_type: int
    value: Array | None = None
    """Sizes, and what follows from sizes alone."""
    kind: str = "tensor"


def inferred_shapes(
    flat: FlatModel, types: Mapping[str, onnx.TypeProto], values: Mapping[str, Array]
) -> dict[str, Inferred]:
    """Types of all tensors that were not computed, operation by operation.

    Sizes of tensors are values as soon as the tensors' shapes are known; operations on sizes are computed.

    Args:
        flat: The model, in data order.
        types: Of inputs, and of tensors that were computed.
        values: Of those whose values are at hand.

    Raises:
        InvalidInputError: A shape does not follow.
    """
    inference = _Inference(flat, types, values)
    found: dict[str, Inferred] = {}
    for node in flat.nodes:
        open_ones = [name for name in node.output if name and name not in types]
        if open_ones:
            found |= {name: one for name, one in inference.of(node) if name in open_ones}
    return found


class _Inference:
    def __init__(
        self, flat: FlatModel, types: Mapping[str, onnx.TypeProto], values: Mapping[str, Array]
    ) -> None:
        self._flat = flat
        self._types = dict(types)
        self._constants: dict[str, onnx.TensorProto] = {}
        for name, proto in flat.initializers.items():
            self._types[name] = onnx.helper.make_tensor_type_proto(proto.data_type, list(proto.dims))
            inside = proto.data_location != onnx.TensorProto.EXTERNAL
            if inside and prod(proto.dims) <= MAX_VALUES and numpy_dtype(proto.data_type) is not None:
                self._constants[name] = proto
        for name, value in values.items():
            if value.size <= MAX_VALUES and value.dtype.kind in "iub":
                self._constants[name] = _constant(name, value)

    def of(self, node: onnx.NodeProto) -> Iterator[tuple[str, Inferred]]:
        """What the outputs of a node are."""
        inferred = inferred_types(node, self._flat.opsets, self._types, self._constants)
        values = self._computed(node)
        for position, name in enumerate(node.output):
            if not name:
                continue
            kinds = [kind for kind in (inferred.get(name), self._flat.declared.get(name)) if kind is not None]
            if position < len(values):
                one = Inferred(values[position].shape, _type_of(values[position]), values[position])
                self._constants[name] = _constant(name, values[position])
            elif kinds and not kinds[0].HasField("tensor_type"):
                one = Inferred(None, 0, kind=str(kinds[0].WhichOneof("value")))
            else:
                one = _static(node, name, kinds)
            self._types[name] = (
                kinds[0]
                if one.shape is None
                else onnx.helper.make_tensor_type_proto(one.element_type, list(one.shape))
            )
            yield name, one

    def _computed(self, node: onnx.NodeProto) -> list[Array]:
        """The outputs of an operation on sizes; nothing for any other one."""
        if node.domain == "" and node.op_type in ("Shape", "Size"):
            static = declared_type(self._types.get(node.input[0]), {})
            return [] if static is None else [_sizes(node, static[1])]
        read = [name for name in node.input if name]
        inside = any(attribute.HasField("g") for attribute in node.attribute)
        if inside or not read or any(name not in self._constants for name in read):
            return []
        inputs = [onnx.numpy_helper.to_array(self._constants[name]) if name else None for name in node.input]
        if any(array is not None and array.dtype.kind not in "iub" for array in inputs):
            return []
        try:
            values = run_node(node, inputs, self._flat.opsets)
        except EvaluationError:
            return []
        return (
            values if all(value.size <= MAX_VALUES and value.dtype.kind in "iub" for value in values) else []
        )


def _sizes(node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    """What Shape and Size give for a tensor of a shape."""
    if node.op_type == "Size":
        return np.array(prod(shape), np.int64)
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(shape, np.int64)[bounds.get("start", 0) : bounds.get("end", len(shape))]


def _constant(name: str, value: Array) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)


def _type_of(value: Array) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))


def _static(node: onnx.NodeProto, name: str, kinds: list[onnx.TypeProto]) -> Inferred:
    for kind in kinds:
        static = declared_type(kind, {})
        if static is not None:
            return Inferred(static[1], static[0])
    raise InvalidInputError(
        f"the shape of {quoted(name)}, which {plain(node.op_type)} makes, does not follow without the "
        "weights, and the model is too large to be run with them"
    )
