"""numpy's scalars, dtypes and arrays as pickles hold them, rebuilt from plain bytes."""

import math

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.placeholders import Function, Named, integers, wrong_value

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
