"""A zip archive that can be read in one way only, or is refused.

Readers of zip archives disagree about duplicates, about local against central headers, and about bytes that
belong to no record; files have been built to look harmless to one reader and not to another (CVE-2025-1944,
CVE-2025-1945, CVE-2025-10155 to 10157). Here both headers of every record must agree, and the records with
their descriptors must fill the archive from its first byte to the directory. Nothing is ever extracted.
"""

import struct
import zlib
from dataclasses import dataclass

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.registry import refusal

# The fixed-size structures of a zip archive, parsed from bytes (PKWARE APPNOTE 4.3, 4.5).

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


_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class ZipRecord:
    """A record of the archive, both of whose headers agree."""

    name: str
    compressed: bool
    crc: int
    data: memoryview
    """As it stands in the file."""
    size: int
    """Bytes once unpacked."""


@dataclass(frozen=True, eq=False)
class StrictZip:
    """All records of an archive by name, in the order of its directory."""

    records: dict[str, ZipRecord]
    where: str

    def stored(self, name: str) -> memoryview:
        """Return the bytes of a record that must not be compressed, after checking their checksum.

        Raises:
            InvalidInputError: there is no such record, or its checksum is wrong (ZIP-DAMAGED).
            UnsafeInputError: it is compressed (ZIP-COMPRESSED).
        """
        record = self._record(name)
        if record.compressed:
            message = f"record {printable(name)} is compressed; torch never does that, so it is refused"
            raise refusal("ZIP-COMPRESSED", message, self.where)
        self._check(record, zlib.crc32(record.data))
        return record.data

    def unpack(self, name: str, limit: int) -> bytes:
        """Return the bytes of a record, unpacked; never more than `limit` are made.

        Raises:
            InvalidInputError: damaged data (ZIP-DAMAGED).
            LimitError: the record declares more bytes than the limit (WEIGHTS-LIMIT).
        """
        record = self._record(name)
        if record.size > limit:
            message = f"record {printable(name)} has {record.size} bytes, the limit is {limit}"
            raise refusal("WEIGHTS-LIMIT", message, self.where)
        data = _inflate(record.data, record.size) if record.compressed else bytes(record.data)
        if data is None or len(data) != record.size:
            raise refusal(
                "ZIP-DAMAGED", f"record {printable(name)} does not unpack to its declared size", self.where
            )
        self._check(record, zlib.crc32(data))
        return data

    def verify(self, name: str) -> None:
        """Check a record's size and checksum in a stream, never holding more than a small part of it.

        Raises:
            InvalidInputError: damaged data (ZIP-DAMAGED).
        """
        record = self._record(name)
        if not record.compressed:
            self._check(record, zlib.crc32(record.data))
            return
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        crc, size, rest = 0, 0, record.data[:0].tobytes()
        position = 0
        try:
            while not unpacker.eof and size <= record.size:
                if not rest:
                    rest = bytes(record.data[position : position + _CHUNK])
                    position += len(rest)
                    if not rest:
                        break
                part = unpacker.decompress(rest, _CHUNK)
                rest = unpacker.unconsumed_tail
                crc, size = zlib.crc32(part, crc), size + len(part)
        except zlib.error:
            size = -1
        if size != record.size or not unpacker.eof or unpacker.unused_data or position < len(record.data):
            raise refusal(
                "ZIP-DAMAGED", f"record {printable(name)} does not unpack to its declared size", self.where
            )
        self._check(record, crc)

    def peek(self, name: str, limit: int) -> bytes:
        """Return the first bytes of a record, unpacked, at most `limit`; the checksum is not checked."""
        record = self._record(name)
        if not record.compressed:
            return bytes(record.data[:limit])
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(record.data, limit)
        except zlib.error:
            raise refusal("ZIP-DAMAGED", f"record {printable(name)} does not unpack", self.where) from None

    def _record(self, name: str) -> ZipRecord:
        if name not in self.records:
            raise refusal("ZIP-DAMAGED", f"the archive lacks the record {printable(name)}", self.where)
        return self.records[name]

    def _check(self, record: ZipRecord, crc: int) -> None:
        if crc != record.crc:
            message = f"record {printable(record.name)} has checksum {crc:08x}, declared is {record.crc:08x}"
            raise refusal("ZIP-DAMAGED", f"{message}; fetch the file again", self.where)


def open_zip(data: memoryview, where: str, limits: WeightLimits) -> StrictZip:
    """Read the directory of a zip archive and check it against the records.

    Args:
        data: The whole archive.
        where: How to name it in messages.
        limits: Caps on the number of records.

    Raises:
        InvalidInputError: damaged, or with features that weight files never use (ZIP-DAMAGED, ZIP-FEATURE).
        UnsafeInputError: contradictory, duplicate or misleading records (ZIP-INCONSISTENT, ZIP-DUPLICATE,
            ZIP-NAME).
        LimitError: too many records (WEIGHTS-LIMIT).
    """
    directory = read_directory(data, where)
    if directory.count > limits.zip_records:
        message = f"the archive lists {directory.count} records, the limit is {limits.zip_records}"
        raise refusal("WEIGHTS-LIMIT", message, where)
    headers: list[Header] = []
    position = directory.start
    for _ in range(directory.count):
        header = read_central(data, position, where)
        position = header.end
        headers.append(header)
    if position != directory.start + directory.size:
        raise refusal("ZIP-INCONSISTENT", "the zip directory is longer or shorter than its entries", where)
    placed = _place(data, directory.start, headers, where)
    records: dict[str, ZipRecord] = {}
    for header, body in zip(headers, placed, strict=True):
        name = _name(header, where)
        if name in records:
            raise refusal("ZIP-DUPLICATE", f"two records are named {printable(name)}", where)
        records[name] = ZipRecord(name, header.method == DEFLATED, header.crc, body, header.size)
    return StrictZip(records, where)


def _place(data: memoryview, end: int, headers: list[Header], where: str) -> list[memoryview]:
    """Return the data of every record; the records must fill the bytes up to `end` without gaps."""
    bodies: dict[int, memoryview] = {}
    order = sorted(range(len(headers)), key=lambda index: headers[index].offset)
    starts = [headers[index].offset for index in order] + [end]
    position = 0
    for index, following in zip(order, starts[1:], strict=True):
        header = headers[index]
        if header.offset != position:
            raise refusal(
                "ZIP-INCONSISTENT", f"bytes {position} to {header.offset} belong to no record", where
            )
        local = read_local(data, header.offset, where)
        _compare(header, local, where)
        finish = local.end + header.compressed
        if finish > following:
            raise refusal(
                "ZIP-INCONSISTENT", f"record {printable(header.name)} overlaps what follows it", where
            )
        gap = bytes(data[finish : min(following, finish + 25)])
        if header.flags & STREAMED and not descriptor_matches(gap, header):
            raise refusal(
                "ZIP-INCONSISTENT", f"record {printable(header.name)} ends in a wrong descriptor", where
            )
        if not header.flags & STREAMED and gap:
            raise refusal(
                "ZIP-INCONSISTENT", f"bytes after record {printable(header.name)} belong to none", where
            )
        bodies[index] = data[local.end : finish]
        position = following
    if position != end:
        raise refusal("ZIP-INCONSISTENT", "bytes before the zip directory belong to no record", where)
    return [bodies[index] for index in range(len(headers))]


def _compare(central: Header, local: Header, where: str) -> None:
    name = printable(central.name)
    if central.flags & ~KNOWN_FLAGS or central.method not in {STORED, DEFLATED}:
        raise refusal("ZIP-FEATURE", f"record {name} is encrypted or compressed in an unusual way", where)
    if (central.name, central.flags, central.method) != (local.name, local.flags, local.method):
        raise refusal(
            "ZIP-INCONSISTENT", f"the directory says {name}, the record {printable(local.name)}", where
        )
    declared = (central.crc, central.compressed, central.size)
    found = (local.crc, local.compressed, local.size)
    empty = (0, 0, 0)
    if found != declared and not (central.flags & STREAMED and found == empty):
        raise refusal(
            "ZIP-INCONSISTENT", f"the directory and the record {name} differ in size or checksum", where
        )
    if central.method == STORED and central.compressed != central.size:
        raise refusal("ZIP-INCONSISTENT", f"record {name} is not compressed but has two sizes", where)


def _name(header: Header, where: str) -> str:
    try:
        name = header.name.decode("utf-8" if header.flags & UTF8 else "ascii")
    except UnicodeDecodeError:
        raise refusal(
            "ZIP-NAME", f"the record name {printable(header.name)} is not valid text", where
        ) from None
    parts = name.removesuffix("/").split("/")
    drive = len(name) > 1 and name[1] == ":"
    if drive or "\\" in name or "\0" in name or any(part in {"", ".", ".."} for part in parts):
        raise refusal(
            "ZIP-NAME", f"the record name {printable(name)} is not a plain path inside the archive", where
        )
    return name


def _inflate(data: memoryview, size: int) -> bytes | None:
    """Unpack a raw deflate stream to exactly `size` bytes; None when it holds anything else."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        result = unpacker.decompress(data, size + 1)
    except zlib.error:
        return None
    return result if unpacker.eof and not unpacker.unused_data else None
