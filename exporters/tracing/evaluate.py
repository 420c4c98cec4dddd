"""Running one operation on arrays: constants are folded and labels are moved by the operation itself."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from emergraph.errors import InvalidInputError

Array = NDArray[np.generic]


class EvaluationError(InvalidInputError):
    """The reference implementation of ONNX does not know an operation, or refuses its inputs."""


def run_node(node: onnx.NodeProto, inputs: Sequence[Array | None], opsets: Mapping[str, int]) -> list[Array]:
    """Run one node on arrays with the reference implementation of ONNX.

    Args:
        node: The operation; its attributes are used, its tensor names are not.
        inputs: One array per input, None for an omitted optional input.
        opsets: Version per domain of the model that the node is from.

    Returns:
        One array per output.

    Raises:
        EvaluationError: The reference implementation refuses the operation or its inputs.
    """
    single = onnx.NodeProto()
    single.CopyFrom(node)
    del single.input[:]
    del single.output[:]
    feeds: dict[str, Array] = {}
    for position, array in enumerate(inputs):
        name = "" if array is None else f"i{position}"
        single.input.append(name)
        if array is not None:
            feeds[name] = array
    single.output.extend(f"o{k}" if name else "" for k, name in enumerate(node.output))
    wanted = [name for name in single.output if name]
    graph = onnx.GraphProto(name="one")
    graph.node.append(single)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in feeds)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    model = onnx.ModelProto(ir_version=10)
    model.graph.CopyFrom(graph)
    for domain, version in opsets.items():
        model.opset_import.append(onnx.OperatorSetIdProto(domain=domain, version=version))
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:
        raise EvaluationError(f"operation {node.op_type} cannot be evaluated: {error}") from error
    by_name = dict(zip(wanted, results, strict=True))
    return [np.asarray(by_name[name]) if name else np.empty(0) for name in single.output]


def move_labels(
    node: onnx.NodeProto, inputs: Sequence[Array | None], data: Collection[int], opsets: Mapping[str, int]
) -> list[NDArray[np.int64]]:
    """Run a node that moves data on labels; elements that it fills in are -1.

    Args:
        node: The operation.
        inputs: One array per input: labels, or what says where to move them.
        data: Positions of the inputs that are labels.
        opsets: Version per domain.

    Raises:
        EvaluationError: The reference implementation refuses the operation or its inputs.
    """
    moved = onnx.NodeProto()
    moved.CopyFrom(node)
    del moved.attribute[:]
    moved.attribute.extend(a for a in node.attribute if a.name != "reduction")
    versions = dict(opsets)
    if node.op_type == "Scatter":
        moved.op_type = "ScatterElements"
        versions[""] = max(versions.get("", 1), 11)
    # What an operation fills in is 0, so that 0 is "no unit" while it runs.
    arrays = [a + 1 if a is not None and k in data else a for k, a in enumerate(inputs)]
    if node.op_type == "Pad":
        if len(arrays) > 2:
            arrays[2] = np.asarray(0, np.int64)
        for attribute in moved.attribute:
            if attribute.name == "value":
                attribute.f = 0.0
    return [np.asarray(result).astype(np.int64) - 1 for result in run_node(moved, arrays, versions)]


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Whether a node holds graphs of its own (If, Loop, Scan, SequenceMap)."""
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
