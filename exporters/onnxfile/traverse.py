"""Walks over the parts of a model, without recursion."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    SparseTensorProto,
    TensorProto,
)

from emergraph.exporters.nodes import subgraphs


@dataclass(frozen=True)
class Body:
    """A list of operations with its own names: a graph, a subgraph, or a local function."""

    proto: GraphProto | FunctionProto
    parent: int | None
    """Index of the body that it is nested in; None for the main graph and functions."""
    parent_node: int | None
    """Index of the operation of the parent that it belongs to."""
    depth: int
    """0 for the main graph and functions."""


def bodies(model: ModelProto) -> list[Body]:
    """Return the main graph, all local functions and all subgraphs; parents stand before their children."""
    found = [Body(model.graph, None, None, 0)]
    found += [Body(function, None, None, 0) for function in model.functions]
    at = 0
    while at < len(found):
        body = found[at]
        for index, node in enumerate(body.proto.node):
            if node.attribute:
                found += [Body(graph, at, index, body.depth + 1) for graph in subgraphs(node)]
        at += 1
    return found


def attribute_tensors(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto | SparseTensorProto]:
    """Yield the tensors in attributes, but not those in their subgraphs."""
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor
        yield from attribute.tensors
        yield from attribute.sparse_tensors


def body_tensors(body: Body) -> Iterator[TensorProto | SparseTensorProto]:
    """Yield the tensors of one body: initializers and attributes, but not those of its subgraphs."""
    if isinstance(body.proto, GraphProto):
        yield from body.proto.initializer
        yield from body.proto.sparse_initializer
    else:
        yield from attribute_tensors(body.proto.attribute_proto)
    for node in body.proto.node:
        yield from attribute_tensors(node.attribute)
