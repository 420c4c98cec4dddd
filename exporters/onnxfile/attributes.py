"""Operations and their attributes: each with a type, each attribute once and with one kind of value."""

from collections.abc import Iterator, Sequence

from onnx import AttributeProto, NodeProto

from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.traverse import Body

VALUE_FIELDS: dict[int, str] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
"""The field of an AttributeProto that holds the value, by type."""
_VALUES = frozenset(VALUE_FIELDS.values())


def node_findings(bodies: Sequence[Body]) -> Iterator[Finding]:
    """Yield operations without a type, and attributes that readers would read differently."""
    for body in bodies:
        for node in body.proto.node:
            problem = _problem(node)
            if problem is not None:
                where = f"operation {printable(node.name)!r}" if node.name else f"a {printable(node.op_type)}"
                yield Finding("ONNX-NODE-INVALID", problem, where)


def _problem(node: NodeProto) -> str | None:
    if not node.op_type:
        return "no operation type"
    seen: set[str] = set()
    for attribute in node.attribute:
        name = attribute.name
        if not name:
            return "an attribute without a name"
        if name in seen:
            return f"attribute {printable(name)!r} is given twice"
        seen.add(name)
        held = [descriptor.name for descriptor, _ in attribute.ListFields() if descriptor.name in _VALUES]
        expected = VALUE_FIELDS.get(attribute.type)
        if attribute.type != AttributeProto.UNDEFINED and expected is None:
            return f"attribute {printable(name)!r} has type {attribute.type}, which ONNX does not define"
        if len(held) > 1 or (expected is not None and held not in ([], [expected])):
            return f"attribute {printable(name)!r} holds {' and '.join(held)}; expected {expected or 'one'}"
    return None
