"""Unpickling with a list: `pickle.Unpickler` finds inert stand-ins only, and only after the scan."""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace

from emergraph.exporters.weightfiles.globals import DEFAULT_POLICY, Policy, Verdict, judge, refuse_foreign
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.numpyobjects import (
    Function,
    Named,
    Opaque,
    StorageRef,
    opaque_type,
    wrong_value,
)
from emergraph.exporters.weightfiles.picklescan import scan_pickle
from emergraph.exporters.weightfiles.rebuild import ALLOWED
from emergraph.exporters.weightfiles.registry import refusal

_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
    ImportError,
)


_COPIES = 32
"""Bytes that calls may copy, per byte of the pickle."""
_BYTES_PER_ENTRY = 100
"""What an entry of a list, tuple or dict takes once it is copied, about."""


@dataclass(frozen=True)
class Unpickled:
    """The inert image of a pickle."""

    root: object
    """Dicts, lists, plain values and the descriptions of `placeholders`."""
    end: int
    """First byte after the pickle."""
    opcodes: int
    """Instructions of the pickle, which bound the objects that it makes."""
    storages: dict[str, StorageRef]
    """The storages that it refers to, by key."""
    around: Mapping[str, Verdict]
    """Classes from elsewhere that may be left out only where no weight needs them."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that looks nothing up: every name is answered from the list or with a placeholder."""

    def __init__(self, content: bytes, policy: Policy, where: str, *, budget: int) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._policy = policy
        self._where = where
        self._budget = budget
        self._functions: dict[str, Function] = {}
        self._opaque: dict[str, type[Opaque]] = {}
        self.storages: dict[str, StorageRef] = {}

    def find_class(self, module: str, name: str, /) -> object:
        """Return the stand-in for a class or function."""
        key = f"{module} {name}"
        verdict = judge(module, name, self._policy, self._where)
        if verdict is Verdict.ALLOWED:
            return self._metered(key)
        if not self._policy.passes(verdict):
            raise refuse_foreign({key: verdict}, self._where)
        if key not in self._opaque:
            self._opaque[key] = opaque_type(key.replace(" ", "."))
        return self._opaque[key]

    def _metered(self, key: str) -> object:
        known = ALLOWED[key]
        if not isinstance(known, Function):
            return known
        if key not in self._functions:
            self._functions[key] = replace(known, meter=self._meter)
        return self._functions[key]

    def _meter(self, arguments: tuple[object, ...]) -> None:
        """Count what a call may copy: a pickle can have one long list copied a million times."""
        for argument in arguments:
            if isinstance(argument, (str, bytes, bytearray)):
                self._budget -= len(argument)
            elif isinstance(argument, (list, tuple, dict)):
                self._budget -= _BYTES_PER_ENTRY * len(argument)
        if self._budget < 0:
            raise refusal("PICKLE-BOMB", "the pickle has the same values copied again and again", self._where)

    def persistent_load(self, pid: object, /) -> object:
        """Return the description of a storage; the only thing that weights keep outside the pickle."""
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise wrong_value("a storage")
        if pid[0] == "module":
            return pid[1]
        if pid[0] != "storage" or len(pid) not in {5, 6}:
            raise wrong_value("a storage")
        kind, key, count, view = pid[1], pid[2], pid[4], (pid[5] if len(pid) == 6 else None)
        if not isinstance(kind, Named) or not kind.storage or kind.dtype is None:
            raise wrong_value("a storage")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise wrong_value("a storage")
        storage = StorageRef(key, kind.dtype, count)
        self.storages.setdefault(key, storage)
        return storage if view is None else _view(storage, view)


def _view(storage: StorageRef, view: object) -> StorageRef:
    """A part of a storage, as the legacy format describes it: key, first element, number of elements."""
    if not isinstance(view, tuple) or len(view) != 3 or type(view[1]) is not int or type(view[2]) is not int:
        raise wrong_value("a view of a storage")
    first, count = view[1], view[2]
    if first < 0 or count < 0 or first + count > storage.count:
        message = f"a view of elements {first} to {first + count} of a storage of {storage.count}"
        raise refusal("TENSOR-BOUNDS", message, "pickle")
    return StorageRef(storage.key, storage.dtype, count, first, storage.count)


def unpickle(
    data: memoryview, where: str, limits: WeightLimits, *, start: int = 0, policy: Policy = DEFAULT_POLICY
) -> Unpickled:
    """Scan a pickle, then rebuild its inert image.

    Args:
        data: Bytes that hold the pickle.
        where: How to name it in messages.
        limits: Caps on bytes, instructions and nesting.
        start: Where the pickle starts.
        policy: Which classes may pass as placeholders.

    Returns:
        The image, where the pickle ends, and the storages it refers to.

    Raises:
        InvalidInputError: malformed (PICKLE-DAMAGED, PICKLE-VALUE).
        UnsafeInputError: it names what is not on the list, or is built to exhaust memory or time.
        LimitError: larger than the limits.
    """
    scan = scan_pickle(data, where, limits, start=start, policy=policy)
    try:
        content = bytes(data[start : scan.end])
        unpickler = _Unpickler(content, policy, where, budget=_COPIES * len(content) + (1 << 20))
        around = {} if policy.allow_missing else scan.foreign
        return Unpickled(unpickler.load(), scan.end, scan.opcodes, unpickler.storages, around)
    except _MALFORMED as error:
        message = f"the pickle is malformed ({type(error).__name__}); fetch the file again"
        raise refusal("PICKLE-DAMAGED", message, where) from None
