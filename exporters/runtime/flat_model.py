"""A model as one flat list of operations whose tensor names are unique."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from emergraph.exporters.nodes import subgraphs

Dimension = int | str | None
"""A declared size, the name of a dynamic one, or None where the file says nothing."""


@dataclass(frozen=True)
class FlatInput:
    """A graph input that has no default value."""

    name: str
    element_type: int
    """ONNX element type (`onnx.TensorProto.DataType`); 0 where the file gives none."""
    shape: tuple[Dimension, ...] | None
    """Declared sizes; None when not even the rank is declared. Declarations may lie."""


@dataclass(frozen=True)
class Training:
    """An operation that the file runs in training mode."""

    name: str
    op: str


@dataclass(frozen=True)
class FlatModel:
    """A model without local functions, Constant nodes, and (after a concrete run) top-level If nodes.

    Every tensor name is unique over all scopes, so names identify tensors; the names of the file's top level
    are kept as they are. The bodies of Loop and Scan stay inside their nodes, with unique names as well, and
    refer to outer tensors by their flat names.
    """

    nodes: tuple[onnx.NodeProto, ...]
    """In an order in which every tensor is made before it is read; node names are unique."""
    initializers: Mapping[str, onnx.TensorProto]
    """By flat name: the proto objects of the file, their data possibly left out (ask the file for it)."""
    inputs: tuple[FlatInput, ...]
    outputs: tuple[str, ...]
    opsets: Mapping[str, int]
    """Version per domain; the default domain is ""."""
    ir_version: int
    declared: Mapping[str, onnx.TypeProto]
    """Types that the file declares for tensors (value_info and outputs); they may lie."""
    branches: tuple[str, ...] = ()
    """Branches of If nodes that were taken, e.g. "If_0:then"."""
    training: tuple[Training, ...] = ()
    """Operations that the file runs as in training."""

    def open_conditions(self) -> tuple[str, ...]:
        """Names of the top-level tensors that decide an If node that is still there."""
        inner = inner_names(self.nodes)
        found: dict[str, None] = {}
        for node in walk_nodes(self.nodes):
            if is_if(node) and node.input[0] not in inner:
                found[node.input[0]] = None
        return tuple(found)


def flat_input(value: onnx.ValueInfoProto) -> FlatInput:
    """What a value declares about itself as an input."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return FlatInput(value.name, tensor.elem_type, None)
    return FlatInput(value.name, tensor.elem_type, tuple(_dimension(d) for d in tensor.shape.dim))


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> Dimension:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    # Files that write "?" for every dynamic axis do not say that those axes are equal.
    return dim.dim_param if any(map(str.isalnum, dim.dim_param)) else None


def is_if(node: onnx.NodeProto) -> bool:
    """Whether a node is the standard If (one without a condition is none)."""
    return node.op_type == "If" and node.domain == "" and len(node.input) == 1


def walk_nodes(nodes: tuple[onnx.NodeProto, ...]) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs included, in no particular order."""
    stack: list[onnx.NodeProto] = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        if node.attribute:  # most have none
            for graph in subgraphs(node):
                stack.extend(graph.node)


def inner_names(nodes: tuple[onnx.NodeProto, ...]) -> set[str]:
    """Names of all tensors that are made inside subgraphs."""
    found: set[str] = set()
    for node in walk_nodes(nodes):
        for graph in subgraphs(node):
            found.update(value.name for value in graph.input)
            for inner in graph.node:
                found.update(inner.output)
    return found


def names_used(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that nodes, or the nodes and outputs of their subgraphs, read."""
    used: set[str] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        used.update(node.input)
        for graph in subgraphs(node):
            used.update(value.name for value in graph.output)
            stack.extend(graph.node)
    return used
