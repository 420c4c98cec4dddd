"""Pickles that would run code, wherever they stand in a file: behind one another, in archives, in arrays.

Loaders differ in what they open, so nothing is taken for harmless because one reader would not come to it:
each member of an archive is looked at, also where the archive is damaged, and bytes of formats without parts
are searched. Nothing is extracted to disk and nothing is run; what unpacks is bounded in bytes and depth.
"""

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from emergraph.errors import EmergraphError
from emergraph.exporters.formats import Format, Inside, Sample, format_of
from emergraph.exporters.formats.pickles import buried, is_pickle_start, look
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.globals import Policy
from emergraph.exporters.weightfiles.limits import DEFAULT_LIMITS, WeightLimits
from emergraph.exporters.weightfiles.picklescan import scan_pickle
from emergraph.exporters.weightfiles.registry import Finding, finding_of
from emergraph.exporters.weightfiles.zipstrict import ZipRecord, open_zip

# The members of archives of any kind, also of damaged ones, as far as they can be found.

_LOCAL = b"PK\x03\x04"
_VALUES = re.compile(r"(?:[^/]+/)?(?:data|constants|tensors)/\d+|(?:[^/]+/)?data/weights/weight_\d+")
_BLOCK = 512
_CHUNK = 512
"""Bytes that are lost where a stream is damaged, at most: what came out before counts."""
_MAX_MEMBERS = 200_000
"""Of all archives of a file: what lies behind is not looked at, which is said."""


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
    found = re.finditer(re.escape(_LOCAL), content)
    # one more than are looked at, so that the search sees that there are more
    starts = [match.start() for match in islice(found, _MAX_MEMBERS + 1)]
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


CODE = frozenset({"PICKLE-CODE", "PICKLE-FOREIGN", "PICKLE-MODULE", "PICKLE-OPCODE"})
"""Findings about a pickle that would run code when loaded."""
_MAX_DEPTH = 6
_MAX_PICKLES = 1_000
_MAX_FINDINGS = 20
_SEARCHED = 64 << 20
_TRIES = 20_000
_PEEK = 4_096


Known = Callable[[str], bool]


def _nothing(_name: str) -> bool:
    return False


@dataclass
class _Search:
    limits: WeightLimits
    policy: Policy
    known: Known
    findings: list[Finding] = field(default_factory=list)
    members: int = 0
    room: int = 0
    """Bytes that may still be unpacked."""

    def full(self) -> bool:
        return len(self.findings) >= _MAX_FINDINGS

    def limit(self, what: str, where: str) -> None:
        self.findings.append(Finding("WEIGHTS-LIMIT", f"{what}: the rest was not looked at", where))


def code_inside(
    name: str,
    content: memoryview,
    *,
    limits: WeightLimits = DEFAULT_LIMITS,
    policy: Policy | None = None,
    where: str = "",
    known: "Known | None" = None,
    refused: bool = False,
) -> list[Finding]:
    """Look for pickles that would run code anywhere in a file.

    Args:
        name: Its name without folders.
        content: Its bytes.
        limits: Caps on each pickle and on what is unpacked.
        policy: Which classes may pass.
        where: How to name the file in findings.
        known: Whether a record of the archive was scanned before, by its name within the archive's folder.
        refused: Whether the reader of its format refused it: then its bytes are searched, too.

    Returns:
        What was found, each with where in the file it stands.
    """
    search = _Search(limits, policy or Policy(), known or _nothing, room=limits.inflated_bytes)
    _visit(search, name, content, where, 0)
    found = format_of(name, content)
    if refused and found.inside is Inside.BYTES and not found.searched:
        _buried(search, content, where, 0)
    unique = {(finding.id, finding.where): finding for finding in search.findings}
    return sorted(unique.values(), key=lambda finding: finding.id not in CODE)


def _visit(search: _Search, name: str, content: memoryview, where: str, depth: int) -> None:
    found = format_of(name, content)
    match found.inside:
        case Inside.PICKLE:
            _pickles(search, content, where, 0)
        case Inside.ARRAY:
            _array(search, content, where)
        case Inside.ZIP | Inside.TAR | Inside.STREAM:
            _members(search, found, name, content, where, depth)
        case Inside.BYTES if found.searched:
            _buried(search, content, where, 0)
    if found.inside is not Inside.ZIP and Sample(name, content).records:
        _members(search, found, name, content, where, depth, appended=True)


def _pickles(search: _Search, content: memoryview, where: str, position: int) -> None:
    """Scan one pickle after the other, then search what follows the last one."""
    for count in range(_MAX_PICKLES):
        if position >= content.nbytes or search.full():
            return
        if count and not is_pickle_start(content, position):
            break
        end = _scan(search, content, where, position)
        if end is None:
            # what stands behind broken instructions, for instance values between two pickles
            position += max(1, look(content, position).end)
            break
        position = end
    _buried(search, content, where, position)


def _scan(search: _Search, content: memoryview, where: str, position: int) -> int | None:
    """Scan one pickle; return where it ends, or None where it does not."""
    try:
        return scan_pickle(content, where, search.limits, start=position, policy=search.policy).end
    except EmergraphError as error:
        finding = finding_of(error)
        if not isinstance(finding, Finding):
            raise
        if finding.id in CODE or finding.id in {"WEIGHTS-LIMIT", "PICKLE-BOMB"}:
            search.findings.append(finding)
    return None


def _buried(search: _Search, content: memoryview, where: str, position: int) -> None:
    rest = content[position:]
    parts = [rest] if rest.nbytes <= _SEARCHED else [rest[:_SEARCHED], rest[-_SEARCHED:]]
    for part in parts:
        for start in buried(part, tries=_TRIES, limit=_SEARCHED):
            if search.full():
                return
            _scan(search, part, where, start)


def _array(search: _Search, content: memoryview, where: str) -> None:
    """The pickle behind the header of an array of objects."""
    width = 2 if content.nbytes > 6 and content[6] == 1 else 4
    length = 8 + width + int.from_bytes(content[8 : 8 + width], "little")
    _pickles(search, content, where, length)


def _members(
    search: _Search,
    found: Format,
    name: str,
    content: memoryview,
    where: str,
    depth: int,
    *,
    appended: bool = False,
) -> None:
    if depth >= _MAX_DEPTH:
        search.limit(f"archives are nested more than {_MAX_DEPTH} deep", where)
        return
    gathered = gather(Inside.ZIP if appended else found.inside, found.name, name, content, search.limits)
    outer = search.policy
    if found.name == "torchscript" or any("/code/" in member.name for member in gathered.members):
        search.policy = replace(outer, script=True)
    for member in gathered.members:
        search.members += 1
        if depth == 0 and gathered.whole and search.known(member.name.split("/", 1)[-1]):
            continue
        if search.full():
            break
        if search.members > _MAX_MEMBERS:
            search.limit(f"archives hold more than {_MAX_MEMBERS} members", where)
            break
        inner = printable(member.name)
        _member(search, member, f"{where}/{inner}" if where else inner, depth)
    search.policy = outer
    if not gathered.whole:  # members may be missing from what was found
        _buried(search, content, where, 0)


def _member(search: _Search, member: Member, where: str, depth: int) -> None:
    head = memoryview(member.read(_PEEK))
    if member.is_values:
        if look(head).calls:
            _pickles(search, memoryview(member.read(search.limits.pickle_bytes)), where, 0)
        return
    found = format_of(member.name, head)
    if found.inside is Inside.NUMBERS or (found.inside is Inside.BYTES and not found.searched):
        return
    wanted = min(search.room, search.limits.member_bytes)
    data = memoryview(member.read(wanted))
    if not member.stored:
        search.room -= data.nbytes
    if data.nbytes >= wanted and member.size > wanted:
        search.limit(f"only the first {wanted} bytes were unpacked", where)
    _visit(search, member.name.rsplit("/", 1)[-1], data, where, depth + 1)
