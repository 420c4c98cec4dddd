"""Model files that hold what a graph left in them: how they are handed to the readers of graphs.

A store never makes anything open a path that is written in it. Whoever opens model files hands over something
that finds tensors.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emergraph.errors import UsageError
from emergraph.graphstore.text import printable

if TYPE_CHECKING:  # tables are shown without numpy
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class WantedTensor:
    """A tensor whose values stay in a model file, as a store knows it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class TensorFiles(Protocol):
    """An opened model: finds tensors by what a store knows of them."""

    def expect(self, wanted: Sequence[WantedTensor]) -> None:
        """Check what can be checked of all tensors that a graph has left in its model, before one is read.

        Raises:
            InvalidInputError: One is missing or differs.
        """
        ...

    def values(self, wanted: WantedTensor) -> "NDArray[np.generic]":
        """Return the values, in C order, after checking them; no copy is made of what the file holds as such.

        Raises:
            InvalidInputError: The model has no such tensor, or one with other values.
        """
        ...


_GIVEN: ContextVar[TensorFiles | None] = ContextVar("model files", default=None)


@contextmanager
def model_given(files: TensorFiles | None) -> Iterator[None]:
    """Let graphs that are read in the block find the tensors that stayed in their model file."""
    before = _GIVEN.set(files)
    try:
        yield
    finally:
        _GIVEN.reset(before)


def given_model() -> TensorFiles | None:
    """Return what finds tensors here; None where no model was given."""
    return _GIVEN.get()


def required(files: TensorFiles | None, path: Path) -> TensorFiles:
    """Return what finds tensors.

    Args:
        files: What was given.
        path: The store that needs it, for the message.

    Raises:
        UsageError: Nothing was given.
    """
    if files is None:
        raise UsageError(
            f"{printable(str(path))}: the weights of this graph stay in the model file, and are needed here: "
            "add --model FILE (or the folder), what the graph was exported from"
        )
    return files
