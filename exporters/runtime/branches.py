"""Replacing If nodes by the branch that a concrete run takes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from emergraph.errors import InvalidInputError
from emergraph.exporters.nodes import subgraphs
from emergraph.exporters.runtime.flat_model import FlatModel, is_if, names_used
from emergraph.exporters.runtime.ordering import in_data_order
from emergraph.exporters.runtime.quoting import quoted

Decisions = Mapping[str, bool]


def literal_conditions(flat: FlatModel) -> dict[str, bool]:
    """Conditions that are initializers and so need no run."""
    found: dict[str, bool] = {}
    for name in flat.open_conditions():
        tensor = flat.initializers.get(name)
        if tensor is not None and tensor.data_type == onnx.TensorProto.BOOL:
            values = onnx.numpy_helper.to_array(tensor)
            if values.size == 1:
                found[name] = bool(np.reshape(values, ())[()])
    return found


def take_branches(flat: FlatModel, decisions: Decisions) -> FlatModel:
    """Replace every If whose condition is decided by the nodes of the branch that it takes.

    The branch's output tensors get the names of the If's outputs; everything else keeps its (unique) name.
    Nodes of the other branch are gone, and so are initializers that only they read. An If inside a
    taken branch, or inside the body of a Loop, is replaced as well where its condition is decided.

    Args:
        flat: The flat model.
        decisions: Truth by the name of the condition tensor.

    Returns:
        The model with fewer If nodes and the branches taken added to `branches`, in data order.
    """
    taken: list[str] = []
    nodes = _replaced(flat.nodes, decisions, taken)
    before, after = names_used(flat.nodes), names_used(nodes) | set(flat.outputs)
    kept = {n: tensor for n, tensor in flat.initializers.items() if n in after or n not in before}
    return replace(flat, nodes=in_data_order(nodes), initializers=kept, branches=(*flat.branches, *taken))


def _replaced(
    nodes: tuple[onnx.NodeProto, ...], decisions: Decisions, taken: list[str]
) -> list[onnx.NodeProto]:
    """The nodes with decided Ifs replaced; a stack instead of recursion for Ifs within branches."""
    out: list[onnx.NodeProto] = []
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        if is_if(node) and node.input[0] in decisions:
            stack.extend(reversed(_branch(node, decisions[node.input[0]], taken)))
            continue
        if any(_has_decided(graph, decisions) for graph in subgraphs(node)):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for graph in subgraphs(copy):
                inner = _replaced(tuple(graph.node), decisions, taken)
                del graph.node[:]
                graph.node.extend(inner)
            node = copy
        out.append(node)
    return out


def _has_decided(graph: onnx.GraphProto, decisions: Decisions) -> bool:
    stack = list(graph.node)
    while stack:
        node = stack.pop()
        if is_if(node) and node.input[0] in decisions:
            return True
        for inner in subgraphs(node):
            stack.extend(inner.node)
    return False


def _branch(node: onnx.NodeProto, truth: bool, taken: list[str]) -> list[onnx.NodeProto]:
    """Copies of the nodes of one branch, its outputs renamed to those of the If."""
    label = "then" if truth else "else"
    graph = next((a.g for a in node.attribute if a.name == f"{label}_branch"), None)
    if graph is None:
        raise InvalidInputError(f"operation {quoted(node.name)} (If) has no {label}_branch")
    if len(graph.output) < len(node.output):
        raise InvalidInputError(
            f"operation {quoted(node.name)} (If) has {len(node.output)} outputs, its {label}_branch "
            f"{len(graph.output)}; expected the same number"
        )
    taken.append(f"{node.name}:{label}")
    # flatten() made sure that every output of a subgraph is made by a node inside, each by its own
    names = {value.name: name for value, name in zip(graph.output, node.output, strict=False) if name}
    copies = []
    for inner in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        rename(copy, names)
        copies.append(copy)
    return copies


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename tensors in a node and its subgraphs, in place; names are unique, so scopes play no part."""
    if not names:
        return
    stack = [node]
    while stack:
        current = stack.pop()
        for field in (current.input, current.output):
            for position, name in enumerate(field):
                if name in names:
                    field[position] = names[name]
        for graph in subgraphs(current):
            for value in (*graph.input, *graph.output):
                value.name = names.get(value.name, value.name)
            stack.extend(graph.node)
