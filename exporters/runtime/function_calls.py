"""What a call of a local function means: its attributes, and the versions of operations it was made for."""

from collections.abc import Mapping, Sequence

import onnx

from emergraph.errors import InvalidInputError
from emergraph.exporters.operations import normal_domain
from emergraph.exporters.runtime.quoting import plain, quoted

Bindings = Mapping[str, onnx.AttributeProto]


def bound_attribute(attribute: onnx.AttributeProto, bindings: Bindings) -> onnx.AttributeProto | None:
    """The attribute itself, or what a reference to an attribute of the enclosing function means.

    None where the call leaves the referenced attribute out.
    """
    if not attribute.ref_attr_name:
        return attribute
    value = bindings.get(attribute.ref_attr_name)
    if value is None:
        return None
    bound = onnx.AttributeProto()
    bound.CopyFrom(value)
    bound.name = attribute.name
    return bound


def call_bindings(function: onnx.FunctionProto, call: onnx.NodeProto, outer: Bindings) -> Bindings:
    """What the attributes of a function mean in one call of it."""
    bindings = {attribute.name: attribute for attribute in function.attribute_proto}
    for attribute in call.attribute:
        bound = bound_attribute(attribute, outer)
        if bound is not None:
            bindings[attribute.name] = bound
    return bindings


def check_versions(function: onnx.FunctionProto, opsets: dict[str, int]) -> None:
    """Refuse a function made for another version of an operation than the one the model means.

    Domains that only the function imports are added to `opsets`.
    """
    for domain, version in opset_versions(function.opset_import).items():
        outer = opsets.setdefault(domain, version)
        if outer == version:
            continue
        for node in function.node:
            if normal_domain(node.domain) == domain and _differs(node.op_type, domain, version, outer):
                raise InvalidInputError(
                    f"local function {quoted(function.name)} uses {plain(node.op_type)} of opset {version}, "
                    f"the model opset {outer}, and the two differ; expected one version: convert the model "
                    "with onnx.version_converter"
                )


def opset_versions(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Version per domain."""
    return {normal_domain(entry.domain): int(entry.version) for entry in imports}


def _differs(op: str, domain: str, one: int, other: int) -> bool:
    """Whether two opset versions hold different versions of an operation; unknown ones do not differ."""
    if not onnx.defs.has(op, domain):
        return False
    try:
        first = onnx.defs.get_schema(op, one, domain)
        second = onnx.defs.get_schema(op, other, domain)
    except onnx.defs.SchemaError:
        return True
    return bool(first.since_version != second.since_version)
