"""Running one operation on arrays in this process, with the reference implementation of ONNX."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.nodes import operation_type

Array = NDArray[np.generic]


class EvaluationError(InvalidInputError):
    """Nothing available can compute an operation on its inputs."""


def run_node(node: onnx.NodeProto, inputs: Sequence[Array | None], opsets: Mapping[str, int]) -> list[Array]:
    """Run one node on arrays with the reference implementation of ONNX.

    It moves labels and evaluates functions of a few numbers. Constants of the model are folded by onnxruntime
    (see `folding`), and come here only where that has no kernel.

    Args:
        node: The operation; its attributes are used, its tensor names are not.
        inputs: One array per input, None for an omitted optional input.
        opsets: Version per domain of the model that the node is from.

    Returns:
        One array per output.

    Raises:
        EvaluationError: The reference implementation refuses the operation or its inputs.
    """
    # it takes long to import, and few models need it
    from onnx.reference import ReferenceEvaluator

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
        raise EvaluationError(f"operation {operation_type(node)} cannot be evaluated: {error}") from error
    by_name = dict(zip(wanted, results, strict=True))
    return [np.asarray(by_name[name]) if name else np.empty(0) for name in single.output]
