"""Loop and Scan bodies traced once with their carried state as `recurrent`; both branches of an open If."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from emergraph.errors import EmergraphError
from emergraph.exporters.operations import Kind
from emergraph.exporters.tracing.context import TraceContext, TracedModel, rule
from emergraph.exporters.tracing.dispatch import dispatch
from emergraph.exporters.tracing.facts import BodyRun, TensorFacts
from emergraph.exporters.tracing.inputs import input_units
from emergraph.exporters.tracing.join import join
from emergraph.exporters.tracing.labels import Labels, compress, distinct_sets, distinct_tuples
from emergraph.exporters.tracing.subgraphs import RepeatedBody, body_of, repeated_body, run_graph
from emergraph.exporters.tracing.values import Value, merged_tracks
from emergraph.graphstore.records import EdgeKind, LayerKind, TracedAs


def _trace_body(ctx: TraceContext, run: BodyRun, entering: Mapping[str, Value]) -> str | None:
    """Trace the nodes of a body; the current node is restored afterwards.

    Returns:
        What in it is not understood, if anything is.
    """
    outer, attrs = ctx.node, ctx.attrs
    ctx.local_facts.update(run.facts)
    ctx.values.update(entering)
    opaque: str | None = None
    for node in run.nodes:
        dispatch(ctx, node)
        if ctx.traced_as is TracedAs.OPAQUE:
            opaque = f"{node.op_type} in its body: {ctx.reason}"
    ctx.node, ctx.attrs = outer, attrs
    ctx.branches.extend(run.branches)
    ctx.did(TracedAs.OPAQUE if opaque else TracedAs.RECURRENT, opaque)
    return opaque


def _state_value(
    ctx: TraceContext, body: TracedModel, name: str, initial: Value | None, position: int
) -> tuple[Value, Labels | None]:
    """Units of a carried state as the body sees it: a structural layer fed by its initial value."""
    numbers = input_units(body, name)
    facts = body.facts[name]
    if numbers is None:
        return Value(facts.shape), None
    count = int(numbers.max(initial=-1)) + 1
    layer = ctx.builder.add_layer(f"{ctx.name}:state{position}", ctx.op, LayerKind.JUNCTION, count)
    labels = compress(numbers + layer.first)
    if initial is not None and initial.labels is not None and initial.labels.shape == labels.shape:
        ctx.read(initial)
        _link(ctx, initial.labels, labels, EdgeKind.IDENTITY)
    return Value(facts.shape, labels=labels, dtype=facts.dtype), labels


def _link(ctx: TraceContext, src: Labels, dst: Labels, kind: EdgeKind) -> None:
    """Edges between the labels that stand at the same positions of two tensors."""
    shape = np.broadcast_shapes(src.shape, dst.shape)
    pairs, _ = distinct_tuples([np.broadcast_to(src, shape), np.broadcast_to(dst, shape)])
    pairs = pairs[(pairs >= 0).all(axis=1)]
    layer_of = ctx.builder.layer_ids(pairs[:, 1])
    for layer_id in np.unique(layer_of):
        chosen = pairs[layer_of == layer_id]
        ctx.builder.edges(
            ctx.builder.layers[int(layer_id)],
            name=ctx.name,
            op=ctx.op,
            kind=kind,
            src=chosen[:, 0],
            dst=chosen[:, 1],
            note="carried state" if kind is EdgeKind.RECURRENT else None,
        )


def _without_axis(ctx: TraceContext, value: Value, axis: int, name: str) -> Value:
    """One slice of a scanned tensor: each position shows the units of all slices."""
    labels = np.moveaxis(compress(value.carried), axis, -1)
    shape = labels.shape[:-1]
    if labels.strides[-1] == 0 or labels.shape[-1] == 1:
        return Value(shape, labels=labels[..., 0], tracks={}, dtype=value.dtype)
    ctx.read(value)
    sets, which = distinct_sets(np.ascontiguousarray(labels).reshape(-1, labels.shape[-1]))
    reduction = ctx.builder.add_reduction(name, ctx.op, sets)
    reduction.used_as_value = True
    return Value(shape, labels=compress((reduction.layer.first + which).reshape(shape)), dtype=value.dtype)


def _set_result(ctx: TraceContext, position: int, inner: str, *, stacked_axis: int | None) -> None:
    """An output of the node from an output of its body, stacked along an axis for scan outputs."""
    if position >= len(ctx.node.output) or not ctx.node.output[position]:
        return
    value = ctx.values.get(inner)
    facts = ctx.known(ctx.node.output[position])
    if facts is None:
        return
    if value is None or value.labels is None:
        ctx.set(position, Value(facts.shape))
        return
    labels = value.labels if stacked_axis is None else np.expand_dims(value.labels, stacked_axis)
    try:
        ctx.set_labels(position, np.broadcast_to(labels, facts.shape), {})
    except ValueError:
        ctx.warn(f"{ctx.name}: output {position} changes its shape from step to step")
        ctx.set(position, Value(facts.shape))


@rule(Kind.LOOP)
def repeat(ctx: TraceContext) -> None:
    """The body once: states are fed back by `recurrent` edges, what is scanned enters as one slice."""
    body = _prepared(ctx)
    if body is None:
        return
    model = _body_model(ctx, body)
    entering: dict[str, Value] = {name: Value(()) for name in body.steering}
    states: list[Labels | None] = []
    for position, (inside, outside, _) in enumerate(body.states):
        initial = ctx.value(outside) if outside else None
        entering[inside], state = _state_value(ctx, model, inside, initial, position)
        states.append(state)
    for position, (inside, outside, axis) in enumerate(body.slices):
        value = ctx.value(outside)
        if value.labels is None:
            entering[inside] = Value(body.own[inside].shape)
        else:
            entering[inside] = _without_axis(ctx, value, axis, f"{ctx.name}:slice{position}")
    _trace_body(ctx, body.run, entering)
    _close(ctx, states, [new for _, _, new in body.states])
    for position, (inside, stacked) in enumerate(body.results):
        _set_result(ctx, position, inside, stacked_axis=stacked)


def _prepared(ctx: TraceContext) -> RepeatedBody | None:
    if ctx.model.run_body is None:
        ctx.make_opaque(f"a {ctx.op} that cannot be run on its own here")
        return None
    try:
        body = repeated_body(ctx.node, ctx.model.run_body, lambda name: _facts_of(ctx, name))
    except EmergraphError as error:
        ctx.make_opaque(f"a {ctx.op} whose body does not run on its own: {error}")
        return None
    if body is None:
        ctx.make_opaque(f"a {ctx.op} that carries something other than tensors")
    return body


def _close(ctx: TraceContext, states: Sequence[Labels | None], outputs: Sequence[str]) -> None:
    """`recurrent` edges from what the body makes of a state back to the state."""
    for state, name in zip(states, outputs, strict=True):
        value = ctx.values.get(name)
        if state is None or value is None or value.labels is None:
            continue
        ctx.read(value)
        try:
            _link(ctx, value.labels, state, EdgeKind.RECURRENT)
        except ValueError:
            ctx.warn(f"{ctx.name}: a carried state changes its shape from step to step")


def _facts_of(ctx: TraceContext, name: str) -> TensorFacts | None:
    value = ctx.values.get(name)
    if value is not None and value.constant is not None:
        array = value.constant.load()
        return TensorFacts(tuple(array.shape), array.dtype, array)
    return ctx.known(name)


def _body_model(ctx: TraceContext, body: RepeatedBody) -> TracedModel:
    """The body as a model of its own, to find out which axes of its inputs are units."""
    return replace(
        ctx.model,
        nodes=body.run.nodes,
        facts={**ctx.model.facts, **ctx.local_facts, **body.run.facts, **body.own},
        inputs=list(body.own),
        outputs=[inside for inside, _ in body.results],
    )


@rule(Kind.BRANCH)
def both_branches(ctx: TraceContext) -> None:
    """An If that was left open on request: both branches, joined where their shapes agree."""
    results: list[list[Value | None]] = []
    opaque: list[str] = []
    for key in ("then_branch", "else_branch"):
        branch, which = body_of(ctx.node, key), key.removesuffix("_branch")
        if ctx.model.run_body is None:
            continue
        try:
            run = run_graph(ctx.model.run_body, branch, lambda name: _facts_of(ctx, name), {})
        except EmergraphError as error:
            ctx.warn(f"{ctx.name}: the {which} branch does not run on these inputs ({error})")
            continue
        ctx.branches.append(f"{ctx.node.name}:{which}")
        if reason := _trace_body(ctx, run, {}):
            opaque.append(reason)
        results.append([ctx.values.get(value.name) for value in branch.output])
    if not results:
        ctx.make_opaque("an If neither of whose branches runs on these inputs")
        return
    for position, name in enumerate(ctx.node.output):
        facts = ctx.known(name)
        if not name or facts is None:
            continue
        found = [branch[position] for branch in results]
        fitting = [v for v in found if v is not None and v.labels is not None and v.shape == facts.shape]
        _set_joined(ctx, position, fitting, facts)
    if opaque:
        ctx.did(TracedAs.OPAQUE, opaque[0])
        return
    ctx.did(TracedAs.JOINED, f"{len(results)} of 2 branches")


def _set_joined(ctx: TraceContext, position: int, values: Sequence[Value], facts: TensorFacts) -> None:
    if not values:
        ctx.set(position, Value(facts.shape))
        return
    if len(values) == 1:
        ctx.set_labels(position, values[0].carried, merged_tracks(list(values)))
        return
    outer = ctx.node
    part = onnx.NodeProto()
    part.CopyFrom(outer)
    del part.output[:]
    part.output.append(outer.output[position])
    ctx.node = part
    join(ctx, list(values), kind=EdgeKind.GATE, weights=None)
    ctx.node = outer
