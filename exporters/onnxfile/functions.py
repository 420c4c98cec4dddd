"""Local functions: who calls whom, and how much there would be if every call were written out.

Counted on the call graph, never by writing anything out: thirty functions that each call the next one twice
fit in 4 KB and stand for 2^30 operations.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import FunctionProto, ModelProto, NodeProto

from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.traverse import Body
from emergraph.exporters.operations import normal_domain

FunctionKey = tuple[str, str, str]
"""Domain ("" for the standard one), name, overload."""

_MANY = 1 << 64
"""Counts stop here, so that they stay cheap to add."""


def function_key(proto: FunctionProto) -> FunctionKey:
    """Return what identifies a local function."""
    return normal_domain(proto.domain), proto.name, proto.overload


def call_key(node: NodeProto) -> FunctionKey:
    """Return the function that an operation would call if there is one."""
    return normal_domain(node.domain), node.op_type, node.overload


@dataclass(frozen=True)
class CallGraph:
    """Operations and calls of the main graph (key None) and of each local function, subgraphs included."""

    n_nodes: Mapping[FunctionKey | None, int]
    calls: Mapping[FunctionKey | None, Mapping[FunctionKey, int]]
    n_bytes: Mapping[FunctionKey | None, int]
    """Serialized size."""


def call_graph(model: ModelProto, bodies: Sequence[Body]) -> CallGraph:
    """Return who calls whom."""
    known = {function_key(function) for function in model.functions}
    owner: list[FunctionKey | None] = []
    n_nodes: Counter[FunctionKey | None] = Counter()
    calls: dict[FunctionKey | None, Counter[FunctionKey]] = {None: Counter()} | {
        key: Counter() for key in known
    }
    for body in bodies:
        if body.parent is not None:
            key = owner[body.parent]
        else:
            key = function_key(body.proto) if isinstance(body.proto, FunctionProto) else None
        owner.append(key)
        n_nodes[key] += len(body.proto.node)
        if known:
            calls[key].update(called for node in body.proto.node if (called := call_key(node)) in known)
    n_bytes: dict[FunctionKey | None, int] = {
        function_key(proto): proto.ByteSize() for proto in model.functions
    }
    return CallGraph(n_nodes, calls, n_bytes | {None: 0})


def function_findings(model: ModelProto, bodies: Sequence[Body], limits: ReadLimits) -> Iterator[Finding]:
    """Yield what is wrong with local functions: defined twice, recursive, too many when written out."""
    keys = [function_key(function) for function in model.functions]
    for key, count in Counter(keys).items():
        if count > 1:
            yield Finding("ONNX-FUNC-DUPLICATE", f"{count} functions are called {_shown(key)}")
    graph = call_graph(model, bodies)
    order, circle = _callees_first(graph)
    if circle:
        yield Finding("ONNX-FUNC-RECURSIVE", f"functions call each other in a cycle: {' -> '.join(circle)}")
        return
    nodes: dict[FunctionKey | None, int] = {}
    size: dict[FunctionKey | None, int] = {}
    for caller in order:
        called = graph.calls[caller]
        nodes[caller] = min(
            _MANY, graph.n_nodes[caller] + sum(times * nodes[key] for key, times in called.items())
        )
        size[caller] = min(
            _MANY, graph.n_bytes[caller] + sum(times * size[key] for key, times in called.items())
        )
    if nodes[None] > limits.expanded_nodes and keys:
        yield Finding(
            "ONNX-FUNC-EXPANSION",
            f"local functions stand for {_rounded(nodes[None])} operations; limit {limits.expanded_nodes}",
        )
    elif size[None] > limits.model_memory:
        yield Finding(
            "ONNX-FUNC-EXPANSION", f"local functions stand for {_rounded(size[None])} bytes of operations"
        )


def _callees_first(graph: CallGraph) -> tuple[list[FunctionKey | None], list[str]]:
    """Sort callers behind what they call; or return the names along a circle."""
    order: list[FunctionKey | None] = []
    state: dict[FunctionKey | None, str] = {}
    for start in graph.calls:
        stack: list[tuple[FunctionKey | None, Iterator[FunctionKey]]] = []
        if start not in state:
            state[start] = "open"
            stack.append((start, iter(graph.calls[start])))
        while stack:
            caller, remaining = stack[-1]
            called = next(remaining, None)
            if called is None:
                state[caller] = "done"
                order.append(caller)
                stack.pop()
            elif state.get(called) == "open":
                path = [key for key, _ in stack]
                return order, [_shown(key) for key in (*path[path.index(called) :], called)][:8]
            elif called not in state:
                state[called] = "open"
                stack.append((called, iter(graph.calls[called])))
    return order, []


def _shown(key: FunctionKey | None) -> str:
    return "the main graph" if key is None else printable("::".join(part for part in key[:2] if part))


def _rounded(count: int) -> str:
    return str(count) if count < 10**9 else f"at least 2^{count.bit_length() - 1}"
