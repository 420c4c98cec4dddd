"""Operations of the standard's versions 1 to 6, written as those of version 7.

onnxruntime has kernels from version 7 on, and so has the reference implementation. What changed by then is
how operations are written, not what they compute: a second operand was aligned by `broadcast` and `axis`,
shapes were attributes, and training was an attribute. Every operation is rewritten by itself; what a
parameter tensor is stays as it is in the file.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes, subgraphs
from emergraph.exporters.runtime.inference import inferred_types

FIRST_VERSION = 7
"""The first version of the standard's operations that runs as it is."""

Types = MutableMapping[str, onnx.TypeProto]
Nodes = list[onnx.NodeProto]


@dataclass
class _Rewriting:
    """What the rewriting of one model shares."""

    version: int
    opsets: Mapping[str, int]
    """Those of the model that comes out."""
    types: Types
    """What is known of tensors, by name; grows with the operations."""
    value: Callable[[str], NDArray[np.generic] | None]
    """The values of a small constant; None for what is none."""
    constant: Callable[[NDArray[np.generic], str], str]
    """Adds a constant; returns its name."""
    claim: Callable[[str], str]
    """Gives a new tensor a name."""
    nodes: Nodes = field(default_factory=list)

    def rank(self, name: str) -> int | None:
        """The number of axes of a tensor, where it is known."""
        known = self.types.get(name)
        if known is None or not known.tensor_type.HasField("shape"):
            return None
        return len(known.tensor_type.shape.dim)

    def add(self, node: onnx.NodeProto) -> None:
        """Append an operation and note what it makes."""
        self.nodes.append(node)
        self.types.update(inferred_types(node, self.opsets, self.types))

    def made(self, op: str, inputs: Sequence[str], near: onnx.NodeProto, **settings: int | list[int]) -> str:
        """Append a new operation beside another; returns the name of its output."""
        output = self.claim(f"{near.output[0]}/{op}")
        node = onnx.helper.make_node(op, inputs, [output], name=f"{near.name}/{output}")
        _give(node, **settings)
        self.add(node)
        return output


def modernised(
    nodes: Sequence[onnx.NodeProto],
    version: int,
    opsets: Mapping[str, int],
    types: Mapping[str, onnx.TypeProto],
    *,
    value: Callable[[str], NDArray[np.generic] | None],
    constant: Callable[[NDArray[np.generic], str], str],
    claim: Callable[[str], str],
) -> Nodes:
    """Write the operations of an old version as those of version 7, subgraphs included.

    Args:
        nodes: Flat, in data order. They are not changed.
        version: The model's version of the standard's operations.
        opsets: Versions per domain of the model that comes out.
        types: Types of inputs, initializers and declared tensors.
        value: Gives the values of a small constant; None for what is none.
        constant: Adds a constant with a name like the one given; returns its name.
        claim: Returns a name like the one given that is still free.
    """
    return _rewritten(nodes, _Rewriting(version, opsets, dict(types), value, constant, claim))


def _rewritten(nodes: Sequence[onnx.NodeProto], about: _Rewriting) -> Nodes:
    outer, about.nodes = about.nodes, []
    for original in nodes:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for graph in subgraphs(node):
            about.types.update({value.name: value.type for value in graph.input if value.HasField("type")})
            inner = _rewritten(list(graph.node), about)
            del graph.node[:]
            graph.node.extend(inner)
        if node.domain == "":
            _drop(node, "consumed_inputs", *_GONE.get(node.op_type, ()))
            rule = _RULES.get(node.op_type)
            if rule is not None:
                rule(node, about)
        about.add(node)
    found, about.nodes = about.nodes, outer
    return found


def _drop(node: onnx.NodeProto, *names: str) -> None:
    kept = [a for a in node.attribute if a.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def _give(node: onnx.NodeProto, **settings: object) -> None:
    _drop(node, *settings)
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in settings.items())


def _aligned(node: onnx.NodeProto, about: _Rewriting) -> None:
    """The second operand begins at `axis` of the first: it gets axes of size 1 behind its own."""
    axis = attributes(node).get("axis")
    _drop(node, "broadcast", "axis")
    if isinstance(axis, int):
        node.input[1] = _extended(node, axis, about)


def _extended(node: onnx.NodeProto, axis: int, about: _Rewriting) -> str:
    first, second = str(node.input[0]), str(node.input[1])
    whole, own = about.rank(first), about.rank(second)
    if whole is not None and own is not None:
        start = axis + whole if axis < 0 else axis
        behind = whole - start - own
        if behind <= 0:
            return second
        return about.made("Unsqueeze", [second], node, axes=list(range(own, own + behind)))
    # how many axes follow is known when the model runs
    whole_rank, own_rank = (
        about.made("Shape", [about.made("Shape", [name], node)], node) for name in (first, second)
    )
    begin = about.constant(np.asarray([axis]), f"{node.output[0]}/axis")
    if axis < 0:
        begin = about.made("Add", [whole_rank, begin], node)
    behind_second = about.made("Sub", [about.made("Sub", [whole_rank, begin], node), own_rank], node)
    one = about.constant(np.asarray([1]), f"{node.output[0]}/one")
    sizes = [about.made("Shape", [second], node), about.made("Tile", [one, behind_second], node)]
    return about.made("Reshape", [second, about.made("Concat", sizes, node, axis=0)], node)


def _slope(node: onnx.NodeProto, about: _Rewriting) -> None:
    """One slope per channel (axis 1), or one for all."""
    known = about.types.get(node.input[1])
    sizes = [] if known is None else [d.dim_value for d in known.tensor_type.shape.dim]
    if about.rank(node.input[1]) == 1 and sizes != [1]:
        node.input[1] = _extended(node, 1, about)


def _normalisation(node: onnx.NodeProto, _: _Rewriting) -> None:
    """`is_test` said which statistics count; since then the number of outputs does."""
    if attributes(node).get("is_test") == 1:
        del node.output[1:]
    _drop(node, "is_test")


def _concat(node: onnx.NodeProto, about: _Rewriting) -> None:
    if about.version < 4 and "axis" not in attributes(node):
        _give(node, axis=1)


def _reshape(node: onnx.NodeProto, about: _Rewriting) -> None:
    shape = attributes(node).get("shape")
    if about.version < 5 and isinstance(shape, list):
        _drop(node, "shape")
        node.input.append(about.constant(np.asarray(shape, np.int64), f"{node.output[0]}/shape"))


def _pad(node: onnx.NodeProto, about: _Rewriting) -> None:
    pads = attributes(node).get("paddings")
    if about.version < 2 and isinstance(pads, list):
        _drop(node, "paddings")
        _give(node, pads=pads)


def _split(node: onnx.NodeProto, about: _Rewriting) -> None:
    """The sizes were an input before they were an attribute."""
    if about.version < 2 and len(node.input) > 1:
        sizes = about.value(node.input[1])
        if sizes is not None:
            del node.input[1:]
            _give(node, split=[int(size) for size in sizes.reshape(-1)])


def _cast(node: onnx.NodeProto, _: _Rewriting) -> None:
    """The type was a name."""
    to = attributes(node).get("to")
    if isinstance(to, bytes | str):
        name = to.decode("utf-8", "replace") if isinstance(to, bytes) else to
        number = dict(onnx.TensorProto.DataType.items()).get(name.upper())
        if number is not None:
            _give(node, to=int(number))


def _tile(node: onnx.NodeProto, about: _Rewriting) -> None:
    """One axis and its number of copies, before it was one number per axis."""
    rank = about.rank(node.input[0])
    if about.version < 6 and len(node.input) == 3 and rank is not None:
        tiles, axis = (about.value(name) for name in node.input[1:])
        if tiles is not None and axis is not None:
            repeats = np.ones(rank, np.int64)
            repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
            del node.input[1:]
            node.input.append(about.constant(repeats, f"{node.output[0]}/repeats"))


def _upsample(node: onnx.NodeProto, _: _Rewriting) -> None:
    given = attributes(node)
    height, width = given.get("height_scale"), given.get("width_scale")
    if isinstance(height, float) and isinstance(width, float):
        _drop(node, "height_scale", "width_scale")
        _give(node, scales=[1.0, 1.0, height, width])


def _lp_pool(node: onnx.NodeProto, _: _Rewriting) -> None:
    power = attributes(node).get("p")
    if isinstance(power, float):
        _drop(node, "p")
        _give(node, p=int(power))


def _selu(node: onnx.NodeProto, about: _Rewriting) -> None:
    if about.version < 6:
        given = attributes(node)
        _give(node, alpha=given.get("alpha", 1.6732), gamma=given.get("gamma", 1.0507))


_GONE: Mapping[str, tuple[str, ...]] = {
    "Gemm": ("broadcast",),
    "Dropout": ("is_test",),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), ("output_sequence",)),
}
"""Attributes that later versions do not have: what they asked for is done always, or said otherwise."""

_RULES: Mapping[str, Callable[[onnx.NodeProto, _Rewriting], None]] = {
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Less", "Greater", "Equal"), _aligned
    ),
    **dict.fromkeys(("LpPool", "GlobalLpPool"), _lp_pool),
    "PRelu": _slope,
    "BatchNormalization": _normalisation,
    "Concat": _concat,
    "Reshape": _reshape,
    "Pad": _pad,
    "Split": _split,
    "Cast": _cast,
    "Tile": _tile,
    "Upsample": _upsample,
    "Selu": _selu,
}
