"""Model files that hold what a graph left in them: how they are handed to the readers of graphs.

A store never makes anything open a path that is written in it. Whoever opens model files hands over something
that finds tensors.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emergraph.errors import UsageError
from emergraph.graphstore.text import printable, storable

if TYPE_CHECKING:  # tables are shown without numpy
    import numpy as np
    from numpy.typing import NDArray

    from emergraph.graphstore.inplace import Entries


@dataclass(frozen=True, kw_only=True)
class WantedTensor:
    """A tensor whose values stay in a model file, as a store knows it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    made: "Coding | None" = None
    """How its values follow from what the file holds; None where the file holds them as they are."""


@dataclass(frozen=True)
class Coding:
    """How numbers follow from tensors of a model file: an operation on them, or on what others give."""

    op: str
    args: tuple[int | str, ...]
    parts: "tuple[Coding | WantedTensor, ...]"

    def tensors(self) -> Iterator[WantedTensor]:
        """All tensors that the numbers follow from."""
        for part in self.parts:
            yield from part.tensors() if isinstance(part, Coding) else [part]

    def words(self) -> Iterator[str]:
        """What is done, without sizes: codings with the same words take the same time for a number."""
        yield from (self.op, *(arg for arg in self.args if isinstance(arg, str)))
        for part in self.parts:
            yield from part.words() if isinstance(part, Coding) else [part.dtype]

    def text(self, *, whole: bool) -> str:
        """Return it as a store holds it.

        Args:
            whole: Describe the tensors, which are those of the file; else they are named, as tensors of the
                graph.
        """
        return json.dumps(_plain(self, whole=whole), separators=(",", ":"))


def _plain(part: Coding | WantedTensor, *, whole: bool) -> dict[str, object]:
    if isinstance(part, Coding):
        parts = [_plain(one, whole=whole) for one in part.parts]
        return {"op": part.op, "args": list(part.args), "parts": parts}
    about = {"dtype": part.dtype, "shape": list(part.shape), "sha256": part.sha256} if whole else {}
    return {"tensor": storable(part.name), **about}


_MAX_CODING = 1 << 24
_DEPTH = 20


def coding_of(text: str, tensors: Mapping[str, WantedTensor]) -> Coding:
    """Return the coding that `Coding.text` has written.

    Args:
        text: Out of a store.
        tensors: Those of the graph, by name.

    Raises:
        ValueError: It is something else, or names a tensor that the graph does not have.
    """
    if len(text) > _MAX_CODING:
        raise ValueError(f"a coding of {len(text)} characters")
    try:
        found = _parsed(json.loads(text), tensors, _DEPTH)
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"a coding that is none: {error}") from error
    if isinstance(found, WantedTensor):
        raise ValueError("a coding without an operation")  # noqa: TRY004 - of a file, not of a caller
    return found


def _parsed(node: object, tensors: Mapping[str, WantedTensor], depth: int) -> Coding | WantedTensor:
    if not isinstance(node, dict) or not depth:
        raise ValueError("a coding that is no object, or too deep")
    if "op" in node:
        op, args = node["op"], tuple(node["args"])
        if not isinstance(op, str) or not all(isinstance(arg, int | str) for arg in args):
            raise ValueError("a coding with an operation that is none")
        return Coding(op, args, tuple(_parsed(part, tensors, depth - 1) for part in node["parts"]))
    name = node["tensor"]
    if "sha256" not in node:
        return tensors[name]
    dtype, shape, sha256 = node["dtype"], tuple(node["shape"]), node["sha256"]
    if not all(isinstance(text, str) for text in (name, dtype, sha256)):
        raise ValueError("a coding with a tensor that is none")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a coding with a shape that is none")
    return WantedTensor(name=name, dtype=dtype, shape=shape, sha256=sha256)


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
            ValueError: How they are made is not defined.
        """
        ...

    def entries(self, coding: Coding) -> "Entries":
        """Return numbers that follow from tensors of the model, computed when they are asked for.

        Raises:
            InvalidInputError: The model lacks one of the tensors, or has one with other values.
            ValueError: The coding is not defined, or does not fit its tensors.
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
