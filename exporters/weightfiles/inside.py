"""Pickles that would run code, wherever they stand in a file: behind one another, in archives, in arrays.

Loaders differ in what they open, so nothing is taken for harmless because one reader would not come to it:
each member of an archive is looked at, also where the archive is damaged, and bytes of formats without parts
are searched. Nothing is extracted to disk and nothing is run; what unpacks is bounded in bytes and depth.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from emergraph.errors import EmergraphError
from emergraph.exporters.formats import Format, Inside, Sample, format_of
from emergraph.exporters.formats.pickles import buried, is_pickle_start, look
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.globals import Policy
from emergraph.exporters.weightfiles.limits import DEFAULT_LIMITS, WeightLimits
from emergraph.exporters.weightfiles.members import Member, gather
from emergraph.exporters.weightfiles.picklescan import scan_pickle
from emergraph.exporters.weightfiles.refuse import Finding, finding_of

CODE = frozenset({"PICKLE-CODE", "PICKLE-FOREIGN", "PICKLE-MODULE", "PICKLE-OPCODE"})
"""Findings about a pickle that would run code when loaded."""
_MAX_DEPTH = 6
_MAX_MEMBERS = 200_000
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
