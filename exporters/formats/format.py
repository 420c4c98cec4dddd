"""What the table of formats says about each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from emergraph.exporters.formats.sample import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Reader(StrEnum):
    """Which part of the program reads a format."""

    ONNX = "onnx"
    WEIGHTS = "weights"
    STORE = "store"
    NONE = "none"
    """It is recognised, and not read."""


class Inside(StrEnum):
    """How the parts of a file are found where something may be hidden in it."""

    PICKLE = "pickle"
    """One pickle after the other."""
    ARRAY = "array"
    """A numpy array, which holds a pickle where its elements are objects."""
    ZIP = "zip"
    TAR = "tar"
    STREAM = "stream"
    """Compressed as a whole."""
    NUMBERS = "numbers"
    """Nothing but numbers, of which no loader makes anything else."""
    BYTES = "bytes"
    """No parts; a pickle or an archive may still stand somewhere in the bytes."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of files: one of the table, or what an entry point of `emergraph.formats` names.

    Example:
        >>> Format(
        ...     name="toy",
        ...     title="a toy file",
        ...     step="export it: emergraph export FILE STORE",
        ...     sniff=lambda sample: sample.head.startswith(b"TOY1"),
        ...     read=lambda content: {"weight": np.frombuffer(content[4:], np.float32).reshape(2, -1)},
        ... ).name
        'toy'
    """

    name: str
    """Short and stable, for code: "torch_zip", "gguf"."""
    title: str
    """As a message names it, with its article: "a GGUF file"."""
    step: str
    """What to do instead where a model is expected and this is found."""
    sniff: Callable[[Sample], bool]
    """Whether a file is of the format; looks at a bounded part of it and raises nothing."""
    reader: Reader = Reader.NONE
    inside: Inside = Inside.BYTES
    read: "Callable[[memoryview], Mapping[str, NDArray[np.generic]]] | None" = None
    """Of a plug-in: the weights of a file by name, from its bytes. Called in a child process that has limits
    and no network. Weights with two axes are (outputs, inputs), as torch has them."""

    @property
    def searched(self) -> bool:
        """Whether its bytes are searched for pickles: readers of models refuse what does not belong there."""
        return self.inside is Inside.BYTES and self.reader is Reader.NONE
