"""Tensors as the files of a model hold them, so that a graph can leave their values, and its edges, there."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.placements import IN_PLACE_EDGES, EdgePlacement
from emergraph.graphstore.inplace import place_in
from emergraph.graphstore.records import FilePlace, Place

Array = NDArray[np.generic]

_FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})


@dataclass(frozen=True)
class FileTensors:
    """The tensors of a model's files that are there as they are: little-endian, in C order."""

    files: Mapping[str, memoryview] = field(repr=False)
    """Mapped files by their names, without folders."""
    view: Callable[[str], Array | None]
    """Gives the values of a tensor without a copy; None where the file holds something else."""

    def in_file(self, name: str) -> FilePlace | None:
        """Return where a tensor's values are; None where they are in no file."""
        values = self.view(name)
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


def leaves_edges(placement: EdgePlacement, views: Iterable[Array | None]) -> bool:
    """Whether the edges of a graph stay in the file.

    Args:
        placement: What was asked for.
        views: The tensors of the model, as the file holds them; None for others.
    """
    if placement is not EdgePlacement.AUTO:
        return placement is EdgePlacement.IN_PLACE
    matrices = (v for v in views if v is not None and v.ndim > 1 and v.dtype.name in _FLOATS)
    return sum(math.prod(v.shape) for v in matrices) > IN_PLACE_EDGES


def as_held(values: Array | None) -> NDArray[np.floating] | None:
    """Return a tensor of numbers that are weights as they are; None for others."""
    if values is None or values.dtype.name not in _FLOATS:
        return None
    # bfloat16 is no floating type of numpy, but of ml_dtypes
    return values  # type: ignore[return-value]


def _address(values: Array) -> int:
    return int(values.__array_interface__["data"][0])
