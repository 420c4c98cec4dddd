"""Constant nodes and sparse tensors as plain tensor protos."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.runtime.quoting import quoted

MAX_DENSE_ELEMENTS = 1 << 26
"""Largest sparse tensor, counted dense, that is made dense."""


def constant_tensor(
    node: onnx.NodeProto,
    bindings: Mapping[str, onnx.AttributeProto],
    read_tensor: Callable[[onnx.TensorProto], NDArray[np.generic]],
) -> onnx.TensorProto:
    """The value of a Constant node; for the attribute `value` the very proto object of the file.

    Args:
        node: The Constant node.
        bindings: Attributes of the enclosing function call, for attribute references.
        read_tensor: Gives the values of the tensors inside a sparse constant.

    Raises:
        InvalidInputError: The node does not have exactly one value.
    """
    if len(node.attribute) != 1 or len(node.output) != 1:
        raise InvalidInputError(
            f"Constant {quoted(node.name)} has {len(node.attribute)} values and {len(node.output)} outputs; "
            "expected one of each"
        )
    attribute = node.attribute[0]
    kind = attribute.name
    if attribute.ref_attr_name:
        if attribute.ref_attr_name not in bindings:
            raise InvalidInputError(
                f"Constant {quoted(node.name)} takes its value from attribute "
                f"{quoted(attribute.ref_attr_name)}, which the function call does not give"
            )
        attribute = bindings[attribute.ref_attr_name]
    if kind == "value":
        tensor: onnx.TensorProto = attribute.t
        return tensor
    if kind == "sparse_value":
        return dense_of_sparse(attribute.sparse_tensor, read_tensor)
    return _literal(kind, attribute, node.output[0])


def _literal(kind: str, attribute: onnx.AttributeProto, name: str) -> onnx.TensorProto:
    if kind == "value_float":
        return onnx.numpy_helper.from_array(np.array(attribute.f, np.float32), name)
    if kind == "value_floats":
        return onnx.numpy_helper.from_array(np.array(attribute.floats, np.float32), name)
    if kind == "value_int":
        return onnx.numpy_helper.from_array(np.array(attribute.i, np.int64), name)
    if kind == "value_ints":
        return onnx.numpy_helper.from_array(np.array(attribute.ints, np.int64), name)
    if kind == "value_string":
        return onnx.TensorProto(name=name, data_type=onnx.TensorProto.STRING, string_data=[attribute.s])
    if kind == "value_strings":
        values = list(attribute.strings)
        return onnx.TensorProto(
            name=name, data_type=onnx.TensorProto.STRING, dims=[len(values)], string_data=values
        )
    raise InvalidInputError(f"Constant for tensor {quoted(name)} has an unknown kind of value {quoted(kind)}")


def dense_of_sparse(
    sparse: onnx.SparseTensorProto, read_tensor: Callable[[onnx.TensorProto], NDArray[np.generic]]
) -> onnx.TensorProto:
    """A sparse tensor (linear or coordinate indices) as a dense one, sizes and indices checked first.

    Raises:
        LimitError: The dense tensor would have more than `MAX_DENSE_ELEMENTS` elements.
        InvalidInputError: An index is outside the shape, or indices and values do not match.
    """
    name = sparse.values.name
    shape = tuple(int(d) for d in sparse.dims)
    if any(d < 0 for d in shape):
        raise InvalidInputError(f"sparse tensor {quoted(name)} has a negative size in {list(shape)}")
    if math.prod(shape) > MAX_DENSE_ELEMENTS:
        raise LimitError(
            f"sparse tensor {quoted(name)} has shape {list(shape)}; expected at most {MAX_DENSE_ELEMENTS} "
            "elements to run it densely"
        )
    values = np.asarray(read_tensor(sparse.values)).reshape(-1)
    indices = np.asarray(read_tensor(sparse.indices), dtype=np.int64)
    count = values.size
    if indices.shape == (count,):
        linear = indices
        inside = np.asarray(linear >= 0) & (linear < math.prod(shape))
    elif indices.shape == (count, len(shape)):
        inside = np.all((indices >= 0) & (indices < np.array(shape)), axis=1)
        linear = np.ravel_multi_index(tuple(indices[inside].T), shape) if inside.all() else indices[:, 0]
    else:
        raise InvalidInputError(
            f"sparse tensor {quoted(name)} has indices of shape {list(indices.shape)} for {count} values; "
            f"expected [{count}] or [{count}, {len(shape)}]"
        )
    if not inside.all():
        raise InvalidInputError(f"sparse tensor {quoted(name)} has an index outside its shape {list(shape)}")
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[linear] = values
    return onnx.numpy_helper.from_array(dense.reshape(shape), name)
