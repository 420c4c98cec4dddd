"""A model without the channels that it does not need: smaller tensors, the same operations."""

from collections.abc import Mapping

import numpy as np
import onnx

from emergraph.analysis.pruning.channels.constants import ModelConstants
from emergraph.analysis.pruning.channels.constantvalues import weight_sums
from emergraph.analysis.pruning.channels.tracks import ChannelReader
from emergraph.analysis.pruning.channels.unneeded import Unneeded
from emergraph.errors import UsageError
from emergraph.exporters.nodes import input_name
from emergraph.exporters.operations import Kind, kind_of
from emergraph.exporters.runtime.flat_model import names_used
from emergraph.exporters.runtime.ordering import in_data_order
from emergraph.exporters.runtime.quoting import quoted

BIAS = 2
"""Which input of a convolution or a Gemm its bias is."""


def cut_model(unneeded: Unneeded, original: onnx.ModelProto, opsets: Mapping[str, int]) -> onnx.ModelProto:
    """Build the smaller model.

    Inputs and outputs are the original's; functions are inlined and branches taken, as in the flat model.

    Args:
        unneeded: What can go.
        original: For names, types and metadata.
        opsets: Version per domain.

    Returns:
        A model with all values inside.
    """
    channels, constants = unneeded.channels, unneeded.constants
    nodes: list[onnx.NodeProto] = []
    readers = {reader.node: reader for reader in channels.readers}
    for index, node in enumerate(channels.flat.nodes):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        _cut_constants(copy, index, unneeded)
        made = [copy]
        for rewrite in channels.rewrites.get(index, ()):
            made = rewrite(copy, unneeded.keeps, constants)
        if index in readers:
            made = _fold(made[0], readers[index], unneeded, node)
        nodes.extend(made)
    return _assembled([*constants.added_nodes, *nodes], unneeded, original, opsets)


def _cut_constants(copy: onnx.NodeProto, index: int, unneeded: Unneeded) -> None:
    by_position: dict[int, dict[int, np.ndarray]] = {}
    for cut in unneeded.channels.cuts.get(index, ()):
        by_position.setdefault(cut.position, {})[cut.axis] = unneeded.keeps(cut.ids)
    for position, keeps in by_position.items():
        copy.input[position] = unneeded.constants.cut(copy.input[position], keeps)


def _fold(
    copy: onnx.NodeProto, reader: ChannelReader, unneeded: Unneeded, node: onnx.NodeProto
) -> list[onnx.NodeProto]:
    """Add what constant channels contributed to the bias of the contraction that read them."""
    if reader.ids is None or reader.out is None:
        return [copy]
    gone = ~unneeded.keeps(reader.ids)
    value = unneeded.constant[node.input[0 if reader.position else 1]]
    gone &= np.nan_to_num(value) != 0
    if not gone.any():
        return [copy]
    constants = unneeded.constants
    sums = weight_sums(reader, constants, node)[unneeded.keeps(reader.out)]
    more = sums[:, gone] @ value[gone]
    if not more.any():
        return [copy]
    kind = constants.value(node.input[reader.position]).dtype
    if kind_of(copy) is Kind.MATMUL:
        made = f"{copy.output[0]}/without_constants"
        final = copy.output[0]
        copy.output[0] = made
        added = constants.add(more.astype(kind), "bias")
        return [copy, onnx.helper.make_node("Add", [made, added], [final], name=f"{copy.name}/bias")]
    held: np.ndarray = np.zeros(len(more))
    if name := input_name(node, 2):
        stored = constants.value(name).astype(np.float64).reshape(-1)
        held = stored[unneeded.keeps(reader.out)] if stored.size == len(reader.out) else stored
    while len(copy.input) < BIAS + 1:
        copy.input.append("")
    copy.input[BIAS] = constants.add((held + more).astype(kind), "bias")
    return [copy]


def _assembled(
    nodes: list[onnx.NodeProto], unneeded: Unneeded, original: onnx.ModelProto, opsets: Mapping[str, int]
) -> onnx.ModelProto:
    flat = unneeded.channels.flat
    nodes = _used(nodes, flat.outputs)
    read = names_used(nodes) | set(flat.outputs)
    graph = onnx.GraphProto(name=original.graph.name or "model")
    held = {value.name for value in flat.inputs}
    graph.input.extend(value for value in original.graph.input if value.name in held)
    graph.output.extend(original.graph.output)
    for name, proto in flat.initializers.items():
        if name in read:
            graph.initializer.append(_filled(proto, name, unneeded.constants))
    graph.initializer.extend(proto for name, proto in unneeded.constants.added.items() if name in read)
    graph.node.extend(in_data_order(nodes))  # what was constant may depend on operations of the model now
    model = onnx.ModelProto(
        ir_version=max(original.ir_version, 4), producer_name="emergraph", domain=original.domain
    )
    model.graph.CopyFrom(graph)
    domains = {node.domain for node in nodes} | {""}
    for domain, version in opsets.items():
        if domain in domains:
            model.opset_import.add(domain=domain, version=version)
    return model


def _filled(proto: onnx.TensorProto, name: str, constants: ModelConstants) -> onnx.TensorProto:
    if proto.data_type == onnx.TensorProto.STRING:
        copy = onnx.TensorProto()
        copy.CopyFrom(proto)
        copy.name = name
        return copy
    filled: onnx.TensorProto = onnx.numpy_helper.from_array(np.array(constants.values(name), order="C"), name)
    if filled.data_type != proto.data_type:
        raise UsageError(
            f"tensor {quoted(name)} has an element type that no smaller model is written with; "
            "write the masked model instead: --masked"
        )
    return filled


def _used(nodes: list[onnx.NodeProto], outputs: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on."""
    makers = {name: node for node in nodes for name in node.output if name}
    stack, seen = list(outputs), set()
    while stack:
        node = makers.get(stack.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        stack.extend(names_used([node]))
    return [node for node in nodes if id(node) in seen]
