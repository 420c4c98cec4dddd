"""What an operation of an ONNX model says about itself."""

from collections.abc import Container, Iterable, Iterator

import onnx

from emergraph.exporters.operations import Kind, kind_of, normal_domain, spec_of


def operation_type(node: onnx.NodeProto) -> str:
    """The type of an operation, with its domain if that is not the standard one: `com.microsoft::QGemm`."""
    domain = normal_domain(node.domain)
    return f"{domain}::{node.op_type}" if domain else str(node.op_type)


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Whether a node holds graphs of its own (If, Loop, Scan, SequenceMap)."""
    return bool(node.attribute) and any(True for _ in subgraphs(node))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes, also in those that say they are something else."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def depends_on(
    nodes: Iterable[onnx.NodeProto], sources: Iterable[str], *, shapes: bool = True
) -> frozenset[str]:
    """Tensors that depend on some others, those included.

    Args:
        nodes: In data order.
        sources: Names of the others.
        shapes: Whether a shape or size depends on what it is of.
    """
    found = set(sources)
    for node in nodes:
        if not found.isdisjoint(node.input) and (shapes or kind_of(node) is not Kind.SHAPE):
            found.update(node.output)
    return frozenset(found - {""})


def made_of_constants(
    nodes: Iterable[onnx.NodeProto], constants: Container[str]
) -> dict[str, onnx.NodeProto]:
    """By name, the tensors that follow from constants alone, and the operations that make them.

    Args:
        nodes: In data order.
        constants: Names of those that are given.
    """
    found: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        given = [name for name in node.input if name]
        steady = given and not spec_of(node).is_random and not has_subgraph(node)
        if steady and all(name in constants or name in found for name in given):
            found.update(dict.fromkeys((name for name in node.output if name), node))
    return found


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """The attributes of a node as Python values (strings decoded, tensors and graphs as protos)."""
    found: dict[str, object] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def input_name(node: onnx.NodeProto, position: int) -> str:
    """Name of an input, empty where it is left out."""
    return node.input[position] if position < len(node.input) else ""


def is_unpadded(node: onnx.NodeProto) -> bool:
    """Whether a sliding operation sees nothing but its input: no padding at the borders."""
    found = attributes(node)
    pads = found.get("pads")
    padded = isinstance(pads, list) and any(pads)
    return not padded and found.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
