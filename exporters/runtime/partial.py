"""The part of a model that onnxruntime can run, and stand-ins for what it cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.onnxfile.dtypes import element_type_of, numpy_dtype
from emergraph.exporters.runtime.feeds import MAX_MADE
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel, walk_nodes
from emergraph.exporters.runtime.inference import inferred_types
from emergraph.exporters.runtime.ordering import outer_names_read
from emergraph.exporters.runtime.quoting import plain, quoted
from emergraph.exporters.runtime.refusals import Unsupported

Array = NDArray[np.generic]
FLOAT = int(onnx.TensorProto.FLOAT)


@dataclass
class Blocked:
    """What onnxruntime turned out not to have."""

    operations: set[tuple[str, str]] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)

    def add(self, found: Unsupported) -> bool:
        """Remember one more; False if it was known already, so that trying again is useless."""
        if found.operation is not None and found.operation not in self.operations:
            self.operations.add(found.operation)
            return True
        if found.node is not None and found.node not in self.nodes:
            self.nodes.add(found.node)
            return True
        return False

    def holds(self, node: onnx.NodeProto) -> bool:
        """Whether a node, or one inside its subgraphs, cannot run."""
        return any(
            (inner.domain, inner.op_type) in self.operations or inner.name in self.nodes
            for inner in walk_nodes((node,))
        )


@dataclass(frozen=True)
class RunnablePart:
    """What of a model can run."""

    flat: FlatModel
    """Only the nodes that can run; stand-ins are inputs."""
    frontier: tuple[onnx.NodeProto, ...]
    """Nodes that cannot run although everything they read is there, and that have no stand-ins yet."""
    left_out: Mapping[str, str]
    """Why, by name, for every node that does not run."""


def runnable_part(flat: FlatModel, blocked: Blocked, stand_ins: Sequence[FlatInput] = ()) -> RunnablePart:
    """Leave out what cannot run and what depends on it; tensors with a stand-in count as there."""
    given = {value.name for value in stand_ins}
    there = {"", *given, *flat.initializers, *(value.name for value in flat.inputs)}
    nodes: list[onnx.NodeProto] = []
    frontier: list[onnx.NodeProto] = []
    left_out: dict[str, str] = {}
    for node in flat.nodes:
        missing = sorted(outer_names_read(node) - there)
        if missing:
            left_out[node.name] = f"reads {quoted(missing[0])}, which was not computed"
        elif blocked.holds(node):
            left_out[node.name] = (
                f"onnxruntime cannot run {plain(node.domain or 'ai.onnx')}:{plain(node.op_type)}"
            )
            if not given.issuperset(name for name in node.output if name):
                frontier.append(node)
        else:
            nodes.append(node)
            there.update(node.output)
    outputs = tuple(name for name in flat.outputs if name in there)
    part = replace(flat, nodes=tuple(nodes), inputs=(*flat.inputs, *stand_ins), outputs=outputs)
    return RunnablePart(part, tuple(frontier), left_out)


def stand_in_shapes(
    node: onnx.NodeProto,
    flat: FlatModel,
    feeds: Mapping[str, Array],
    known: Mapping[str, tuple[int, tuple[int, ...]]],
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element types and shapes to assume for the outputs of a node that cannot run.

    What the file declares, its named axes bound by the inputs; else what ONNX itself infers for the
    operation; else those of the node's first input.

    Args:
        node: The node.
        flat: The model, for what it declares.
        feeds: The inputs used.
        known: Element type and shape of the tensors that were computed or assumed.

    Returns:
        By output name; outputs for which nothing can be assumed are left out.
    """
    sizes = {
        axis: size
        for value in flat.inputs
        if value.shape is not None and value.name in feeds
        for axis, size in zip(value.shape, feeds[value.name].shape, strict=True)
        if isinstance(axis, str)
    }
    types = {name: onnx.helper.make_tensor_type_proto(*one) for name, one in known.items()}
    for name in node.input:
        if name in flat.initializers:
            proto = flat.initializers[name]
            types[name] = onnx.helper.make_tensor_type_proto(proto.data_type, list(proto.dims))
    inferred = inferred_types(node, flat.opsets, types)
    first = next((known[name] for name in node.input if name in known), None)
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    for name in node.output:
        if not name:
            continue
        assumed = _declared(flat.declared.get(name), sizes) or _declared(inferred.get(name), sizes) or first
        if assumed is not None:
            found[name] = assumed
    return found


def _declared(
    declared: onnx.TypeProto | None, sizes: Mapping[str, int]
) -> tuple[int, tuple[int, ...]] | None:
    if declared is None or not declared.tensor_type.HasField("shape"):
        return None
    shape: list[int] = []
    for axis in declared.tensor_type.shape.dim:
        size = axis.dim_value if axis.HasField("dim_value") else sizes.get(axis.dim_param)
        if size is None or size < 0:
            return None
        shape.append(int(size))
    return declared.tensor_type.elem_type or FLOAT, tuple(shape)


def stand_in(element_type: int, shape: tuple[int, ...], seed: int) -> Array | None:
    """Values to go on with, N(0, 1) or zeros; None for types without arrays and for what is too large."""
    dtype = numpy_dtype(element_type)
    if dtype is None or element_type_of(dtype) is None or prod(shape) > MAX_MADE:
        return None
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
