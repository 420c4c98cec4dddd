"""The bodies of Loop, Scan and If: what enters them, and one run of each for the shapes inside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from emergraph.errors import InvalidInputError
from emergraph.exporters.nodes import attributes
from emergraph.exporters.runtime.flat_model import names_used
from emergraph.exporters.runtime.quoting import plain, quoted
from emergraph.exporters.tracing.facts import Array, BodyRun, BodyRunner, TensorFacts

FactsOf = Callable[[str], TensorFacts | None]
"""What is known about a tensor of the enclosing model; constants included."""


@dataclass(frozen=True)
class RepeatedBody:
    """A body of a Loop or a Scan, ready to be traced once."""

    run: BodyRun
    own: Mapping[str, TensorFacts]
    """What is known about the body's inputs."""
    states: tuple[tuple[str, str, str], ...]
    """(name inside, initial value outside, new value inside) of every carried state."""
    slices: tuple[tuple[str, str, int], ...]
    """(name inside, scanned tensor outside, axis) of every scan input."""
    steering: tuple[str, ...]
    """Inputs that only steer: a Loop's iteration number and condition."""
    results: tuple[tuple[str, int | None], ...]
    """For each output of the node: the tensor inside, and the axis along which it is stacked, if it is."""


def body_of(node: onnx.NodeProto, key: str) -> onnx.GraphProto:
    """A graph attribute of a node.

    Raises:
        InvalidInputError: The node has none of this name.
    """
    graph: onnx.GraphProto | None = next((a.g for a in node.attribute if a.name == key), None)
    if graph is None:
        raise InvalidInputError(f"operation {quoted(node.name)} ({plain(node.op_type)}) has no {key}")
    return graph


def outer_names(body: onnx.GraphProto) -> set[str]:
    """Names that a body, or bodies within it, read (some of them are made inside)."""
    return names_used(body.node) | {value.name for value in body.output}


def run_graph(
    runner: BodyRunner, body: onnx.GraphProto, facts_of: FactsOf, own: Mapping[str, TensorFacts]
) -> BodyRun:
    """Run a body once, with what is known about the tensors that it reads from outside."""
    outer = {name: facts for name in outer_names(body) if (facts := facts_of(name)) is not None}
    return runner(body, {**outer, **own})


def repeated_body(node: onnx.NodeProto, runner: BodyRunner, facts_of: FactsOf) -> RepeatedBody | None:
    """Prepare the body of a Loop or a Scan; None where it carries something other than tensors.

    Raises:
        EmergraphError: The body does not run on its own.
    """
    return _loop(node, runner, facts_of) if node.op_type == "Loop" else _scan(node, runner, facts_of)


def _loop(node: onnx.NodeProto, runner: BodyRunner, facts_of: FactsOf) -> RepeatedBody | None:
    body = body_of(node, "body")
    names = [value.name for value in body.input]
    outputs = [value.name for value in body.output]
    own = {
        names[0]: TensorFacts((), np.dtype(np.int64), np.asarray(0, np.int64)),
        names[1]: TensorFacts((), np.dtype(np.bool_), np.asarray(True)),
    }
    states = tuple(zip(names[2:], node.input[2:], outputs[1 : len(names) - 1], strict=True))
    for inside, outside, _ in states:
        facts = facts_of(outside)
        if facts is None:
            return None
        own[inside] = facts
    results = [(name, None if k < len(states) else 0) for k, name in enumerate(outputs[1:])]
    run = run_graph(runner, body, facts_of, own)
    return RepeatedBody(run, own, states, (), tuple(names[:2]), tuple(results))


def _scan(node: onnx.NodeProto, runner: BodyRunner, facts_of: FactsOf) -> RepeatedBody | None:
    body = body_of(node, "body")
    attrs = attributes(node)
    names = [value.name for value in body.input]
    outputs = [value.name for value in body.output]
    n_scanned = int(str(attrs.get("num_scan_inputs", 1)))
    n_states = len(names) - n_scanned
    axes = _axes(attrs.get("scan_input_axes"), n_scanned)
    out_axes = _axes(attrs.get("scan_output_axes"), len(outputs) - n_states)
    own: dict[str, TensorFacts] = {}
    slices: list[tuple[str, str, int]] = []
    for position, (inside, outside) in enumerate(zip(names, node.input, strict=True)):
        facts = facts_of(outside)
        if facts is None:
            return None
        if position < n_states:
            own[inside] = facts
            continue
        axis = axes[position - n_states] % len(facts.shape)
        own[inside] = _slice_facts(facts, axis)
        slices.append((inside, outside, axis))
    states = tuple(zip(names[:n_states], node.input[:n_states], outputs[:n_states], strict=True))
    results = [(name, None if k < n_states else out_axes[k - n_states]) for k, name in enumerate(outputs)]
    run = run_graph(runner, body, facts_of, own)
    return RepeatedBody(run, own, states, tuple(slices), (), tuple(results))


def _axes(given: object, count: int) -> list[int]:
    return [int(a) for a in given] if isinstance(given, list | tuple) else [0] * count


def _slice_facts(facts: TensorFacts, axis: int) -> TensorFacts:
    shape = tuple(size for k, size in enumerate(facts.shape) if k != axis)
    value: Array | None = None if facts.value is None else np.take(facts.value, 0, axis=axis)
    return TensorFacts(shape, facts.dtype, value)
