"""Which names a model's bodies define and read: single assignment, nothing missing, an order to run in."""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import GraphProto

from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.traverse import Body

_MAX_CYCLE_SHOWN = 8


@dataclass(frozen=True)
class BodyScope:
    """The names of one body."""

    label: str
    """How messages call the body; "" for the main graph."""
    given: tuple[str, ...]
    """Inputs and initializers."""
    results: tuple[str, ...]
    """Outputs of the body."""
    reads: tuple[tuple[str, ...], ...]
    """Per operation, the names it reads, those that its subgraphs take from outside included."""
    writes: tuple[tuple[str, ...], ...]
    """Per operation, the names it produces."""
    kinds: tuple[tuple[str, str], ...]
    """Per operation, its type and name."""
    defined: frozenset[str]
    """Names that are given or produced."""
    free: frozenset[str]
    """Names that are read but not defined."""

    def label_of(self, index: int) -> str:
        """Return how messages call an operation."""
        op_type, name = self.kinds[index]
        return f"{printable(op_type)} {printable(name)!r}" if name else printable(op_type)


def scopes(bodies: Sequence[Body]) -> list[BodyScope]:
    """Return the scopes of all bodies; what a subgraph lacks is among the reads of its operation."""
    found: dict[int, BodyScope] = {}
    free_of_children: dict[int, dict[int, set[str]]] = {}
    for at in range(len(bodies) - 1, -1, -1):
        body = bodies[at]
        scope = _scope(body, free_of_children.pop(at, {}))
        found[at] = scope
        if body.parent is not None and body.parent_node is not None:
            holders = free_of_children.setdefault(body.parent, {})
            holders.setdefault(body.parent_node, set()).update(scope.free)
    return [found[at] for at in range(len(bodies))]


def _scope(body: Body, nested: dict[int, set[str]]) -> BodyScope:
    proto = body.proto
    if isinstance(proto, GraphProto):
        given = [value.name for value in proto.input]
        inputs = set(given)
        stored = [tensor.name for tensor in proto.initializer]
        stored += [sparse.values.name for sparse in proto.sparse_initializer]
        given += [name for name in stored if name not in inputs]
        results = tuple(value.name for value in proto.output)
        label = f"subgraph {printable(proto.name)!r}" if body.depth else ""
    else:
        given, results = list(proto.input), tuple(proto.output)
        label = f"function {printable(proto.domain)}::{printable(proto.name)}"
    reads, writes, kinds = [], [], []
    for index, node in enumerate(proto.node):
        names = [name for name in node.input if name]
        names += sorted(nested.get(index, ()))
        reads.append(tuple(names))
        writes.append(tuple(name for name in node.output if name))
        kinds.append((node.op_type, node.name))
    defined = frozenset(given).union(*writes)
    free = frozenset(results).union(*reads) - defined - {""}
    return BodyScope(label, tuple(given), results, tuple(reads), tuple(writes), tuple(kinds), defined, free)


def scope_findings(bodies: Sequence[Body], all_scopes: Sequence[BodyScope]) -> Iterator[Finding]:
    """Yield what is wrong with the names: produced twice, read but missing, hidden."""
    for at, (body, scope) in enumerate(zip(bodies, all_scopes, strict=True)):
        yield from _duplicates(body, scope)
        if body.parent is None and scope.free:
            yield from _missing(scope)
        elif body.parent is not None:
            yield from _shadowed(at, bodies, all_scopes)


def _duplicates(body: Body, scope: BodyScope) -> Iterator[Finding]:
    if isinstance(body.proto, GraphProto):
        inputs = [value.name for value in body.proto.input]
        stored = [tensor.name for tensor in body.proto.initializer]
        stored += [sparse.values.name for sparse in body.proto.sparse_initializer]
    else:
        inputs, stored = list(scope.given), []
    for kind, names in (("inputs", inputs), ("initializers", stored)):
        for name, count in Counter(names).items():
            if count > 1:
                yield Finding(
                    "ONNX-GRAPH-DUPLICATE", f"{count} {kind} have the name {printable(name)!r}", scope.label
                )
    taken = set(scope.given)
    first: dict[str, int] = {}
    for index, produced in enumerate(scope.writes):
        for name in produced:
            if name in taken:
                other = scope.label_of(first[name]) if name in first else "an input or initializer"
                message = f"{printable(name)!r} is produced by {other} and by {scope.label_of(index)}"
                yield Finding("ONNX-GRAPH-DUPLICATE", message, scope.label)
            taken.add(name)
            first[name] = index


def _missing(scope: BodyScope) -> Iterator[Finding]:
    reported: set[str] = set()
    for index, names in enumerate((*scope.reads, scope.results)):
        for name in names:
            if name in scope.free and name not in reported:
                reported.add(name)
                reader = scope.label_of(index) if index < len(scope.reads) else "the outputs"
                message = f"{printable(name)!r}, read by {reader}, is produced nowhere"
                yield Finding("ONNX-GRAPH-MISSING", message, scope.label)


def _shadowed(at: int, bodies: Sequence[Body], all_scopes: Sequence[BodyScope]) -> Iterator[Finding]:
    scope = all_scopes[at]
    hidden: set[str] = set()
    parent = bodies[at].parent
    while parent is not None:
        hidden |= scope.defined & all_scopes[parent].defined
        parent = bodies[parent].parent
    for name in sorted(hidden - {""}):
        yield Finding("ONNX-GRAPH-SHADOWING", f"{printable(name)!r} hides the same name outside", scope.label)


def run_order(scope: BodyScope) -> tuple[list[int] | None, list[str]]:
    """Sort the operations of a body (Kahn's algorithm, ties in file order).

    Returns:
        The order, None when the listed one already works; and the labels along a circle, empty without one.
    """
    producer = {name: index for index, names in enumerate(scope.writes) for name in names}
    if all(producer.get(name, -1) < index for index, names in enumerate(scope.reads) for name in names):
        return None, []
    needs = [{producer[name] for name in names if name in producer} for names in scope.reads]
    users: list[list[int]] = [[] for _ in needs]
    for index, before in enumerate(needs):
        for producer_index in before:
            users[producer_index].append(index)
    waiting = [len(before) for before in needs]
    ready = [index for index, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) == len(needs):
        return order, []
    return None, _circle(scope, needs, waiting)


def _circle(scope: BodyScope, needs: Sequence[set[int]], waiting: Sequence[int]) -> list[str]:
    """Return the labels of one circle among the operations that never became ready."""
    at = next(index for index, count in enumerate(waiting) if count)
    position: dict[int, int] = {}
    path: list[int] = []
    while at not in position:
        position[at] = len(path)
        path.append(at)
        at = min(index for index in needs[at] if waiting[index])
    circle = path[position[at] :][::-1]
    first = circle.index(min(circle))
    circle = circle[first:] + circle[:first]
    labels = [scope.label_of(index) for index in (*circle, circle[0])]
    if len(labels) > _MAX_CYCLE_SHOWN:
        labels = [*labels[: _MAX_CYCLE_SHOWN - 1], f"… {len(labels) - _MAX_CYCLE_SHOWN} more …", labels[-1]]
    return labels
