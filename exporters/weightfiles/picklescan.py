"""A walk over the instructions of a pickle before anything is unpickled.

The walk keeps a sketch of the unpickler's stack. That is enough to know every class or function that the
pickle names, and to refuse pickles that are built to exhaust memory or time: a memo index of 2^31 - 1 makes
CPython ask for 32 GB, 40 nested pairs that share their halves take 2^40 steps to hash. `pickletools.genops`
only reads; it executes nothing.
"""

import pickletools
import warnings
from dataclasses import dataclass

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.globals import DEFAULT_POLICY, Policy, refuse_foreign
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.picklesketch import Sketch
from emergraph.exporters.weightfiles.refuse import refusal
from emergraph.graphstore.text import first_line


@dataclass(frozen=True)
class PickleScan:
    """What a pickle holds."""

    end: int
    """First byte after the pickle."""
    globals: tuple[str, ...]
    """Every class or function that it names, "module name", in order of appearance."""
    foreign: tuple[str, ...]
    """Those of them that become placeholders."""
    opcodes: int


class _Window:
    """The part of a file that a pickle may occupy, with reads that never copy more than there is."""

    def __init__(self, data: memoryview, start: int, limit: int) -> None:
        self._data = data[start : start + limit]
        self._position = 0

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        part = bytes(self._data[self._position : self._position + max(count, 0)])
        self._position += len(part)
        return part

    def readline(self) -> bytes:
        text = bytes(self._data[self._position : self._position + 65_536])
        end = text.find(b"\n") + 1 or len(text)
        self._position += end
        return text[:end]


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
    window = _Window(data, start, limits.pickle_bytes)
    sketch = Sketch(limits, where, policy)
    try:
        with warnings.catch_warnings():
            # text with an unknown backslash escape makes the decoder warn about the bytes
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(window):  # type: ignore[arg-type]
                if sketch.steps >= limits.pickle_opcodes:
                    message = f"the pickle has more than {limits.pickle_opcodes} instructions"
                    raise refusal("WEIGHTS-LIMIT", message, where)
                sketch.step(opcode.name, argument)
        if sketch.marks or len(sketch.stack) != 1:
            raise sketch.damaged("ends in the middle of an object")
    except (ValueError, UnicodeError, OverflowError) as error:
        raise _broken(sketch, error, window, data.nbytes - start) from None
    except InvalidInputError:
        if sketch.foreign() and not policy.allow_missing:
            raise refuse_foreign(sketch.foreign(), where) from None
        raise
    foreign = sketch.foreign()
    if foreign and not policy.allow_missing:
        raise refuse_foreign(foreign, where)
    return PickleScan(start + window.tell(), tuple(sketch.names), tuple(foreign), sketch.steps)


def _broken(sketch: Sketch, error: Exception, window: _Window, available: int) -> Exception:
    """Say why the instructions could not be read to the end; a class from elsewhere matters more."""
    if sketch.foreign() and not sketch.policy.allow_missing:
        return refuse_foreign(sketch.foreign(), sketch.where)
    limit = sketch.limits.pickle_bytes
    if limit <= window.tell() and limit < available:
        message = f"the pickle has more than {limit} bytes, its storages not counted"
        return refusal("WEIGHTS-LIMIT", message, sketch.where)
    reason = printable(first_line(error))
    return refusal("PICKLE-DAMAGED", f"the pickle is cut short or malformed ({reason})", sketch.where)
