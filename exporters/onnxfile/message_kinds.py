"""What the reader must know of ONNX's schema: where tensors are, and how much memory fields can take."""

from dataclasses import dataclass, field

from emergraph.exporters.onnxfile.dtypes import DATA_FIELDS


@dataclass(frozen=True)
class MessageKind:
    """What of a kind of message matters here; field numbers of onnx.proto."""

    name: str
    children: dict[int, str]
    """Fields that lead to tensors, and the names of their kinds."""
    singular: frozenset[int] = frozenset()
    """Those of them that may stand once."""
    growth: dict[int, int] = field(default_factory=dict)
    """Fields whose parsed form can be many times their encoded size, and how many times."""
    not_text: frozenset[int] = frozenset()
    """Fields of numbers or bytes."""


# Measured with upb: a message takes 100 to 300 bytes however short its encoding, an empty text in a list 16,
# a dimension of a shape (2 bytes at least) 64, an integer (1 byte at least) 8 to 16.
BYTES_PER_MESSAGE, BYTES_PER_FIELD, _NESTED, _INTEGERS = 300, 64, 32, 16

KINDS: dict[str, MessageKind] = {
    kind.name: kind
    for kind in (
        MessageKind(
            "model",
            {7: "graph", 20: "training", 25: "function"},
            singular=frozenset({7}),
            growth={8: _NESTED, 14: _NESTED, 26: _NESTED},
        ),
        MessageKind(
            "graph",
            {1: "node", 5: "tensor", 15: "sparse"},
            growth={11: _NESTED, 12: _NESTED, 13: _NESTED, 14: _NESTED, 16: _NESTED},
        ),
        MessageKind("function", {7: "node", 11: "attribute"}, growth={9: _NESTED, 12: _NESTED, 14: _NESTED}),
        MessageKind("node", {5: "attribute"}, growth={9: _NESTED, 10: _NESTED}),
        MessageKind(
            "attribute",
            {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
            singular=frozenset({5, 6, 22}),
            growth={8: _INTEGERS, 14: _NESTED, 15: _NESTED},
            not_text=frozenset({4, 7, 8, 9}),
        ),
        MessageKind(
            "sparse",
            {1: "tensor", 2: "tensor"},
            singular=frozenset({1, 2}),
            growth={3: _INTEGERS},
            not_text=frozenset({3}),
        ),
    )
}
"""Messages that are looked into; tensors are read by their own code, training graphs are left out."""
TENSOR_GROWTH = {1: _INTEGERS, 5: _INTEGERS, 7: _INTEGERS, 11: _INTEGERS, 13: _NESTED, 16: _NESTED}
"""`growth` of a tensor's fields."""
NOT_TEXT_IN_TENSOR = frozenset({1, 2, 3, 14, *DATA_FIELDS})
"""`not_text` of a tensor's fields."""
