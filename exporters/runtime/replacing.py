"""A model in which masks that are inputs replace some of its tensors, and what follows such tensors."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import helper as oh

from emergraph.exporters.nodes import subgraphs
from emergraph.exporters.onnxfile.dtypes import element_type_of
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


def replacing(
    flat: FlatModel, tensors: Iterable[str], values: Mapping[str, TensorValue]
) -> tuple[FlatModel, dict[str, Replaced]]:
    """A model in which whatever read a tensor reads `Where(mask, tensor, value)`.

    Args:
        flat: The model, of version 9 of the standard operations or later.
        tensors: Inputs of the model, or tensors that its top level makes.
        values: What a run of the model gave for them.

    Returns:
        The model, with two more inputs for each tensor, and the names of those inputs.
    """
    wanted = dict.fromkeys(tensors)
    names = {name: Replaced(f"{name}\0mask", f"{name}\0value", f"{name}\0replaced") for name in wanted}
    renamed = {name: found.output for name, found in names.items()}
    nodes = [_where(name, names[name]) for name in wanted if name in {one.name for one in flat.inputs}]
    for node in flat.nodes:
        nodes.append(_reading(node, renamed))
        nodes += [_where(name, names[name]) for name in node.output if name in names]
    inputs = [*flat.inputs]
    for name, found in names.items():
        shape = (None,) * len(values[name].shape or ())
        inputs.append(FlatInput(found.mask, onnx.TensorProto.BOOL, shape))
        inputs.append(FlatInput(found.value, _element_type(values[name]), shape))
    outputs = tuple(renamed.get(name, name) for name in flat.outputs)
    return replace(flat, nodes=tuple(nodes), inputs=tuple(inputs), outputs=outputs), names


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
    made = {name for node in nodes for name in node.output}
    given = {one.name: one for one in flat.inputs}
    reads = [
        name
        for name in dict.fromkeys(name for node in nodes for name in sorted(names_used([node])))
        if name and name not in made and name not in flat.initializers and name not in tensors
        if name in given or (name in values and values[name].shape is not None)
    ]
    ends = tuple(name for name in outputs if name in reached)
    inputs = tuple(given.get(name) or _as_input(name, values[name]) for name in (*tensors, *reads))
    return Rest(replace(flat, nodes=tuple(nodes), inputs=inputs, outputs=ends), tuple(reads), ends)


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
