"""A walk over the instructions of a pickle before anything is unpickled.

The walk keeps a sketch of the unpickler's stack. That is enough to know every class or function that the
pickle names, and to refuse pickles that are built to exhaust memory or time: a memo index of 2^31 - 1 makes
CPython ask for 32 GB, 40 nested pairs that share their halves take 2^40 steps to hash. `pickletools.genops`
only reads; it executes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.formats.pickles import Window, instructions
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.abstract_stack import Sketch
from emergraph.exporters.weightfiles.globals import DEFAULT_POLICY, Policy, Verdict, judge, refuse_foreign
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.refuse import refusal
from emergraph.graphstore.text import first_line


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
    reason = printable(first_line(error))
    return refusal("PICKLE-DAMAGED", f"the pickle is cut short or malformed ({reason})", sketch.where)
