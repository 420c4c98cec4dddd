"""The values of a model that are known without running it: initializers and Constant operations, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.tensors import OnnxTensor
from emergraph.exporters.onnxfile.traverse import Body
from emergraph.exporters.operations import normal_domain


@dataclass(frozen=True)
class Constants:
    """Constants of one body and of those around it."""

    bodies: Sequence[Body]
    by_body: Sequence[dict[str, TensorProto]]
    tensor_of: Callable[[TensorProto], OnnxTensor]

    def find(self, at: int, name: str) -> OnnxTensor | None:
        """Return the constant that body `at` sees under a name; None if there is none, or it is broken."""
        index: int | None = at
        while index is not None:
            proto = self.by_body[index].get(name)
            if proto is not None:
                try:
                    return self.tensor_of(proto)
                except EmergraphError:  # reported where tensors are checked
                    return None
            index = self.bodies[index].parent
        return None

    def numbers(self, at: int, name: str, *, at_most: int = 1 << 20) -> NDArray[np.float64] | None:
        """Return the values of a constant as float64, raveled; None if unknown, huge or not real."""
        tensor = self.find(at, name)
        if tensor is None or tensor.n_elements > at_most or tensor.dtype.startswith(("string", "complex")):
            return None
        try:
            return tensor.array().reshape(-1).astype(np.float64)
        except EmergraphError:
            return None


def constants(bodies: Sequence[Body], tensor_of: Callable[[TensorProto], OnnxTensor]) -> Constants:
    """Collect the constants of all bodies."""
    return Constants(bodies, [_constants_of(body) for body in bodies], tensor_of)


def _constants_of(body: Body) -> dict[str, TensorProto]:
    found: dict[str, TensorProto] = {}
    if isinstance(body.proto, GraphProto):
        found.update((proto.name, proto) for proto in body.proto.initializer)
    for node in body.proto.node:
        if node.op_type == "Constant" and not normal_domain(node.domain) and len(node.output) == 1:
            found.update((node.output[0], proto) for proto in constant_values(node))
    return found


def constant_values(node: NodeProto) -> list[TensorProto]:
    """Return the tensor that a Constant operation makes, none for text and sparse ones."""
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return [attribute.t]
        if attribute.name in {"value_int", "value_ints"}:
            ints = list(attribute.ints) if attribute.name == "value_ints" else [attribute.i]
            dims = [len(ints)] if attribute.name == "value_ints" else []
            return [TensorProto(data_type=TensorProto.INT64, dims=dims, int64_data=ints)]
        if attribute.name in {"value_float", "value_floats"}:
            floats = list(attribute.floats) if attribute.name == "value_floats" else [attribute.f]
            dims = [len(floats)] if attribute.name == "value_floats" else []
            return [TensorProto(data_type=TensorProto.FLOAT, dims=dims, float_data=floats)]
    return []
