"""Which of the things an operation can do to units a node does: fold, follow its rule, or steer."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from emergraph.exporters.nodes import attributes, has_subgraph
from emergraph.exporters.operations import CONTRACTING, PICKING, Kind, kind_of, spec_of
from emergraph.exporters.runtime.reference import EvaluationError
from emergraph.exporters.tracing.banks import settle_banks
from emergraph.exporters.tracing.context import Rule, TraceContext, find_rule
from emergraph.exporters.tracing.facts import TensorFacts
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import TracedAs

_FROM_INDICES = CONTRACTING | PICKING | {Kind.EMBED}
"""Operations that make units out of indices and parameters; others that see no unit only steer."""


def dispatch(ctx: TraceContext, node: onnx.NodeProto) -> None:
    """Trace one node: its outputs are set in the context, and how it was traced is noted there."""
    ctx.node, ctx.attrs = node, attributes(node)
    ctx.traced_as, ctx.reason = TracedAs.OPAQUE, None
    settle_banks(ctx, node)
    given = ctx.inputs()
    rule = find_rule(node)
    # A list has no labels of its own, but its items may.
    listed = any(name in ctx.sequences for name in node.input)
    labelled = listed or any(v.labels is not None or v.bank is not None for v in given)
    whole = all(ctx.known(name) is not None for name in node.output if name)
    fixed = all(v.constant is not None for v in given) and not spec_of(node).is_random
    if fixed and whole and not has_subgraph(node):
        ctx.fold()
    elif labelled or has_subgraph(node) or not whole or _makes_units(node, given):
        if rule is None:
            ctx.make_opaque(f"operation {ctx.op} has no tracing rule")
        else:
            _follow(ctx, node, rule)
    elif rule is not None and kind_of(node) is Kind.SHAPE:
        rule(ctx)
    else:
        for position, name in enumerate(node.output):
            if ctx.known(name) is not None:
                ctx.set_control(position)
        ctx.did(TracedAs.CONTROL)


def _follow(ctx: TraceContext, node: onnx.NodeProto, rule: Rule) -> None:
    """Follow a rule; an operation that does not fit it is opaque, and the graph says so."""
    try:
        rule(ctx)
    except _MISFITS as error:
        # A damaged or unusual file: sizes that contradict each other, inputs that nobody takes.
        ctx.node, ctx.attrs = node, attributes(node)
        reason = f"{ctx.op} does not fit its tracing rule ({type(error).__name__}: {error})"
        if any(0 in known.shape for name in (*node.input, *node.output) if (known := ctx.known(name))):
            reason = f"{ctx.op} sees nothing in the concrete run: a tensor of it is empty; give other inputs"
        ctx.warn(f"{ctx.name}: {reason}")
        ctx.make_opaque(reason)


_MISFITS = (ValueError, IndexError, KeyError, TypeError, ArithmeticError, AttributeError, EvaluationError)


def expand(
    ctx: TraceContext,
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Trace the current node as the given sequence of simpler nodes.

    Args:
        ctx: The trace; its current node is the composite operation.
        nodes: Simpler nodes; the last ones make the composite's outputs under their own names.
        shapes: Shapes of the tensors in between, in the concrete run.
    """
    outer, outer_attrs = ctx.node, ctx.attrs
    kinds: list[TracedAs] = []
    for name, shape in shapes.items():
        ctx.local_facts[name] = TensorFacts(tuple(shape), np.dtype(np.float32))
    for position, node in enumerate(nodes):
        node.name = f"{outer.name or outer.output[0]}/{node.op_type}_{position}"
        dispatch(ctx, node)
        if ctx.traced_as is TracedAs.OPAQUE:
            kinds = [TracedAs.OPAQUE]
            reason = ctx.reason
            break
        kinds.append(ctx.traced_as)
    ctx.node, ctx.attrs = outer, outer_attrs
    strongest = max(kinds, key=list(_WEIGHT).index) if TracedAs.OPAQUE not in kinds else TracedAs.OPAQUE
    if strongest is TracedAs.OPAQUE:
        ctx.make_opaque(reason or "a part of it is not understood")
        return
    ctx.did(strongest, f"as {', '.join(n.op_type for n in nodes)}")


_WEIGHT = (
    TracedAs.CONSTANT,
    TracedAs.CONTROL,
    TracedAs.MOVED,
    TracedAs.ELEMENTWISE,
    TracedAs.REDUCED,
    TracedAs.NORMALISED,
    TracedAs.JOINED,
    TracedAs.ATTENDED,
    TracedAs.EMBEDDED,
    TracedAs.RECURRENT,
    TracedAs.CONTRACTED,
)


def _makes_units(node: onnx.NodeProto, values: list[Value]) -> bool:
    spec = spec_of(node)
    makes = spec.kind in _FROM_INDICES or spec.plain_kind in PICKING
    return makes and any(v.constant is not None and v.constant.roots for v in values)
