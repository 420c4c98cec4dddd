"""Samples and their classes as a user gives them: arrays, or files that hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputfile import read_input_file

Array = NDArray[np.generic]
IN_MEMORY = "(in memory)"
"""What a run keeps of what was given as an object and has no name."""


def kept_name(given: object) -> str | None:
    """Return what a run keeps of something that was given: a file's name, or that it was no file.

    Example:
        >>> kept_name("/home/me/test.npz"), kept_name(None), kept_name([1.0])
        ('test.npz', None, '(in memory)')
    """
    if given is None:
        return None
    return Path(given).name if isinstance(given, str | Path) else IN_MEMORY


@dataclass(frozen=True, kw_only=True)
class LabelledSamples:
    """Samples, and the class of each; files are read at once."""

    inputs: Mapping[str, Array] | str | Path | None = None
    """Samples by input name, or a file of them."""
    labels: Array | str | Path | None = None
    """(n_samples,) class of each sample, or of each row of the output; or a file with that array alone."""
    ignore_label: int | None = None
    """Label that stands for no class; such samples do not count for the accuracy."""

    def __post_init__(self) -> None:
        _ = self.arrays, self.classes

    @cached_property
    def arrays(self) -> Mapping[str, Array] | None:
        """The samples.

        Raises:
            InvalidInputError: Their file is missing, damaged, or of another format.
        """
        if isinstance(self.inputs, str | Path):
            return read_input_file(self.inputs).arrays
        return self.inputs

    @cached_property
    def classes(self) -> Array | None:
        """The classes.

        Raises:
            InvalidInputError: Their file is missing, damaged, or of another format.
            UsageError: It holds more than one array.
        """
        if not isinstance(self.labels, str | Path):
            return self.labels
        arrays = list(read_input_file(self.labels).arrays.values())
        if len(arrays) != 1:
            raise UsageError(f"--labels: expected a file with one array, found {len(arrays)}")
        return arrays[0]

    def kept(self) -> dict[str, object]:
        """Return what a run keeps of them."""
        return {
            "inputs": kept_name(self.inputs),
            "labels": kept_name(self.labels),
            "ignore_label": self.ignore_label,
        }
