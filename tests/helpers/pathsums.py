"""Sums over paths of a net of sums, and the same numbers from running the net itself."""

from collections.abc import Mapping

import numpy as np
import onnx
from edgesink import EdgeSink
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from tracedmodel import Array, Traced

from emergraph.graphstore.records import PATH_KINDS, LayerKind


def path_sums(sink: EdgeSink) -> NDArray[np.float64]:
    """For every unit, the sum over all paths from input units to it of the product of l1 along the path."""
    total = np.zeros(sink.n_units)
    for layer in sink.layers:
        units = slice(layer.first_unit, layer.first_unit + layer.n_units)
        if layer.kind is LayerKind.INPUT:
            total[units] = 1.0
        for found in sink.blocks:
            if found.block.layer == layer.id and found.block.kind in PATH_KINDS:
                np.add.at(total, found.dst, total[found.src] * found.l1)
    return total


def enumerated_path_sums(sink: EdgeSink) -> NDArray[np.float64]:
    """The same, one path at a time."""
    successors: dict[int, list[tuple[int, float]]] = {}
    for found in sink.of_kind(*PATH_KINDS):
        for s, d, w in zip(found.src.tolist(), found.dst.tolist(), found.l1.tolist(), strict=True):
            successors.setdefault(s, []).append((d, w))
    total = np.zeros(sink.n_units)
    starts = [
        u
        for la in sink.layers
        if la.kind is LayerKind.INPUT
        for u in range(la.first_unit, la.first_unit + la.n_units)
    ]
    stack = [(u, 1.0) for u in starts]
    while stack:
        unit, product = stack.pop()
        total[unit] += product
        stack.extend((d, product * w) for d, w in successors.get(unit, []))
    return total


def absolute_values_on_ones(traced: Traced) -> Mapping[str, Array]:
    """Every tensor of the net with |W| for W, in float64, on inputs of ones."""
    model = onnx.ModelProto()
    model.CopyFrom(traced.model)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor).astype(np.float64))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for given in model.graph.input:
        given.type.tensor_type.elem_type = TensorProto.DOUBLE
    feeds = {name: np.ones(array.shape) for name, array in traced.feeds.items()}
    names = [o.name for o in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(names, feeds), strict=True)) | feeds


def assert_path_sums(traced: Traced) -> None:
    """Assert that every element of the |W| net is the path sum of the unit that it carries, to 1e-9."""
    sums = path_sums(traced.sink)
    values = absolute_values_on_ones(traced)
    for name, labels in traced.labels.items():
        expected = np.where(labels >= 0, sums[labels], 0.0)
        np.testing.assert_allclose(values[name], expected, rtol=1e-9, err_msg=name)
