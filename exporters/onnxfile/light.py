"""A model without its weights: the file's bytes with large tensor values left out, made without reading them.

One pass over the protobuf structure (not the values) finds every tensor: initializers, attributes, sparse
tensors, in subgraphs and local functions alike. Large values are replaced by an `external_data` entry with
the location `MAPPED_LOCATION` and the values' offset and length in the file.
Memory: what is left, plus nothing that grows with the values.
"""

from dataclasses import dataclass, field

from emergraph.exporters.onnxfile.dtypes import DATA_FIELDS, RAW_DATA, STRING_DATA
from emergraph.exporters.onnxfile.findings import Finding, refusal
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.wire import (
    BYTES,
    VARINT,
    encode_bytes,
    encode_bytes_header,
    encode_varint,
    read_varint,
    scan_fields,
)

MAPPED_LOCATION = "*emergraph/values-in-the-model-file*"
"""`location` of tensors whose values were left in the file. No file may use it itself."""

MAX_DEPTH = 100
"""Levels of messages inside the outermost one that protobuf's own readers accept."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_EXTERNAL_ENTRY = 8192  # twice the longest path


@dataclass(frozen=True)
class MessageKind:
    """What of a kind of message matters here; field numbers of onnx.proto."""

    name: str
    children: dict[int, str]
    """Fields that lead to tensors, and the names of their kinds."""
    singular: frozenset[int] = frozenset()
    """Those of them that may stand once."""
    structured: frozenset[int] = frozenset()
    """Fields whose parsed form can be many times their encoded size."""
    not_text: frozenset[int] = frozenset()
    """Fields of numbers or bytes."""


KINDS: dict[str, MessageKind] = {
    kind.name: kind
    for kind in (
        MessageKind(
            "model", {7: "graph", 20: "training", 25: "function"}, frozenset({7}), frozenset({8, 14, 26})
        ),
        MessageKind(
            "graph", {1: "node", 5: "tensor", 15: "sparse"}, structured=frozenset({11, 12, 13, 14, 16})
        ),
        MessageKind("function", {7: "node", 11: "attribute"}, structured=frozenset({9, 12, 14})),
        MessageKind("node", {5: "attribute"}, structured=frozenset({9, 10})),
        MessageKind(
            "attribute",
            {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
            frozenset({5, 6, 22}),
            frozenset({8, 14, 15}),
            frozenset({4, 7, 8, 9}),
        ),
        MessageKind("sparse", {1: "tensor", 2: "tensor"}, frozenset({1, 2}), frozenset({3}), frozenset({3})),
    )
}
"""Messages that are looked into; tensors are read by their own code, training graphs are left out."""
_NOT_TEXT_IN_TENSOR = frozenset({1, 2, 3, 14, *DATA_FIELDS})
# Measured with upb: a message takes some 100 to 300 bytes however short its encoding, a string 24.
_BYTES_PER_MESSAGE, _BYTES_PER_FIELD, _BYTES_PER_STRUCTURED_BYTE = 300, 32, 24


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
            self._charge(_BYTES_PER_MESSAGE)
            parts = done.finish(self.source) if stack else None
            if parts is not None:
                stack[-1].replace(self.source, done.start, done.end, parts)
        return b"".join((*(root.parts or ()), self.source[root.run_start :]))

    def _advance(self, frame: _Frame, depth: int) -> _Frame | None:
        """Read on in a message up to the next one that may hold tensors; None at its end."""
        kind = frame.kind
        for number, wire, start, value, end in frame.fields:
            child = kind.children.get(number) if wire == BYTES else None
            if child is None:
                cost = _BYTES_PER_STRUCTURED_BYTE if number in kind.structured else 1
                self.memory += _BYTES_PER_FIELD + (end - start) * cost
                if wire == BYTES and number not in kind.not_text:
                    self._look_at_text(value, end)
                continue
            if number in kind.singular:
                if number in frame.seen:
                    raise refusal(
                        "ONNX-WIRE-DUPLICATE", f"{kind.name} with two fields {number} at byte {start}"
                    )
                frame.seen.add(number)
            if depth > MAX_DEPTH:
                raise refusal(
                    "ONNX-WIRE-DEPTH", f"nested deeper than {MAX_DEPTH} levels at byte {start}; flatten it"
                )
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

    def _look_at_text(self, start: int, end: int) -> None:
        if not self.beyond_ascii:
            self.beyond_ascii = not bytes(self.source[start:end]).isascii()

    def _lighten_tensor(
        self, number: int, position: int, end: int, *, can_nest: bool
    ) -> list[bytes | memoryview] | None:
        """Return the tensor's field without its values, or None where it stays as it is."""
        values: dict[int, list[tuple[int, int, int]]] = {}
        kept: list[tuple[int, int]] = []
        external: list[tuple[int, int]] = []
        location = 0
        memory = _BYTES_PER_MESSAGE
        for part, wire, start, value, stop in scan_fields(self.source, position, end):
            memory += _BYTES_PER_FIELD + (stop - value) * (8 if part in {1, 5, 7, 11, 16} else 1)
            if wire == BYTES and part not in _NOT_TEXT_IN_TENSOR:
                self._look_at_text(value, stop)
            if part in DATA_FIELDS:
                values.setdefault(part, []).append((wire, value, stop))
            elif part == _EXTERNAL_DATA:
                external.append((start, stop))
            elif part == _DATA_LOCATION and wire == VARINT:
                location, _ = read_varint(self.source, value, stop)
            else:
                kept.append((start, stop))
            if memory > self.limits.model_memory:
                self._charge(memory)
        where = f"tensor at byte {position}"
        self._check_one_place(values, location, where)
        self._check_marker(external, where)
        if len(values) != 1 or not can_nest:
            self._charge(memory)
            return None
        ((data_field, chunks),) = values.items()
        wire, start, stop = chunks[0]
        stored = stop - start
        if (
            len(chunks) > 1
            or wire != BYTES
            or data_field == STRING_DATA
            or stored <= self.limits.inline_bytes
        ):
            self._charge(memory)
            return None
        if external:
            self.notes.append(
                Finding("ONNX-EXT-UNUSED", "holds its values and names a file; the file is ignored", where)
            )
        self._charge(_BYTES_PER_MESSAGE * 3)
        self.mapped[start] = MappedValues(data_field, start, stop)
        parts = [self.source[a:b] for a, b in kept]
        entry = _mapped_entry(start, stored)
        size = sum(len(part) for part in parts) + len(entry)
        return [encode_bytes_header(number, size), *parts, entry]

    def _check_one_place(
        self, values: dict[int, list[tuple[int, int, int]]], location: int, where: str
    ) -> None:
        names = [DATA_FIELDS[number] for number in sorted(values)]
        if location == 1 and names:
            names.append("a file outside")
        filled = [
            number
            for number, chunks in values.items()
            if number == RAW_DATA or any(stop > start for _, start, stop in chunks)
        ]
        if len(filled) > 1 or (filled and location == 1):
            raise refusal("ONNX-TENSOR-TWICE", f"values in {' and in '.join(names)}; readers disagree", where)
        if len(values.get(RAW_DATA, ())) > 1:
            raise refusal("ONNX-WIRE-DUPLICATE", "raw_data stands twice; readers disagree", where)

    def _check_marker(self, external: list[tuple[int, int]], where: str) -> None:
        marker = MAPPED_LOCATION.encode()
        for start, stop in external:
            if stop - start > _MAX_EXTERNAL_ENTRY:
                raise refusal("ONNX-EXT-LOCATION", f"external data described by {stop - start} bytes", where)
            if marker in bytes(self.source[start:stop]):
                raise refusal("ONNX-EXT-LOCATION", f"the location {MAPPED_LOCATION!r} is reserved", where)

    def _charge(self, memory: int) -> None:
        self.memory += memory
        if self.memory > self.limits.model_memory:
            raise refusal(
                "ONNX-FILE-MEMORY",
                f"the model without its weights would take more than {self.limits.model_memory >> 20} MiB; "
                "raise ReadLimits.model_memory if it is trusted",
            )


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
