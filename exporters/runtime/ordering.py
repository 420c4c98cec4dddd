"""Data order of nodes."""

from collections import deque
from collections.abc import Sequence

import onnx

from emergraph.errors import InvalidInputError
from emergraph.exporters.nodes import has_subgraph, subgraphs
from emergraph.exporters.runtime.flat_model import inner_names, walk_nodes
from emergraph.exporters.runtime.quoting import quoted


def in_data_order(nodes: Sequence[onnx.NodeProto]) -> tuple[onnx.NodeProto, ...]:
    """The nodes in an order in which tensors are made before they are read (as they are if they already are).

    Names must be unique over all scopes, so that what a subgraph reads from outside can be told by name.

    Complexity:
        Linear in nodes and inputs.

    Raises:
        InvalidInputError: The nodes form a cycle.
    """
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [sorted({maker[n] for n in names_read(node) if n in maker}) for node in nodes]
    if all(not before or before[-1] < index for index, before in enumerate(needs)):
        return tuple(nodes)
    readers: list[list[int]] = [[] for _ in nodes]
    waiting = [len(before) for before in needs]
    for index, before in enumerate(needs):
        for source in before:
            readers[source].append(index)
    ready = deque(index for index, count in enumerate(waiting) if count == 0)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for reader in readers[index]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(order) < len(nodes):
        stuck = next(index for index, count in enumerate(waiting) if count > 0)
        raise InvalidInputError(
            f"operation {quoted(nodes[stuck].name)} is part of, or waits for, a cycle of operations"
        )
    return tuple(nodes[index] for index in order)


def names_read(node: onnx.NodeProto) -> set[str]:
    """Names that a node or the nodes of its subgraphs read, those made inside the subgraphs included."""
    found = {name for name in node.input if name}
    for graph in subgraphs(node):
        for inner in walk_nodes(tuple(graph.node)):
            found.update(name for name in inner.input if name)
    return found


def outer_names_read(node: onnx.NodeProto) -> set[str]:
    """Names that a node or the nodes of its subgraphs read from outside the node."""
    if not has_subgraph(node):
        return {name for name in node.input if name}
    return names_read(node) - inner_names((node,))
