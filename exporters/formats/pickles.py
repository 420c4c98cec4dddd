"""Recognising a pickle of any protocol by its instructions, which are read and never followed.

Pickles of protocol 2 and later say so in their first two bytes. Those of protocol 0 and 1 begin with any
instruction, many of which are printable characters; they are told from text by walking over the instructions
with the depth of the stack kept.
"""

import pickletools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

SNIFFED = 1 << 20
"""Bytes of a file that are walked over to recognise a pickle."""
_SNIFFED_STEPS = 50_000
_LINE = 4_096
_ARGUMENTS = 65_536
"""Bytes before a name that its arguments may take, where a pickle is searched for."""
_MARKS = 64
_PROTO = 0x80
_BURIED_STEPS = 2_000_000
"""Instructions that a search follows, in all."""
_NAME = re.compile(r"[^\W\d][\w.]*", re.UNICODE)
_NUMBERS = frozenset({"EXT1", "EXT2", "EXT4"})
_CALLS = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_PROTOCOL = re.compile(rb"\x80[\x02-\x05]")
_STACKED = re.compile(
    rb"(?:\x8c.|X..\0\0)[A-Za-z_][\w.]*\x94?(?:\x8c.|X..\0\0)[A-Za-z_][\w.]*\x94?\x93", re.DOTALL
)
"""Two names, then STACK_GLOBAL."""
_SECOND_LINE = re.compile(rb"\n[A-Za-z_][\w.]*(?=\r?\n)")
_FIRST_LINE = re.compile(rb"[ci][A-Za-z_][\w.]*\r?\Z")
"""GLOBAL and INST are followed by two lines; to look for the second one first takes a tenth of the time."""
_NAME_BYTES = 256


class Window:
    """The part of a file that a pickle may occupy, with reads that never copy more than there is."""

    def __init__(self, data: memoryview, start: int, limit: int) -> None:
        self._data = data[start : start + limit]
        self._position = 0

    def tell(self) -> int:
        """Return the bytes that were read."""
        return self._position

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        part = bytes(self._data[self._position : self._position + max(count, 0)])
        self._position += len(part)
        return part

    def readline(self) -> bytes:
        """Return the bytes up to the next line break, or to the end."""
        length = _LINE
        while True:
            text = bytes(self._data[self._position : self._position + length])
            end = text.find(b"\n") + 1
            if end or len(text) < length:
                break
            length *= 4
        line = text[: end or len(text)]
        self._position += len(line)
        return line


@dataclass
class Look:
    """What a walk over the instructions of a possible pickle has seen."""

    steps: int = 0
    complete: bool = False
    """It reached the end of a pickle with one object on the stack."""
    ran_out: bool = False
    """It was stopped by the size of the window, not by the bytes."""
    names: bool = False
    """It names a class or function to be imported."""
    calls: bool = False
    """It calls one."""
    end: int = 0
    """Bytes that were walked over."""


@dataclass
class _Depth:
    """How many objects lie on the unpickler's stack, and where its marks are."""

    objects: int = 0
    marks: list[int] = field(default_factory=list)

    def step(self, opcode: pickletools.OpcodeInfo) -> bool:
        """Follow one instruction; False where it takes what is not there."""
        before, after = opcode.stack_before, opcode.stack_after
        if opcode.name == "MARK":
            self.marks.append(self.objects)
            return True
        if opcode.name == "POP" and self.marks and self.objects == self.marks[-1]:
            self.marks.pop()
            return True
        taken = len(before)
        if pickletools.markobject in before:
            if not self.marks:
                return False
            self.objects = self.marks.pop()
            taken = before.index(pickletools.markobject)
        self.objects -= taken
        if self.objects < (self.marks[-1] if self.marks else 0):
            return False
        self.objects += len(after)
        return True


def instructions(window: Window) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    """Yield instruction after instruction; nothing is followed.

    Raises:
        ValueError: The bytes are not an instruction.
    """
    with warnings.catch_warnings():
        # text with an unknown backslash escape makes the decoder warn about the bytes
        warnings.simplefilter("ignore", DeprecationWarning)
        for opcode, argument, _ in pickletools.genops(window):  # type: ignore[arg-type]
            yield opcode, argument


def look(data: memoryview, start: int = 0) -> Look:
    """Walk over what may be a pickle until it ends, is none, or the window is used up."""
    window, depth, seen = Window(data, start, SNIFFED), _Depth(), Look()
    texts, numbers, called = 0, False, False
    try:
        for opcode, argument in instructions(window):
            if not depth.step(opcode) or not _plausible(opcode.name, argument):
                return seen
            seen.steps += 1
            seen.end = window.tell()
            texts += isinstance(argument, str) and _NAME.fullmatch(argument) is not None
            numbers |= opcode.name in _NUMBERS
            called |= opcode.name in _CALLS
            seen.names |= opcode.name in {"GLOBAL", "INST"} or (opcode.name == "STACK_GLOBAL" and texts > 1)
            seen.calls |= seen.names and opcode.name in _CALLS
            if seen.steps >= _SNIFFED_STEPS:
                seen.ran_out = True
                return seen
        seen.complete = depth.objects == 0 and not depth.marks
        if seen.complete and numbers:  # what is called by number alone is believed of whole pickles only
            seen.names, seen.calls = True, seen.calls or called
    except (ValueError, UnicodeError, OverflowError):
        seen.ran_out = window.tell() >= SNIFFED and data.nbytes - start > SNIFFED
    return seen


def is_pickle(data: memoryview, *, expected: bool) -> bool:
    """Tell whether a file is a pickle of any protocol, be it cut short after something that it calls.

    Args:
        data: Its bytes.
        expected: Its name is that of a pickle, so that one that breaks off after naming something is meant.
    """
    start = bytes(data[:2])
    if len(start) == 2 and start[0] == 0x80 and start[1] <= 5:
        return True
    seen = look(data)
    if seen.complete:
        return seen.names or seen.end == data.nbytes or is_pickle_start(data, seen.end)
    return seen.calls or (expected and seen.names) or (seen.ran_out and seen.steps > 1)


def is_pickle_start(data: memoryview, start: int) -> bool:
    """Tell whether another pickle stands at a position behind a first one."""
    head = bytes(data[start : start + 2])
    if len(head) == 2 and head[0] == 0x80 and head[1] <= 5:
        return True
    seen = look(data, start)
    return seen.calls or (seen.complete and seen.names)


def buried(data: memoryview, *, tries: int, limit: int) -> Iterator[int]:
    """Yield the positions at which a pickle that calls something stands in other bytes.

    Args:
        data: Any bytes.
        tries: Places that are looked at more closely, at most.
        limit: Bytes that are searched, at most.
    """
    past = steps = 0
    for number, position in enumerate(_candidates(data[:limit])):
        if number >= tries:
            return
        if position < past:
            continue
        for start in _starts(data, position):
            seen = look(data, start)
            steps += seen.steps
            if steps > _BURIED_STEPS:
                return
            if seen.calls:
                past = start + seen.end
                yield start
                break


def _candidates(data: memoryview) -> Iterator[int]:
    """Where a name or the protocol of a pickle may stand, in ascending order."""
    found = [match.start() for match in _PROTOCOL.finditer(data)]
    found += [match.start() for match in _STACKED.finditer(data)]
    for match in _SECOND_LINE.finditer(data):
        before = bytes(data[max(0, match.start() - _NAME_BYTES) : match.start()])
        first = _FIRST_LINE.search(before)
        if first is not None:
            found.append(match.start() - len(before) + first.start())
    yield from sorted(found)


def _starts(data: memoryview, position: int) -> Iterator[int]:
    """Where the pickle of a name may begin: there, or at a mark before it, after which arguments stand."""
    yield position
    if data[position] == _PROTO:
        return
    before = bytes(data[max(0, position - _ARGUMENTS) : position])
    at = len(before)
    for _ in range(_MARKS):
        at = before.rfind(b"(", 0, at)
        if at < 0:
            return
        yield position - len(before) + at


def _plausible(name: str, argument: object) -> bool:
    """Whether what is imported has a name that something importable can have."""
    if name not in {"GLOBAL", "INST"}:
        return True
    module, _, attribute = str(argument).partition(" ")
    return _NAME.fullmatch(module) is not None and _NAME.fullmatch(attribute) is not None
