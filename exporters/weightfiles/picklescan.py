"""A walk over the instructions of a pickle before anything is unpickled.

The walk keeps a sketch of the unpickler's stack. That is enough to know every class or function that the
pickle names, and to refuse pickles that are built to exhaust memory or time: a memo index of 2^31 - 1 makes
CPython ask for 32 GB, 40 nested pairs that share their halves take 2^40 steps to hash. `pickletools.genops`
only reads; it executes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.formats.pickles import Window, instructions
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.globals import DEFAULT_POLICY, Policy, Verdict, judge, refuse_foreign
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.registry import refusal
from emergraph.graphstore.text import first_line

# The unpickler's stack and memo as a sketch, moved on by one instruction after the other.

MAX_KEY_COST = 64
"""Objects inside a tuple that serves as the key of a dict."""
MAX_INTEGER_BITS = 4096
MAX_KEY_BITS = 60
"""Integers below 2^60 hash to themselves, so that keys cannot be made to collide."""


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    """What the sketch knows about an object on the stack."""

    kind: str
    """ "atom", "text", "bigint", "tuple", "container", "global" or "object"."""
    text: str = ""
    cost: int = 1
    """Objects that hashing it visits."""


_RUNS = "a pickle that would run code when loaded"
_FOREIGN = frozenset({Verdict.CLASS, Verdict.FOREIGN, Verdict.MODULE})
_MARK = _Object("mark")
_ATOM = _Object("atom")
_CONTAINER = _Object("container")
_OBJECT = _Object("object")


@dataclass
class Sketch:
    """The unpickler's stack and memo."""

    limits: WeightLimits
    where: str
    policy: Policy
    stack: list[_Object] = field(default_factory=list)
    memo: dict[int, _Object] = field(default_factory=dict)
    names: dict[str, Verdict] = field(default_factory=dict)
    marks: int = 0
    steps: int = 0

    def step(self, name: str, argument: object) -> None:
        """Follow one instruction.

        Raises:
            InvalidInputError: it does not fit the stack (PICKLE-DAMAGED).
            UnsafeInputError: weights need no such instruction (PICKLE-OPCODE), it names what no weights need
                (PICKLE-CODE), or exhausts memory or time (PICKLE-BOMB).
        """
        self.steps += 1
        follow = _FOLLOW.get(name)
        if follow is None:
            raise refusal("PICKLE-OPCODE", f"{_RUNS}: it uses {name}, which no weights need", self.where)
        follow(self, name, argument)

    def pop(self, count: int) -> list[_Object]:
        """Take objects off the stack; a mark among them is a malformed pickle."""
        if count > len(self.stack) or _MARK in self.stack[len(self.stack) - count :]:
            raise self.damaged("pops more objects than the stack holds")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def pop_mark(self) -> list[_Object]:
        """Take everything above the last mark, and the mark, off the stack."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                taken = self.stack[position + 1 :]
                del self.stack[position:]
                self.marks -= 1
                return taken
        raise self.damaged("closes a group that was not opened")

    def top(self) -> _Object:
        """Return the object on top."""
        if not self.stack or self.stack[-1] is _MARK:
            raise self.damaged("needs an object where the stack is empty")
        return self.stack[-1]

    def damaged(self, what: str) -> Exception:
        """Return the error for a malformed pickle."""
        return refusal("PICKLE-DAMAGED", f"the pickle {what}; fetch the file again", self.where)

    def bomb(self, what: str) -> Exception:
        """Return the error for a pickle that is built to exhaust memory or time."""
        return refusal("PICKLE-BOMB", f"the pickle {what}, which no weight file does", self.where)

    def name(self, module: str, name: str) -> None:
        """Judge a class or function and put it on the stack."""
        self.names[f"{module} {name}"] = judge(module, name, self.policy, self.where)
        self.stack.append(_Object("global", f"{module} {name}"))

    def foreign(self) -> dict[str, Verdict]:
        """Return the classes from elsewhere that were named so far."""
        return {name: verdict for name, verdict in self.names.items() if verdict in _FOREIGN}

    def keys(self, objects: list[_Object]) -> None:
        """Check that hashing the keys of a dict takes bounded time."""
        if any(item.kind == "bigint" or item.cost > MAX_KEY_COST for item in objects):
            raise self.bomb("uses keys that take very long to hash")


def _integer(sketch: Sketch, _: str, argument: object) -> None:
    bits = argument.bit_length() if isinstance(argument, int) else 0
    if bits > MAX_INTEGER_BITS:
        raise sketch.bomb(f"holds an integer of {bits} bits")
    sketch.stack.append(_ATOM if bits <= MAX_KEY_BITS else _Object("bigint"))


def _tuple(items: list[_Object]) -> _Object:
    cost = min(1 + sum(item.cost for item in items), 1 << 60)
    return _Object("bigint" if any(item.kind == "bigint" for item in items) else "tuple", "", cost)


def _memo(sketch: Sketch, name: str, argument: object) -> None:
    if name == "MEMOIZE":
        sketch.memo[len(sketch.memo)] = sketch.top()
        return
    index = argument if isinstance(argument, int) else int(str(argument))
    if "PUT" in name:
        if not 0 <= index <= sketch.steps:
            raise sketch.bomb(f"asks for memo entry {index} after {sketch.steps} instructions")
        sketch.memo[index] = sketch.top()
    elif index not in sketch.memo:
        raise sketch.damaged(f"reads memo entry {index}, which was never written")
    else:
        sketch.stack.append(sketch.memo[index])


def _group(sketch: Sketch, name: str, _: object) -> None:
    items = sketch.pop_mark()
    if name == "DICT":
        sketch.keys(items[0::2])
    if name == "FROZENSET":
        sketch.keys(items)
    sketch.stack.append(_tuple(items) if name in {"TUPLE", "FROZENSET"} else _CONTAINER)


def _fill(sketch: Sketch, name: str, _: object) -> None:
    single = {"APPEND": 1, "SETITEM": 2}.get(name)
    items = sketch.pop_mark() if single is None else sketch.pop(single)
    if name.startswith("SETITEM"):
        if len(items) % 2:
            raise sketch.damaged("gives a dict a key without a value")
        sketch.keys(items[0::2])
    if name == "ADDITEMS":
        sketch.keys(items)
    if sketch.top().kind not in {"container", "object"}:
        raise sketch.damaged("puts items into something that holds none")


def _named(sketch: Sketch, name: str, argument: object) -> None:
    if name == "GLOBAL":
        module, _, attribute = str(argument).partition(" ")
        sketch.name(module, attribute)
        return
    module_object, name_object = sketch.pop(2)
    if module_object.kind != "text" or name_object.kind != "text":
        raise refusal("PICKLE-OPCODE", f"{_RUNS}: it computes the name of what it calls", sketch.where)
    sketch.name(module_object.text, name_object.text)


def _make(sketch: Sketch, name: str, argument: object) -> None:
    if name == "PERSID":
        pass
    elif name == "BINPERSID":
        sketch.pop(1)
    elif name == "INST":
        sketch.pop_mark()
        _named(sketch, "GLOBAL", argument)
        sketch.pop(1)
    elif name == "OBJ":
        if [item.kind for item in sketch.pop_mark()[:1]] != ["global"]:
            raise refusal("PICKLE-OPCODE", f"{_RUNS}: it calls something that it has not named", sketch.where)
    elif name == "BUILD":
        sketch.pop(1)
        if sketch.pop(1)[0].kind not in {"object", "container"}:
            raise refusal("PICKLE-OPCODE", f"{_RUNS}: it changes a class or function", sketch.where)
    elif sketch.pop({"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3}[name])[0].kind != "global":
        raise refusal("PICKLE-OPCODE", f"{_RUNS}: it calls something that it has not named", sketch.where)
    sketch.stack.append(_OBJECT)


def _shuffle(sketch: Sketch, name: str, _: object) -> None:
    if name == "MARK":
        sketch.marks += 1
        if sketch.marks > sketch.limits.pickle_marks:
            raise sketch.bomb(f"opens more than {sketch.limits.pickle_marks} groups at once")
        sketch.stack.append(_MARK)
    elif name == "DUP":
        sketch.stack.append(sketch.top())
    elif name == "POP_MARK" or (name == "POP" and sketch.stack and sketch.stack[-1] is _MARK):
        sketch.pop_mark()
    elif name == "POP":
        sketch.pop(1)


def _push(item: _Object) -> Callable[[Sketch, str, object], None]:
    return lambda sketch, _name, _argument: sketch.stack.append(item)


def _text(sketch: Sketch, _: str, argument: object) -> None:
    sketch.stack.append(_Object("text", str(argument)))


def _short_tuple(sketch: Sketch, name: str, _: object) -> None:
    sketch.stack.append(_tuple(sketch.pop({"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}[name])))


def _nothing(_sketch: Sketch, _name: str, _argument: object) -> None:
    pass


_GROUPS: tuple[tuple[Callable[[Sketch, str, object], None], str], ...] = (
    (_integer, "INT BININT BININT1 BININT2 LONG LONG1 LONG4"),
    (_push(_ATOM), "FLOAT BINFLOAT NONE NEWTRUE NEWFALSE BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"),
    (_text, "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"),
    (_push(_CONTAINER), "EMPTY_LIST EMPTY_DICT EMPTY_SET"),
    (_short_tuple, "EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3"),
    (_memo, "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET"),
    (_group, "LIST DICT TUPLE FROZENSET"),
    (_fill, "APPEND APPENDS SETITEM SETITEMS ADDITEMS"),
    (_named, "GLOBAL STACK_GLOBAL"),
    (_make, "REDUCE NEWOBJ NEWOBJ_EX OBJ INST BUILD PERSID BINPERSID"),
    (_shuffle, "MARK POP POP_MARK DUP"),
    (_nothing, "PROTO FRAME STOP"),
)
_FOLLOW = {name: follow for follow, names in _GROUPS for name in names.split()}
"""What each instruction does to the sketch; the others are refused."""


@dataclass(frozen=True)
class PickleScan:
    """What a pickle holds."""

    end: int
    """First byte after the pickle."""
    globals: tuple[str, ...]
    """Every class or function that it names, "module name", in order of appearance."""
    foreign: Mapping[str, Verdict]
    """Those of them that become placeholders."""
    opcodes: int


def scan_pickle(
    data: memoryview, where: str, limits: WeightLimits, *, start: int = 0, policy: Policy = DEFAULT_POLICY
) -> PickleScan:
    """Check a pickle without unpickling it.

    Args:
        data: Bytes that hold the pickle.
        where: How to name it in messages.
        limits: Caps on bytes, instructions and nesting.
        start: Where the pickle starts.
        policy: Which classes may pass as placeholders; functions that no weights need are refused all the
            same.

    Returns:
        Where it ends and which classes and functions it names.

    Raises:
        InvalidInputError: cut short or malformed (PICKLE-DAMAGED).
        UnsafeInputError: it names what is not on the list (PICKLE-FOREIGN, PICKLE-MODULE, PICKLE-CODE), or is
            built to exhaust memory or time (PICKLE-BOMB, PICKLE-OPCODE).
        LimitError: more instructions or bytes than the limits (WEIGHTS-LIMIT).
    """
    window = Window(data, start, limits.pickle_bytes)
    sketch = Sketch(limits, where, policy)
    try:
        for opcode, argument in instructions(window):
            if sketch.steps >= limits.pickle_opcodes:
                message = f"the pickle has more than {limits.pickle_opcodes} instructions"
                raise refusal("WEIGHTS-LIMIT", message, where)
            sketch.step(opcode.name, argument)
        if sketch.marks or len(sketch.stack) != 1:
            raise sketch.damaged("ends in the middle of an object")
    except (ValueError, UnicodeError, OverflowError) as error:
        raise _broken(sketch, error, window, data.nbytes - start) from None
    except EmergraphError as error:
        _refuse_named_code(data, start, limits, where, policy)
        if isinstance(error, InvalidInputError) and sketch.foreign() and not policy.allow_missing:
            raise refuse_foreign(sketch.foreign(), where) from None
        raise
    foreign = sketch.foreign()
    if not all(policy.passes(verdict) for verdict in foreign.values()):
        raise refuse_foreign(foreign, where)
    return PickleScan(start + window.tell(), tuple(sketch.names), foreign, sketch.steps)


def _refuse_named_code(
    data: memoryview, start: int, limits: WeightLimits, where: str, policy: Policy
) -> None:
    """Look at the names in all of a pickle that is refused for another reason: those of code matter more.

    Raises:
        UnsafeInputError: it names what no weights need (PICKLE-CODE).
    """
    texts: list[str] = []
    try:
        for step, (opcode, argument) in enumerate(instructions(Window(data, start, limits.pickle_bytes))):
            if step >= limits.pickle_opcodes:
                return
            if opcode.name in {"GLOBAL", "INST"}:
                module, _, name = str(argument).partition(" ")
                judge(module, name, policy, where)
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                judge(texts[-2], texts[-1], policy, where)
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
    except (ValueError, UnicodeError, OverflowError):
        return


def _broken(sketch: Sketch, error: Exception, window: Window, available: int) -> Exception:
    """Say why the instructions could not be read to the end; a class from elsewhere matters more."""
    if sketch.foreign() and not sketch.policy.allow_missing:
        return refuse_foreign(sketch.foreign(), sketch.where)
    limit = sketch.limits.pickle_bytes
    if limit <= window.tell() and limit < available:
        message = f"the pickle has more than {limit} bytes, its storages not counted"
        return refusal("WEIGHTS-LIMIT", message, sketch.where)
    # Python's own words for this are "unexpected end of data"
    reason = "a text is not UTF-8" if isinstance(error, UnicodeError) else printable(first_line(error))
    return refusal("PICKLE-DAMAGED", f"the pickle is cut short or malformed ({reason})", sketch.where)
