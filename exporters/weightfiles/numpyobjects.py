"""numpy's scalars, dtypes and arrays as pickles hold them, rebuilt from plain bytes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.registry import refusal

# What the unpickler builds instead of the real thing: descriptions of tensors, and idle placeholders.

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


_KINDS = frozenset("biufc")


class NumpyDtype:
    """A dtype of plain numbers; any other one is refused where it is used."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in {"<", ">", "|", "="}:
            raise wrong_value("a numpy dtype")
        self.order = state[1]

    def dtype(self) -> np.dtype[np.generic]:
        """Return the dtype.

        Raises:
            InvalidInputError: it is not a type of plain numbers.
        """
        if len(self.code) > 4 or self.code[:1] not in _KINDS or not self.code[1:].isdigit():
            raise wrong_value("a numpy array")
        try:
            return np.dtype(self.order + self.code)
        except TypeError:
            raise wrong_value("a numpy array") from None


class NumpyArray:
    """An array whose bytes stand in the pickle."""

    __slots__ = ("content", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype: NumpyDtype = NumpyDtype("u1")
        self.fortran = False
        self.content = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise wrong_value("a numpy array")
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, NumpyDtype) or not isinstance(content, (bytes, bytearray)):
            raise wrong_value("a numpy array")
        self.shape, self.dtype = integers(shape, "a numpy array's shape"), dtype
        self.fortran, self.content = bool(fortran), bytes(content)

    def array(self) -> NDArray[np.generic]:
        """Return the values.

        Raises:
            InvalidInputError: the bytes do not fit the shape, or are not plain numbers.
        """
        dtype = self.dtype.dtype()
        if any(dim < 0 for dim in self.shape) or len(self.shape) > 32:
            raise wrong_value("a numpy array")
        if math.prod(self.shape) * dtype.itemsize != len(self.content):
            raise wrong_value("a numpy array")
        if 0 in self.shape:
            return np.zeros(tuple(min(dim, 1) for dim in self.shape), dtype)
        flat: NDArray[np.generic] = np.frombuffer(self.content, dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: object) -> NumpyArray:
    return NumpyArray()


def _dtype(code: object, *_: object) -> NumpyDtype:
    if not isinstance(code, str):
        raise wrong_value("a numpy dtype")
    return NumpyDtype(code)


def _scalar(dtype: object, content: object) -> object:
    if not isinstance(dtype, NumpyDtype) or not isinstance(content, (bytes, bytearray)):
        raise wrong_value("a numpy scalar")
    number = dtype.dtype()
    if len(content) != number.itemsize:
        raise wrong_value("a numpy scalar")
    return np.frombuffer(bytes(content), number)[0].item()


def _from_buffer(content: object, dtype: object, shape: object, order: object) -> NumpyArray:
    array = NumpyArray()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


NUMPY_GLOBALS: dict[str, object] = {
    "numpy ndarray": Named("numpy ndarray"),
    "numpy dtype": Function("numpy.dtype", _dtype),
    **{
        f"numpy.{core}.multiarray _reconstruct": Function("a numpy array", _reconstruct)
        for core in ("core", "_core")
    },
    **{f"numpy.{core}.multiarray scalar": Function("a numpy scalar", _scalar) for core in ("core", "_core")},
    **{
        f"numpy.{core}.numeric _frombuffer": Function("a numpy array", _from_buffer)
        for core in ("core", "_core")
    },
}
"""Stand-ins for what numpy's own pickles name."""
