"""A model in which inputs replace some of its tensors or move them, and what follows such tensors."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import helper as oh

from emergraph.exporters.nodes import subgraphs
from emergraph.exporters.onnxfile.dtypes import element_type_of
from emergraph.exporters.operations import ADD
from emergraph.exporters.runtime.concrete import TensorValue
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel, names_used

WHERE_SINCE = 9
"""First version of the standard operations that has Where."""


@dataclass(frozen=True)
class Replaced:
    """Names of the inputs that say what a tensor is replaced by, and where."""

    mask: str
    """Boolean: true where the model's own value goes on."""
    value: str
    """What goes on elsewhere; both broadcast to the tensor."""
    output: str
    """The tensor that is read instead."""


def inputs_of(tensor: str) -> Replaced:
    """The names that go with a tensor."""
    return Replaced(f"{tensor}\0mask", f"{tensor}\0value", f"{tensor}\0replaced")


def replacing(
    flat: FlatModel, tensors: Iterable[str], values: Mapping[str, TensorValue]
) -> tuple[FlatModel, dict[str, Replaced]]:
    """A model in which whatever read a tensor reads `Where(mask, tensor, value)`.

    Args:
        flat: The model, of version 9 of the standard operations or later.
        tensors: Inputs of the model, or tensors that its top level makes; those of operations that are opened
            (`opened`) are replaced inside.
        values: What a run of the model gave for them.

    Returns:
        The model, with two more inputs for each tensor, and the names of those inputs.
    """
    names = {name: inputs_of(name) for name in tensors}
    inside = {name for name, found in names.items() if any(found.mask in node.output for node in flat.nodes)}
    constants = {one for name in inside for one in (names[name].mask, names[name].value)}
    flat = replace(flat, nodes=tuple(node for node in flat.nodes if not constants & set(node.output)))
    inputs = []
    for name, found in names.items():
        shape = (None,) * len(values[name].shape or ())
        inputs.append(FlatInput(found.mask, onnx.TensorProto.BOOL, shape))
        inputs.append(FlatInput(found.value, _element_type(values[name]), shape))
    renamed = {name: found.output for name, found in names.items() if name not in inside}
    return _instead(flat, renamed, {name: _where(name, names[name]) for name in renamed}, inputs), names


def adding(
    flat: FlatModel, tensors: Iterable[str], values: Mapping[str, TensorValue]
) -> tuple[FlatModel, dict[str, str]]:
    """A model in which whatever read a tensor reads its sum with an input of the model.

    Args:
        flat: The model.
        tensors: Inputs of the model, or tensors of floats that its top level makes.
        values: What a run of the model gave for them.

    Returns:
        The model, with one more input for each tensor, and the names of those inputs.
    """
    names = {name: f"{name}\0shift" for name in tensors}
    renamed = {name: f"{name}\0moved" for name in names}
    inserted = {name: oh.make_node(ADD, [name, names[name]], [renamed[name]]) for name in names}
    inputs = [
        FlatInput(shift, _element_type(values[name]), (None,) * len(values[name].shape or ()))
        for name, shift in names.items()
    ]
    return _instead(flat, renamed, inserted, inputs), names


def _instead(
    flat: FlatModel,
    renamed: Mapping[str, str],
    inserted: Mapping[str, onnx.NodeProto],
    inputs: Sequence[FlatInput],
) -> FlatModel:
    """A model with a node behind some tensors, whose output is read instead of them, and more inputs."""
    given = {one.name for one in flat.inputs}
    nodes = [node for name, node in inserted.items() if name in given]
    for node in flat.nodes:
        nodes.append(_reading(node, renamed))
        nodes += [inserted[name] for name in node.output if name in inserted]
    outputs = tuple(renamed.get(name, name) for name in flat.outputs)
    return replace(flat, nodes=tuple(nodes), inputs=(*flat.inputs, *inputs), outputs=outputs)


@dataclass(frozen=True)
class Rest:
    """What a model computes from some of its tensors on."""

    flat: FlatModel
    """Its inputs are those tensors, and what their followers read besides."""
    reads: tuple[str, ...]
    """Those other inputs: they do not depend on the tensors."""
    outputs: tuple[str, ...]
    """Outputs of the model that depend on the tensors."""


def following(
    flat: FlatModel, tensors: Collection[str], outputs: Sequence[str], values: Mapping[str, TensorValue]
) -> Rest:
    """The part of a model that lies after some of its tensors.

    Args:
        flat: The model.
        tensors: Where the part begins.
        outputs: Outputs of the model that are wanted.
        values: What a run of the model gave.
    """
    reached = set(tensors)
    nodes = []
    for node in flat.nodes:
        if names_used([node]) & reached:
            nodes.append(node)
            reached.update(name for name in node.output if name)
    given = {one.name: one for one in flat.inputs}
    known = {name for name, value in values.items() if value.shape is not None} | set(given)
    nodes = _with_makers(flat, nodes, known | set(tensors))
    made = {name for node in nodes for name in node.output}
    reads = [
        name
        for name in dict.fromkeys(name for node in nodes for name in sorted(names_used([node])))
        if name in known and name not in made and name not in flat.initializers and name not in tensors
    ]
    ends = tuple(name for name in outputs if name in reached)
    inputs = tuple(given.get(name) or _as_input(name, values[name]) for name in (*tensors, *reads))
    return Rest(replace(flat, nodes=tuple(nodes), inputs=inputs, outputs=ends), tuple(reads), ends)


def _with_makers(
    flat: FlatModel, nodes: Sequence[onnx.NodeProto], known: Collection[str]
) -> list[onnx.NodeProto]:
    """Nodes, and those that make what they read and no run showed, in the model's order."""
    makers = {name: node for node in flat.nodes for name in node.output if name}
    chosen = {id(node) for node in nodes}
    waiting = list(nodes)
    while waiting:
        for name in names_used([waiting.pop()]):
            node = None if name in known else makers.get(name)
            if node is not None and id(node) not in chosen:
                chosen.add(id(node))
                waiting.append(node)
    return [node for node in flat.nodes if id(node) in chosen]


def _as_input(name: str, value: TensorValue) -> FlatInput:
    return FlatInput(name, _element_type(value), (None,) * len(value.shape or ()))


def _element_type(value: TensorValue) -> int:
    found = None if value.dtype is None else element_type_of(value.dtype)
    return found or 0


def _where(name: str, found: Replaced) -> onnx.NodeProto:
    return oh.make_node("Where", [found.mask, name, found.value], [found.output], name=f"{name}\0where")


def _reading(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """The node, reading other tensors; the node itself where it reads none of them."""
    if not names_used([node]) & renamed.keys():
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    stack = [copy]
    while stack:
        current = stack.pop()
        for position, name in enumerate(current.input):
            current.input[position] = renamed.get(name, name)
        for graph in subgraphs(current):
            for value in graph.output:
                value.name = renamed.get(value.name, value.name)
            stack.extend(graph.node)
    return copy
