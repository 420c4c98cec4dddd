"""Findings about names: what could hurt a terminal, a page, a query or a table that shows them unescaped."""

from collections.abc import Iterator, Sequence

from onnx import GraphProto, ModelProto

from emergraph.exporters.onnxfile.findings import Finding
from emergraph.exporters.onnxfile.names import has_hidden_characters, printable
from emergraph.exporters.onnxfile.traverse import Body
from emergraph.safetext import reveal_lookalikes

_MAX_USUAL = 1000
_MARKUP = frozenset("<>\"'`;|\\")
_FORMULA = ("=", "+", "-", "@")


def name_findings(model: ModelProto, bodies: Sequence[Body]) -> Iterator[Finding]:
    """Yield hostile or confusing names, each name once."""
    names = dict.fromkeys(all_names(model, bodies))
    for name in names:
        where = f"name {printable(name)!r}"
        if has_hidden_characters(name):
            yield Finding("ONNX-NAME-CONTROL", "control or format characters", where)
        if len(name) > _MAX_USUAL:
            yield Finding("ONNX-NAME-LONG", f"{len(name)} characters", where)
        if name.startswith(_FORMULA) or ".." in name.split("/") or not _MARKUP.isdisjoint(name):
            yield Finding("ONNX-NAME-MARKUP", "characters that mean something elsewhere", where)
    if not all(map(str.isascii, names)):
        for name, shown in reveal_lookalikes(names).items():
            yield Finding(
                "ONNX-NAME-ALIKE",
                f"looks like another name; it is {printable(shown)}",
                f"name {printable(name)!r}",
            )


def all_names(model: ModelProto, bodies: Sequence[Body]) -> Iterator[str]:
    """Yield every name in a model, with repetitions."""
    yield model.producer_name
    yield model.domain
    for entry in model.metadata_props:
        yield entry.key
    for body in bodies:
        yield body.proto.name
        if isinstance(body.proto, GraphProto):
            for value in (*body.proto.input, *body.proto.output):
                yield value.name
            yield from (tensor.name for tensor in body.proto.initializer)
            yield from (sparse.values.name for sparse in body.proto.sparse_initializer)
        else:
            yield from (body.proto.domain, *body.proto.input, *body.proto.output)
        for node in body.proto.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
