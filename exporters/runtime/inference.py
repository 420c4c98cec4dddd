"""Element types and shapes of what one operation makes, as ONNX infers them."""

from collections.abc import Mapping

import onnx

from emergraph.exporters.nodes import has_subgraph


def inferred_types(
    node: onnx.NodeProto,
    opsets: Mapping[str, int],
    types: Mapping[str, onnx.TypeProto],
    constants: Mapping[str, onnx.TensorProto] | None = None,
) -> dict[str, onnx.TypeProto]:
    """Types of the outputs of a standard operation.

    Args:
        node: The operation.
        opsets: Version per domain.
        types: Types of tensors by name.
        constants: Values of tensors by name, on which shapes may depend.

    Returns:
        By output name; nothing where ONNX does not know the operation or not enough of its inputs.
    """
    if node.domain not in opsets or has_subgraph(node) or not onnx.defs.has(node.op_type, node.domain):
        return {}
    given = {name: types[name] for name in node.input if name in types}
    if any(name and name not in given for name in node.input):
        return {}
    imports = [onnx.helper.make_opsetid(*pair) for pair in opsets.items()]
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
        values = {name: constants[name] for name in node.input if name in constants} if constants else None
        return dict(
            onnx.shape_inference.infer_node_outputs(schema, node, given, values, opset_imports=imports)
        )
    except (
        onnx.defs.SchemaError,
        onnx.shape_inference.InferenceError,
        onnx.checker.ValidationError,
        ValueError,
    ):
        return {}
