"""The members of archives of any kind, also of damaged ones, as far as they can be found.

`zipstrict` refuses archives that readers could take in two ways. Here every way is taken: a member that any
reader might come to is looked at.
"""

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from emergraph.errors import EmergraphError
from emergraph.exporters.formats import Inside
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.zipstrict import ZipRecord, open_zip

_LOCAL = b"PK\x03\x04"
_VALUES = re.compile(r"(?:[^/]+/)?(?:data|constants|tensors)/\d+|(?:[^/]+/)?data/weights/weight_\d+")
_BLOCK = 512
_CHUNK = 512
"""Bytes that are lost where a stream is damaged, at most: what came out before counts."""
_MAX_LOCALS = 200_000


@dataclass(frozen=True)
class Member:
    """A member of an archive."""

    name: str
    size: int
    """Bytes once unpacked, as declared; 0 where nothing says."""
    stored: bool
    """It takes no memory of its own."""
    read: Callable[[int], "bytes | memoryview"]
    """Return its first bytes, at most so many; fewer where it is damaged."""

    @property
    def is_values(self) -> bool:
        """Whether its name is that of the values of a tensor."""
        return _VALUES.fullmatch(self.name) is not None


@dataclass(frozen=True)
class Gathered:
    """What was found in an archive."""

    members: list[Member]
    whole: bool
    """The archive says the same thing to every reader."""


def gather(
    inside: Inside, format_name: str, name: str, content: memoryview, limits: WeightLimits
) -> Gathered:
    """Find the members of an archive, or what a compressed file unpacks to.

    Args:
        inside: What the file is made of: records of a zip or tar archive, or one stream.
        format_name: Which stream: "gzip", "bzip2", "xz" or "zlib".
        name: Name of the file.
        content: Its bytes.
        limits: Caps on records.
    """
    if inside is Inside.TAR:
        return Gathered(list(_tar(content)), whole=True)
    if inside is Inside.STREAM:
        unpack = _STREAMS[format_name]
        inner = name.rsplit(".", 1)[0] or "content"
        return Gathered([Member(inner, 0, False, lambda count: unpack(content, count))], whole=True)
    try:
        records = open_zip(content, "", limits).records.values()
    except EmergraphError:
        return Gathered(list(_locals(content)), whole=False)
    return Gathered([_of_record(record) for record in records], whole=True)


def _of_record(record: ZipRecord) -> Member:
    data = record.data
    if not record.compressed:
        return Member(record.name, data.nbytes, True, lambda count: data[:count])
    return Member(record.name, record.size, False, lambda count: _inflate(data, count))


def _locals(content: memoryview) -> Iterator[Member]:
    """Every local record of a zip archive that is damaged, or that readers could take in two ways."""
    starts = [match.start() for match in re.finditer(re.escape(_LOCAL), content)][:_MAX_LOCALS]
    for start, following in zip(starts, [*starts, content.nbytes][1:], strict=True):
        if start + 30 > content.nbytes:
            return
        method = int.from_bytes(content[start + 8 : start + 10], "little")
        n_name, n_extra = struct.unpack_from("<2H", content, start + 26)
        name = bytes(content[start + 30 : start + 30 + n_name]).decode("utf-8", "replace")
        data = content[start + 30 + n_name + n_extra : following]
        yield Member(name, data.nbytes, True, _either(data, method))


def _either(data: memoryview, method: int) -> Callable[[int], "bytes | memoryview"]:
    """Read a record as its method says; as it stands where that gives nothing."""

    def read(count: int) -> bytes | memoryview:
        if method:
            unpacked = _inflate(data, count)
            if unpacked:
                return unpacked
        return data[:count]

    return read


def _tar(content: memoryview) -> Iterator[Member]:
    """The members of a tar archive of any dialect; names longer than a header are cut."""
    position = 0
    while position + _BLOCK <= content.nbytes:
        header = bytes(content[position : position + _BLOCK])
        if not header.strip(b"\0"):
            position += _BLOCK
            continue
        digits = header[124:136]
        if digits[0] & 0x80:
            size = int.from_bytes(digits[1:], "big")
        else:
            text = digits.strip(b" \0")
            size = int(text, 8) if text and not text.strip(b"01234567") else 0
        start = position + _BLOCK
        data = content[start : start + size]
        name = header[:100].split(b"\0", 1)[0].decode("utf-8", "replace")
        yield Member(name or "member", data.nbytes, True, _slice(data))
        position = start + -(-size // _BLOCK) * _BLOCK


def _slice(data: memoryview) -> Callable[[int], memoryview]:
    return lambda count: data[:count]


def _inflate(data: memoryview, count: int) -> bytes:
    return _unpacked(zlib.decompressobj(-zlib.MAX_WBITS), data, count)[0]


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _unpacked(unpacker: _Unpacker, data: memoryview, count: int) -> tuple[bytes, int]:
    """Return what comes out of a stream until so many bytes, its end or damage, and where it ends."""
    parts: list[bytes] = []
    position = 0
    while count > 0 and position < data.nbytes and not unpacker.eof:
        piece = bytes(data[position : position + _CHUNK])
        try:
            part = unpacker.decompress(piece, count)
        except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError):
            break
        parts.append(part)
        count -= len(part)
        position += len(piece)
    return b"".join(parts), position - len(unpacker.unused_data)


def _gzip(data: memoryview, count: int) -> bytes:
    """Unpack all members; checksums are not looked at, for other readers give the bytes away before."""
    parts: list[bytes] = []
    while bytes(data[:2]) == b"\x1f\x8b" and count > 0:
        start = _gzip_header(bytes(data[: _CHUNK * 8]))
        part, end = _unpacked(zlib.decompressobj(-zlib.MAX_WBITS), data[start:], count)
        parts.append(part)
        count -= len(part)
        data = data[start + end + 8 :]
    return b"".join(parts)


def _gzip_header(head: bytes) -> int:
    """Bytes before the data (RFC 1952)."""
    flags, start = (head[3] if len(head) > 3 else 0), 10
    if flags & 4:
        start += 2 + int.from_bytes(head[start : start + 2], "little")
    for text in (8, 16):
        if flags & text:
            start = head.find(b"\0", start) + 1 or len(head)
    return start + 2 * bool(flags & 2)


def _zlib(data: memoryview, count: int) -> bytes:
    return _inflate(data[2:], count)


def _bzip2(data: memoryview, count: int) -> bytes:
    return _unpacked(bz2.BZ2Decompressor(), data, count)[0]


def _xz(data: memoryview, count: int) -> bytes:
    return _unpacked(lzma.LZMADecompressor(memlimit=1 << 28), data, count)[0]


_STREAMS = {"gzip": _gzip, "bzip2": _bzip2, "xz": _xz, "zlib": _zlib}
