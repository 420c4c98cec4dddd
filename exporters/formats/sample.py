"""The parts of a file that decide what it is, read when a format asks for them, each bounded."""

import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath

HEAD = 4096
TAIL = 70_000
"""The end record of a zip archive with the longest comment."""
_RECORDS = 20_000
_FIELDS = 10_000
_TEXT_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")
_CENTRAL = b"PK\x01\x02"
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"


@dataclass(frozen=True)
class Sample:
    """A file, as far as it is looked at to say what it is."""

    name: str
    """Name without folders."""
    content: memoryview = field(repr=False, compare=False)

    @cached_property
    def head(self) -> bytes:
        """The first bytes."""
        return bytes(self.content[:HEAD])

    @property
    def suffix(self) -> str:
        """What follows the last dot of the name, in lower case, with the dot."""
        return PurePath(self.name).suffix.lower()

    @cached_property
    def text(self) -> str | None:
        """The first bytes as text, without a byte order mark; None where they are none."""
        head = self.head
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) and len(head) % 2 == 0:
            return _decoded(head, "utf-16")
        if not head or any(byte in _TEXT_CONTROLS for byte in head):
            return None
        for cut in range(4):  # a character may be cut at the end of the head
            if (found := _decoded(head[: len(head) - cut], "utf-8-sig")) is not None:
                return found
        return None

    @cached_property
    def records(self) -> tuple[str, ...]:
        """Names in the directory at the end of a zip archive; nothing is checked."""
        tail_start = max(0, self.content.nbytes - TAIL)
        tail = bytes(self.content[tail_start:])
        at = tail.rfind(_END)
        if at < 0 or at + 22 > len(tail):
            return ()
        size, offset = struct.unpack_from("<LL", tail, at + 12)
        end = tail_start + at
        start = end - size
        if offset == 0xFFFFFFFF or bytes(self.content[start : start + 4]) != _CENTRAL:
            wide = tail.rfind(_END64, 0, at)
            if wide >= 0 and wide + 56 <= len(tail):
                start = tail_start + wide - struct.unpack_from("<Q", tail, wide + 40)[0]
        return tuple(_names(self.content, start, end))

    @cached_property
    def parts(self) -> frozenset[str]:
        """Those names without the folder that all of them lie in."""
        return frozenset(name.split("/", 1)[-1] for name in self.records)

    @cached_property
    def fields(self) -> tuple[tuple[int, int], ...]:
        """Number and wire type of the fields of a protobuf message, as far as it looks like one."""
        found: list[tuple[int, int]] = []
        position, end = 0, self.content.nbytes
        while position < end and len(found) < _FIELDS:
            tag, position = _varint(self.content, position)
            number, wire = tag >> 3, tag & 7
            if position < 0 or number == 0:
                break
            if wire == 0:
                _, position = _varint(self.content, position)
            elif wire == 2:
                length, position = _varint(self.content, position)
                position = position + length if position >= 0 else position
            elif wire in {1, 5}:
                position += 8 if wire == 1 else 4
            else:
                break
            if position < 0:
                break
            found.append((number, wire))
        return tuple(found)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeError:
        return None


def _names(content: memoryview, position: int, end: int) -> list[str]:
    names: list[str] = []
    while position >= 0 and position + 46 <= end and len(names) < _RECORDS:
        if bytes(content[position : position + 4]) != _CENTRAL:
            break
        n_name, n_extra, n_comment = struct.unpack_from("<3H", content, position + 28)
        names.append(bytes(content[position + 46 : position + 46 + n_name]).decode("utf-8", "replace"))
        position += 46 + n_name + n_extra + n_comment
    return names


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """Return an integer and the position behind it, which is negative where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if not 0 <= position < buffer.nbytes:
            return 0, -1
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return 0, -1
