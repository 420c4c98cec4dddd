"""The protobuf wire format, read in place: fields as positions in a buffer, every length checked.

A message is a sequence of fields; a field is a tag (`number << 3 | wire type`) and a value
(https://protobuf.dev/programming-guides/encoding/). Nothing is copied and nothing recurses.
"""

from collections.abc import Iterator

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.findings import refusal

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
