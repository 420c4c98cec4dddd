"""The fixed-size structures of a zip archive, parsed from bytes (PKWARE APPNOTE 4.3, 4.5)."""

import struct
from dataclasses import dataclass

from emergraph.exporters.weightfiles.refuse import refusal

STORED = 0
DEFLATED = 8
STREAMED = 0x0008
"""Flag: sizes and checksum follow the data in a descriptor."""
UTF8 = 0x0800
"""Flag: the name is UTF-8."""
KNOWN_FLAGS = STREAMED | UTF8 | 0x0006
"""The above and the two bits in which deflate notes its effort."""

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_U32 = 0xFFFFFFFF
_U16 = 0xFFFF


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies and how many records it lists."""

    start: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a central or local header says about a record."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    offset: int
    """Of the local header; 0 in local headers."""
    end: int
    """First byte after the header in the file."""


def read_directory(data: memoryview, where: str) -> Directory:
    """Find the central directory by the end record, which must be the last bytes of the file.

    Raises:
        InvalidInputError: no end record (ZIP-DAMAGED), or a split archive (ZIP-FEATURE).
        UnsafeInputError: bytes after the archive, or two end records that disagree (ZIP-INCONSISTENT).
    """
    position = data.nbytes - _END.size
    if position < 0 or bytes(data[position : position + 4]) != b"PK\x05\x06":
        tail = bytes(data[-70_000:])
        if 0 <= tail.rfind(b"PK\x05\x06") < len(tail) - _END.size:
            raise refusal("ZIP-INCONSISTENT", "bytes or a comment follow the end of the zip archive", where)
        raise refusal(
            "ZIP-DAMAGED", "the zip archive has no end record: it is cut short; fetch it again", where
        )
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, position)
    if disk or first_disk or here != count or comment:
        raise refusal("ZIP-FEATURE", "expected one whole zip archive without a comment", where)
    end = position
    locator = position - _END64_LOCATOR.size
    if locator >= 0 and bytes(data[locator : locator + 4]) == b"PK\x06\x07":
        end, wide = _read_end64(data, locator, where)
        narrow = (count, size, start)
        limits = (_U16, _U32, _U32)
        if any(a not in {b, cap} for a, b, cap in zip(narrow, wide, limits, strict=True)):
            raise refusal("ZIP-INCONSISTENT", "the two end records of the zip archive disagree", where)
        count, size, start = wide
    if start + size != end:
        found = f"it ends at byte {start + size}, the end record starts at {end}"
        raise refusal("ZIP-INCONSISTENT", f"the zip directory is not where it is declared: {found}", where)
    return Directory(start, size, count)


def _read_end64(data: memoryview, locator: int, where: str) -> tuple[int, tuple[int, int, int]]:
    _, disk, start64, disks = _END64_LOCATOR.unpack_from(data, locator)
    if (
        disk
        or disks > 1
        or start64 + _END64.size > locator
        or bytes(data[start64 : start64 + 4]) != b"PK\x06\x06"
    ):
        raise refusal("ZIP-INCONSISTENT", "the zip64 end record is not where it is declared", where)
    _, length, _, _, number, first, here, count, size, start = _END64.unpack_from(data, start64)
    if start64 + 12 + length != locator or number or first or here != count:
        raise refusal("ZIP-INCONSISTENT", "the zip64 end record contradicts the archive", where)
    return start64, (count, size, start)


def read_central(data: memoryview, position: int, where: str) -> Header:
    """Parse the central header at a position."""
    if position + _CENTRAL.size > data.nbytes or bytes(data[position : position + 4]) != b"PK\x01\x02":
        raise refusal("ZIP-DAMAGED", f"no directory entry at byte {position} of the zip archive", where)
    fields = _CENTRAL.unpack_from(data, position)
    flags, method, crc, compressed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
    n_name, n_extra, n_comment, disk, offset = fields[10], fields[11], fields[12], fields[13], fields[16]
    start = position + _CENTRAL.size
    end = start + n_name + n_extra + n_comment
    if end > data.nbytes or disk or n_comment:
        raise refusal("ZIP-FEATURE", "a directory entry of the zip archive is split or has a comment", where)
    extra = bytes(data[start + n_name : start + n_name + n_extra])
    wide = _widen(extra, {"size": size, "compressed": compressed, "offset": offset}, where)
    name = bytes(data[start : start + n_name])
    return Header(name, flags, method, crc, wide["compressed"], wide["size"], wide["offset"], end)


def read_local(data: memoryview, position: int, where: str) -> Header:
    """Parse the local header at a position; its end is the first byte of the record's data."""
    if position + _LOCAL.size > data.nbytes or bytes(data[position : position + 4]) != b"PK\x03\x04":
        raise refusal("ZIP-INCONSISTENT", f"no record at byte {position} of the zip archive", where)
    fields = _LOCAL.unpack_from(data, position)
    flags, method, crc, compressed, size, n_name, n_extra = fields[2], fields[3], *fields[6:11]
    start = position + _LOCAL.size
    end = start + n_name + n_extra
    if end > data.nbytes:
        raise refusal("ZIP-DAMAGED", "a record's header runs past the end of the zip archive", where)
    extra = bytes(data[start + n_name : end])
    wide = _widen(extra, {"size": size, "compressed": compressed}, where)
    name = bytes(data[start : start + n_name])
    return Header(name, flags, method, crc, wide["compressed"], wide["size"], 0, end)


def descriptor_matches(gap: bytes, header: Header) -> bool:
    """Tell whether the bytes after a streamed record are a descriptor that agrees with the directory."""
    body = gap[4:] if gap[:4] == b"PK\x07\x08" and len(gap) in {16, 24} else gap
    layout = {12: "<LLL", 20: "<LQQ"}.get(len(body))
    return layout is not None and struct.unpack(layout, body) == (header.crc, header.compressed, header.size)


def _widen(extra: bytes, fields: dict[str, int], where: str) -> dict[str, int]:
    """Replace the 32-bit fields that overflow by those of the zip64 extra field."""
    position = 0
    fields = dict(fields)
    seen: set[int] = set()
    while position < len(extra):
        if position + 4 > len(extra):
            raise refusal("ZIP-INCONSISTENT", "an extra field of the zip archive is cut short", where)
        kind, length = struct.unpack_from("<HH", extra, position)
        body = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if position > len(extra) or kind in seen or kind == 0x7075:
            raise refusal(
                "ZIP-INCONSISTENT", "an extra field of the zip archive is cut short or ambiguous", where
            )
        seen.add(kind)
        if kind == 0x0001:
            for name in [key for key, value in fields.items() if value == _U32]:
                if len(body) < 8:
                    raise refusal("ZIP-INCONSISTENT", "a zip64 field is cut short", where)
                fields[name] = int.from_bytes(body[:8], "little")
                body = body[8:]
    return fields
