"""Models that hold all values of their tensors themselves, to be written as one file."""

from collections.abc import Iterable

import onnx

from emergraph.errors import LimitError
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.frames import Buffer

MAX_BYTES = (1 << 31) - 1
"""What one protobuf message may hold."""
TOO_LARGE = "the model is larger than 2 GiB, which one ONNX file cannot hold"


def whole_model(source: ModelSource) -> bytes:
    """Return a model with the values of a source as one ONNX file.

    Raises:
        LimitError: It would not fit one.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    pairs = zip(tensors_of(source.model), tensors_of(model), strict=True)
    fill((copy, source.stored(tensor).raw) for tensor, copy in pairs)
    return model_bytes(model)


def model_bytes(model: onnx.ModelProto) -> bytes:
    """Return a model that holds all of its values as one ONNX file.

    Raises:
        LimitError: It would not fit one.
    """
    if model.ByteSize() > MAX_BYTES:
        raise LimitError(TOO_LARGE)
    return bytes(model.SerializeToString())


def fill(tensors: Iterable[tuple[onnx.TensorProto, Buffer]]) -> None:
    """Let tensors hold these bytes themselves.

    Raises:
        LimitError: They would not fit one file.
    """
    total = 0
    for tensor, raw in tensors:
        total += memoryview(raw).nbytes
        if total > MAX_BYTES:
            raise LimitError(TOO_LARGE)
        _set_values(tensor, raw)


def _set_values(tensor: onnx.TensorProto, raw: Buffer) -> None:
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    tensor.raw_data = bytes(raw)


def tensors_of(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return all tensors of a model, those of attributes, subgraphs and functions included."""
    found: list[onnx.TensorProto] = []
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            current = graphs.pop()
            found.extend(current.initializer)
            nodes.extend(current.node)
            continue
        node = nodes.pop()
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                found.append(attribute.t)
            found.extend(attribute.tensors)
            if attribute.type == onnx.AttributeProto.GRAPH:
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)
    return found
