"""The unpickler's stack and memo as a sketch, moved on by one instruction after the other.

Of every object the sketch knows its kind, its text where it is a string, and what hashing it would cost.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from emergraph.exporters.weightfiles.globals import Policy, Verdict, judge
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.refuse import refusal

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
