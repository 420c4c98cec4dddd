"""Input arrays out of a file, read without trusting it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.weightfiles.reader import read_weights


@dataclass(frozen=True)
class InputFile:
    """Arrays by input name, and the file that they are from."""

    arrays: Mapping[str, NDArray[np.generic]] = field(repr=False)
    source: str
    """File name without folders."""
    sha256: str


def read_input_file(path: str | Path) -> InputFile:
    """Read the values of a model's inputs: an .npz (or .safetensors) with one array per input name.

    Nothing is unpickled, sizes are checked before memory is taken, and stored arrays are views of the file.

    Args:
        path: The file.

    Raises:
        InvalidInputError: The file is missing, damaged, of another format, or not of numbers alone.
        UnsafeInputError: It asks for code or claims absurd sizes.
        LimitError: It is larger than the reader's limits.

    Example:
        >>> read_input_file("inputs.npz").arrays["x"].shape  # doctest: +SKIP
        (500, 1, 28, 28)
    """
    found = read_weights(path)
    shown = quoted(found.source)
    if found.format not in ("npz", "safetensors"):
        raise InvalidInputError(
            f"{shown}: expected arrays in .npz or .safetensors, found a {found.format} file"
        )
    if found.skipped:
        first = found.skipped[0]
        raise InvalidInputError(f"{shown}: array {quoted(first.name)} cannot be an input: {first.reason}")
    arrays = {name: tensor.array() for name, tensor in found.tensors.items()}
    return InputFile(arrays, found.source, found.sha256)
