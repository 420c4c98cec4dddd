"""A traced module in double precision: what is left of a change there is no rounding."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from tracedmodel import Array, Feeds
from zoomodels.tracing import ZooTrace


def in_double(traced: ZooTrace) -> ZooTrace:
    """The same model, inputs and values, every float in double precision."""
    model = onnx.ModelProto()
    model.CopyFrom(traced.model)
    for tensor in model.graph.initializer:
        _widen(tensor)
    for given in model.graph.input:
        if given.type.tensor_type.elem_type == TensorProto.FLOAT:
            given.type.tensor_type.elem_type = TensorProto.DOUBLE
    _widen_nodes(model.graph.node)
    return replace(traced, model=model, feeds=_widened(traced.feeds), values=_widened(traced.values))


def _widened(arrays: Feeds) -> dict[str, Array]:
    return {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in arrays.items()}


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        )


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Also within bodies: constants, and what casts and generators make."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                for tensor in attribute.g.initializer:
                    _widen(tensor)
                _widen_nodes(attribute.g.node)
            elif attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
