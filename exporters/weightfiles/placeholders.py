"""What the unpickler builds instead of the real thing: descriptions of tensors, and idle placeholders.

A pickle is a program that calls whatever it names and then sets attributes on what came back. So nothing that
it gets here is a real class or function of another library: callables are wrapped in `Function`, whose
instances have no attributes to set, and every object of a class from elsewhere is an `Opaque`, which keeps
what it is given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Self

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.refuse import refusal

_MAX_INTEGERS = 1_000


def wrong_value(what: str) -> Exception:
    """Return the error for a tensor that is rebuilt from values of the wrong kind."""
    return refusal("PICKLE-VALUE", f"the pickle rebuilds {what} from values of the wrong kind", "pickle")


class Sealed:
    """Base of descriptions: a pickle cannot give them another state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        raise refusal("PICKLE-OPCODE", "the pickle changes an object that it may only make", "pickle")


@dataclass(frozen=True, slots=True, eq=False)
class Function(Sealed):
    """A callable of the list, e.g. what stands in for `torch._utils._rebuild_tensor_v2`."""

    name: str
    call: Callable[..., object]
    meter: Callable[[tuple[object, ...]], None] | None = None
    """Looks at the arguments first and refuses where a pickle has too much copied."""

    def __call__(self, *arguments: object) -> object:
        """Call it; arguments that it does not take are a malformed pickle."""
        if self.meter is not None:
            self.meter(arguments)
        try:
            return self.call(*arguments)
        except TypeError:
            raise wrong_value(self.name) from None

    def __setstate__(self, state: object) -> NoReturn:
        Sealed.__setstate__(self, state)


@dataclass(frozen=True, slots=True, eq=False)
class Named(Sealed):
    """A class or constant that is only referred to: a dtype, a layout, `builtins.list`."""

    name: str
    dtype: str | None = None
    """Element type, of dtypes and storage classes."""
    storage: bool = False

    def __setstate__(self, state: object) -> NoReturn:
        Sealed.__setstate__(self, state)


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef(Sealed):
    """A storage that a tensor refers to."""

    key: str
    dtype: str
    count: int
    """Elements."""
    first: int = 0
    """Element of the stored bytes at which it starts (views of the legacy format)."""
    whole: int | None = None
    """Elements of the stored bytes, where this is a view of them; None where it is all of them."""

    def __setstate__(self, state: object) -> NoReturn:
        Sealed.__setstate__(self, state)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TensorRef(Sealed):
    """A strided tensor, not yet checked against its storage."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    scheme: tuple[object, ...] | None = None
    """Parameters of the quantization, as torch pickles them."""
    note: str | None = None
    """Why the bytes are not the values: a lazy conjugate or negative."""

    def __setstate__(self, state: object) -> NoReturn:
        Sealed.__setstate__(self, state)


@dataclass(frozen=True, slots=True, eq=False)
class SparseRef(Sealed):
    """A sparse tensor: its layout and the tensors that make it up."""

    layout: str
    parts: tuple[TensorRef, ...]
    shape: tuple[int, ...]

    def __setstate__(self, state: object) -> NoReturn:
        Sealed.__setstate__(self, state)


@dataclass(frozen=True, slots=True, eq=False)
class NoData(Sealed):
    """A tensor without readable values, and why."""

    reason: str
    finding: str
    shape: tuple[int, ...] = ()

    def __setstate__(self, state: object) -> NoReturn:
        Sealed.__setstate__(self, state)


class InertDict(dict[object, object]):
    """What stands in for OrderedDict, defaultdict and Counter: a dict without attributes."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore attributes such as a state dict's `_metadata`."""


class _OpaqueType(type):
    """Type of placeholder types; a pickle cannot set their attributes."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise refusal("PICKLE-OPCODE", "the pickle changes a class", "pickle")


class Opaque(metaclass=_OpaqueType):
    """An object of a class from elsewhere: it keeps what the pickle gives it and does nothing."""

    __slots__ = ("arguments", "elements", "items", "state")

    type_name = ""
    """Module and name of the class, as the pickle has them."""

    arguments: tuple[object, ...]
    state: object
    elements: list[object]
    items: list[tuple[object, object]]

    def __new__(cls, *arguments: object, **_: object) -> Self:
        """Keep the arguments."""
        self = super().__new__(cls)
        self.arguments, self.state, self.elements, self.items = arguments, None, [], []
        return self

    def __init__(self, *arguments: object, **_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))

    def append(self, element: object) -> None:
        """Keep an element."""
        self.elements.append(element)

    def extend(self, elements: list[object]) -> None:
        """Keep elements."""
        self.elements.extend(elements)

    def add(self, element: object) -> None:
        """Keep an element."""
        self.elements.append(element)


def opaque_type(type_name: str) -> type[Opaque]:
    """Return a placeholder for one class from elsewhere; the class is not looked for."""

    class Placeholder(Opaque):
        __slots__ = ()

    type.__setattr__(Placeholder, "type_name", type_name)
    return Placeholder


def integers(value: object, what: str) -> tuple[int, ...]:
    """Return a short tuple or list of plain integers as a tuple, or refuse."""
    fits = isinstance(value, (tuple, list)) and len(value) <= _MAX_INTEGERS
    if not isinstance(value, (tuple, list)) or not fits or any(type(item) is not int for item in value):
        raise wrong_value(what)
    return tuple(value)


def shown_name(module: str, name: str) -> str:
    """Return a class's full name in printable form."""
    return printable(f"{module}.{name}")
