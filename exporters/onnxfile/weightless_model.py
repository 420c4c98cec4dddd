"""A model without its weights: the file's bytes with large tensor values left out, made without reading them.

One pass over the protobuf structure (not the values) finds every tensor: initializers, attributes, sparse
tensors, in subgraphs and local functions alike. Large values are replaced by an `external_data` entry with
the location `MAPPED_LOCATION` and the values' offset and length in the file.
Memory: what is left, plus nothing that grows with the values.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.dtypes import DATA_FIELDS, RAW_DATA, STRING_DATA
from emergraph.exporters.onnxfile.findings import Finding, refusal
from emergraph.exporters.onnxfile.limits import ReadLimits

# What the reader must know of ONNX's schema: where tensors are, and how much memory fields can take.


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


# The protobuf wire format, read in place: fields as positions in a buffer, every length checked.

VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 = range(6)
"""Wire types."""

_MAX_VARINT_BYTES = 10
_MAX_TAG = (1 << 32) - 1


def damaged(what: str, position: int) -> EmergraphError:
    """Return the error for a malformed encoding at a byte position."""
    return refusal(
        "ONNX-WIRE-DAMAGED", f"damaged or cut off: {what} at byte {position}; fetch the file again"
    )


def read_varint(buffer: memoryview, position: int, end: int) -> tuple[int, int]:
    """Read a base-128 integer; return it (modulo 2^64) and the position behind it."""
    value = shift = 0
    for at in range(position, min(end, position + _MAX_VARINT_BYTES)):
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + 1
        shift += 7
    raise damaged("an integer without end", position)


def scan_fields(buffer: memoryview, position: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield the fields of the message in `buffer[position:end]`.

    Yields:
        Field number, wire type, start of the tag, start of the value, end of the value.

    Raises:
        InvalidInputError: A field runs past the end of the message, or a tag is malformed.
    """
    while position < end:
        start = position
        tag = buffer[position]
        position += 1
        if tag >= 0x80:
            tag, position = read_varint(buffer, start, end)
        wire = tag & 7
        if tag < 8 or tag > _MAX_TAG:
            raise damaged("a field without a valid number", start)
        if wire == BYTES:
            if position < end and buffer[position] < 0x80:  # nearly always; a call less
                length, value = buffer[position], position + 1
            else:
                length, value = read_varint(buffer, position, end)
            position = value + length
        elif wire == VARINT:
            value = position
            _, position = read_varint(buffer, position, end)
        elif wire in {FIXED32, FIXED64}:
            value = position
            position += 4 if wire == FIXED32 else 8
        else:
            raise damaged(f"a field of wire type {wire}, which ONNX never has,", start)
        if position > end:
            raise damaged("a field that is longer than what holds it", start)
        yield tag >> 3, wire, start, value, position


def encode_varint(value: int) -> bytes:
    """Return the base-128 encoding of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_bytes_header(number: int, length: int) -> bytes:
    """Return tag and length of a length-delimited field."""
    return encode_varint(number << 3 | BYTES) + encode_varint(length)


def encode_bytes(number: int, content: bytes) -> bytes:
    """Return a whole length-delimited field."""
    return encode_bytes_header(number, len(content)) + content


MAPPED_LOCATION = "*emergraph/values-in-the-model-file*"
"""`location` of tensors whose values were left in the file. No file may use it itself."""

MAX_DEPTH = 100
"""Levels of messages inside the outermost one that protobuf's own readers accept."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_ENTRY = 8192  # twice the longest path


@dataclass(frozen=True)
class MappedValues:
    """Where in the file the values of one tensor are, and in which of the data fields they were."""

    field: int
    start: int
    end: int


@dataclass(frozen=True)
class LightModel:
    """The result of `lighten`."""

    content: bytes
    """A serialized ModelProto without large values."""
    mapped: dict[int, MappedValues]
    """The values left out, by their offset in the file."""
    notes: tuple[Finding, ...]
    beyond_ascii: bool
    """Whether there are bytes beyond ASCII where text may stand."""


class _Frame:
    """A message that is being read, and what of it is rewritten so far."""

    __slots__ = ("end", "fields", "kind", "number", "parts", "run_start", "seen", "size", "start")

    def __init__(
        self, kind: MessageKind, number: int, start: int, bounds: tuple[int, int], source: memoryview
    ) -> None:
        self.kind = kind
        self.number = number
        self.start = start
        self.run_start, self.end = bounds
        self.fields = scan_fields(source, *bounds)
        self.parts: list[bytes | memoryview] | None = None
        self.size = 0
        self.seen: set[int] = set()

    def replace(self, source: memoryview, start: int, end: int, parts: list[bytes | memoryview]) -> None:
        """Put `parts` in the place of `source[start:end]`; everything before it is kept as it is."""
        if self.parts is None:
            self.parts = []
        for part in (source[self.run_start : start], *parts):
            self.parts.append(part)
            self.size += len(part)
        self.run_start = end

    def finish(self, source: memoryview) -> list[bytes | memoryview] | None:
        """Return the rewritten field with its header, or None if the message is unchanged."""
        if self.parts is None:
            return None
        rest = source[self.run_start : self.end]
        return [encode_bytes_header(self.number, self.size + len(rest)), *self.parts, rest]


@dataclass
class _Lightener:
    source: memoryview
    limits: ReadLimits
    mapped: dict[int, MappedValues] = field(default_factory=dict)
    notes: list[Finding] = field(default_factory=list)
    memory: int = 0
    beyond_ascii: bool = False

    def run(self) -> bytes:
        root = _Frame(KINDS["model"], 0, 0, (0, len(self.source)), self.source)
        stack = [root]
        while stack:
            child = self._advance(stack[-1], len(stack))
            if child is not None:
                stack.append(child)
                continue
            done = stack.pop()
            self._charge(BYTES_PER_MESSAGE)
            parts = done.finish(self.source) if stack else None
            if parts is not None:
                stack[-1].replace(self.source, done.start, done.end, parts)
        return b"".join((*(root.parts or ()), self.source[root.run_start :]))

    def _advance(self, frame: _Frame, depth: int) -> _Frame | None:
        """Read on in a message up to the next one that may hold tensors; None at its end."""
        kind, most = frame.kind, self.limits.model_memory
        for number, wire, start, value, end in frame.fields:
            child = kind.children.get(number) if wire == BYTES else None
            if child is None:
                self.memory += BYTES_PER_FIELD + (end - start) * kind.growth.get(number, 1)
                if self.memory > most:
                    self._charge(0)
                if wire == BYTES and number not in kind.not_text and not self.beyond_ascii:
                    self.beyond_ascii = not bytes(self.source[value:end]).isascii()
                continue
            _check_child(frame, number, start, depth)
            if child == "tensor":
                parts = self._lighten_tensor(number, value, end, can_nest=depth < MAX_DEPTH)
                if parts is not None:
                    frame.replace(self.source, start, end, parts)
            elif child == "training":
                self.notes.append(Finding("ONNX-TRAINING-INFO", "training graphs are left out"))
                frame.replace(self.source, start, end, [])
            else:
                return _Frame(KINDS[child], number, start, (value, end), self.source)
        return None

    def _lighten_tensor(
        self, number: int, start: int, end: int, *, can_nest: bool
    ) -> list[bytes | memoryview] | None:
        """Return the tensor's field without its values, or None where it stays as it is."""
        parts = self._scan_tensor(start, end)
        where = f"tensor at byte {start}"
        _check_one_place(parts, where)
        for entry_start, entry_end in parts.external:
            _check_entry(
                bytes(self.source[entry_start : min(entry_end, entry_start + _MAX_ENTRY + 1)]), where
            )
        self._charge(parts.memory)
        large = parts.large_values(self.limits.inline_bytes) if can_nest else None
        if large is None:
            self._charge(parts.value_memory)
            return None
        if parts.external:
            message = "holds its values and names a file; the file is ignored"
            self.notes.append(Finding("ONNX-EXT-UNUSED", message, where))
        self._charge(3 * BYTES_PER_MESSAGE)
        self.mapped[large.start] = large
        kept = [self.source[a:b] for a, b in parts.kept]
        entry = _mapped_entry(large.start, large.end - large.start)
        return [encode_bytes_header(number, sum(map(len, kept)) + len(entry)), *kept, entry]

    def _scan_tensor(self, start: int, end: int) -> "_TensorParts":
        parts = _TensorParts()
        for number, wire, field_start, value, stop in scan_fields(self.source, start, end):
            growth = TENSOR_GROWTH.get(number, 1)
            parts.memory += BYTES_PER_FIELD
            if parts.memory > self.limits.model_memory:
                break  # charged, and refused, by the caller
            if number in DATA_FIELDS:
                parts.values.setdefault(number, []).append((wire, value, stop))
                parts.value_memory += (stop - value) * growth
                continue
            parts.memory += (stop - value) * growth
            if wire == BYTES and number not in NOT_TEXT_IN_TENSOR and not self.beyond_ascii:
                self.beyond_ascii = not bytes(self.source[value:stop]).isascii()
            if number == _EXTERNAL_DATA:
                parts.external.append((field_start, stop))
            elif number == _DATA_LOCATION and wire == VARINT:
                parts.location, _ = read_varint(self.source, value, stop)
            else:
                parts.kept.append((field_start, stop))
        return parts

    def _charge(self, memory: int) -> None:
        self.memory += memory
        if self.memory > self.limits.model_memory:
            raise refusal(
                "ONNX-FILE-MEMORY",
                f"the model without its weights would take more than {self.limits.model_memory >> 20} MiB; "
                "raise ReadLimits.model_memory if it is trusted",
            )


@dataclass
class _TensorParts:
    """The fields of one tensor, as positions in the file."""

    values: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    """Wire type, start and end of the values, by data field."""
    kept: list[tuple[int, int]] = field(default_factory=list)
    external: list[tuple[int, int]] = field(default_factory=list)
    location: int = 0
    memory: int = BYTES_PER_MESSAGE
    value_memory: int = 0

    def large_values(self, inline_bytes: int) -> MappedValues | None:
        """Return the values if they are in one piece and larger than `inline_bytes`."""
        if len(self.values) != 1:
            return None
        ((data_field, chunks),) = self.values.items()
        wire, start, end = chunks[0]
        if len(chunks) > 1 or wire != BYTES or data_field == STRING_DATA or end - start <= inline_bytes:
            return None
        return MappedValues(data_field, start, end)


def _check_child(frame: _Frame, number: int, start: int, depth: int) -> None:
    if number in frame.kind.singular:
        if number in frame.seen:
            message = f"{frame.kind.name} with two fields {number} at byte {start}; readers disagree"
            raise refusal("ONNX-WIRE-DUPLICATE", message)
        frame.seen.add(number)
    if depth > MAX_DEPTH:
        raise refusal("ONNX-WIRE-DEPTH", f"nested deeper than {MAX_DEPTH} levels at byte {start}; flatten it")


def _check_one_place(parts: _TensorParts, where: str) -> None:
    filled = [
        DATA_FIELDS[number]
        for number, chunks in sorted(parts.values.items())
        if number == RAW_DATA or any(end > start for _, start, end in chunks)
    ]
    if filled and parts.location == 1:
        filled.append("a file outside")
    if len(filled) > 1:
        raise refusal("ONNX-TENSOR-TWICE", f"values in {' and in '.join(filled)}; readers disagree", where)
    if len(parts.values.get(RAW_DATA, ())) > 1:
        raise refusal("ONNX-WIRE-DUPLICATE", "raw_data occurs twice; readers disagree", where)


def _check_entry(entry: bytes, where: str) -> None:
    if len(entry) > _MAX_ENTRY:
        raise refusal("ONNX-EXT-LOCATION", f"external data described by more than {_MAX_ENTRY} bytes", where)
    if MAPPED_LOCATION.encode() in entry:
        raise refusal("ONNX-EXT-LOCATION", f"the location {MAPPED_LOCATION!r} is reserved", where)


def _mapped_entry(offset: int, length: int) -> bytes:
    fields = {"location": MAPPED_LOCATION, "offset": str(offset), "length": str(length)}
    entries = b"".join(
        encode_bytes(_EXTERNAL_DATA, encode_bytes(1, key.encode()) + encode_bytes(2, value.encode()))
        for key, value in fields.items()
    )
    return encode_varint(_DATA_LOCATION << 3 | VARINT) + b"\x01" + entries


def lighten(source: memoryview, limits: ReadLimits) -> LightModel:
    """Return the model in `source` without its large values.

    Args:
        source: The whole file, a serialized ModelProto; read in place.
        limits: `inline_bytes` is the threshold, `model_memory` the cap on what is left.

    Raises:
        InvalidInputError: The encoding is damaged or ambiguous.
        UnsafeInputError: Messages are nested too deep.
        LimitError: What is left would take too much memory.
    """
    worker = _Lightener(source, limits)
    content = worker.run()
    return LightModel(content, worker.mapped, tuple(worker.notes), worker.beyond_ascii)
