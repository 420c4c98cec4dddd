"""Tensors as the files of a model hold them, so that a graph can leave their values, and its edges, there."""

import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.placements import IN_PLACE_EDGES, EdgePlacement
from emergraph.graphstore.arrays import FloatArray
from emergraph.graphstore.records import FilePlace, Place

if TYPE_CHECKING:  # made of parameters, which look at their tensors here
    from emergraph.exporters.codings import CodedTensor

Array = NDArray[np.generic]

_FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})


@dataclass(frozen=True)
class FileTensors:
    """The tensors of a model's files that are there as they are: little-endian, in C order."""

    files: Mapping[str, memoryview] = field(repr=False)
    """Mapped files by their names, without folders."""
    view: Callable[[str], Array | None]
    """Gives the values of a tensor without a copy; None where the file holds something else."""
    coded: "Callable[[str], CodedTensor | None]" = lambda _: None
    """Gives a tensor that follows from what the file holds; None where it does not, or holds it as it is."""
    in_place: bool = False
    """Whether edges stay in the files where they can."""

    def in_file(self, name: str) -> FilePlace | None:
        """Return where a tensor's values are, or the first codes behind them; None for no file."""
        values = self.view(name)
        if values is None:
            coded = self.coded(name) if self.in_place else None
            values = None if coded is None else coded.first
        if values is None or not values.size:
            return None
        first = _address(values)
        for file, content in self.files.items():
            start = _address(np.frombuffer(content, np.uint8)) if len(content) else 0
            if start <= first and first + values.nbytes <= start + len(content):
                return FilePlace(file=file, offset=first - start)
        return None

    def place_of(self, name: str, matrix: NDArray[np.floating]) -> Place | None:
        """Return which entries of a tensor a matrix of weights is a view of; None where it is none."""
        values = self.view(name)
        if values is None or values.dtype.name not in _FLOATS or self.in_file(name) is None:
            return None
        return place_in(values, name, matrix)


NO_FILES = FileTensors({}, lambda _: None)
"""Of a model that is in no file."""


def leaves_edges(placement: EdgePlacement, shapes: Iterable[tuple[int, ...]]) -> bool:
    """Whether the edges of a graph stay in the file.

    Args:
        placement: What was asked for.
        shapes: Of the weights that can stay there.
    """
    if placement is not EdgePlacement.AUTO:
        return placement is EdgePlacement.IN_PLACE
    return sum(math.prod(shape) for shape in shapes if len(shape) > 1) > IN_PLACE_EDGES


def is_weight(dtype: str, *, codes: bool = False) -> bool:
    """Whether numbers of a type that a file holds are weights as they are, or codes of weights."""
    return dtype in _FLOATS or (codes and dtype in CODE_TYPES)


CODE_TYPES = frozenset({"int8", "uint8"})
"""Element types of quantized weights of which a part can be computed on its own."""


def as_held(values: Array | None) -> NDArray[np.floating] | None:
    """Return a tensor of numbers that are weights as they are; None for others."""
    if values is None or values.dtype.name not in _FLOATS:
        return None
    # bfloat16 is no floating type of numpy, but of ml_dtypes
    return values  # type: ignore[return-value]


def _address(values: Array) -> int:
    return int(values.__array_interface__["data"][0])


def blank(shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
    """Return an array of zeros that takes no memory as long as it is not all read.

    Raises:
        ValueError: No such array can be.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        room = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize), flags=flags, prot=mmap.PROT_READ)
    except (OSError, OverflowError) as error:
        raise ValueError(f"a tensor of shape {list(shape)}") from error
    return np.ndarray(shape, dtype, room)


def place_in(tensor: NDArray[np.generic], name: str, matrix: FloatArray) -> Place | None:
    """Return which entries of a tensor a matrix is a view of; None where it is a view of none.

    Args:
        tensor: In C order.
        name: Of the tensor.
        matrix: (n_src, n_dst) of any strides.
    """
    size = tensor.dtype.itemsize
    if matrix.dtype != tensor.dtype or not matrix.size or not tensor.flags.c_contiguous:
        return None
    address = matrix.__array_interface__["data"][0] - tensor.__array_interface__["data"][0]
    steps = [stride if n > 1 else size for n, stride in zip(matrix.shape, matrix.strides, strict=True)]
    last = address + sum((n - 1) * step for n, step in zip(matrix.shape, steps, strict=True))
    if address < 0 or min(steps) < size or last + size > tensor.nbytes or any(step % size for step in steps):
        return None
    return Place(tensor=name, offset=address // size, row_step=steps[0] // size, column_step=steps[1] // size)
