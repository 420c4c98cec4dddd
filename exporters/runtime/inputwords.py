"""Inputs of a model on the command line: files, and `NAME=VALUE` for values, shapes and axes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from emergraph.errors import UsageError
from emergraph.optionforms import name_and_value
from emergraph.options import Options, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class InputWords(Options):
    """Values and shapes of single inputs."""

    HEADING: ClassVar = "Inputs"

    input: tuple[str, ...] = option(
        default=(),
        help="Value of one input: a number or a list; may be repeated.",
        metavar="NAME=VALUE",
        repeatable=True,
    )
    input_shape: tuple[str, ...] = option(
        default=(),
        help="Shape of one input; may be repeated.",
        metavar="NAME=1,3,64,64",
        repeatable=True,
    )

    def values(self) -> "dict[str, NDArray[np.generic]]":
        """The values by input name."""
        return parse_values(self.input)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes by input name."""
        return parse_shapes(self.input_shape)


class InputOptions(InputWords):
    """Values and shapes of inputs; what is not given is synthetic and small."""

    inputs: Path | None = option(
        default=None, help="Values of inputs, one array per input name.", metavar="FILE.npz"
    )

    def arrays(self) -> "dict[str, NDArray[np.generic]]":
        """The values by input name; --input wins over --inputs.

        Raises:
            InvalidInputError: The file of --inputs is missing, damaged, or of another format.
        """
        given = self.values()
        if self.inputs is None:
            return given
        from emergraph.exporters.runtime.inputfile import read_input_file

        return {**read_input_file(self.inputs).arrays, **given}


def parse_shapes(entries: Sequence[str]) -> "dict[str, tuple[int, ...]]":
    """Return shapes by input name from entries such as "pixels=1,3,64,64".

    Raises:
        UsageError: An entry has another form, or a name comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        name, text = name_and_value(entry, "--input-shape NAME=1,3,64,64", shapes)
        sizes = text.split(",") if text else []
        if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
            raise UsageError(f"--input-shape {entry}: expected sizes of at least 1, such as {name}=1,3,64,64")
        shapes[name] = tuple(map(int, sizes))
    return shapes


def parse_values(entries: Sequence[str]) -> "dict[str, NDArray[np.generic]]":
    """Return arrays by input name from entries such as "sr=16000", "mask=1,1,0" or "x=[[1,2],[3,4]]".

    Raises:
        UsageError: An entry has another form, or a name comes twice.
    """
    import numpy as np

    arrays: dict[str, NDArray[np.generic]] = {}
    for entry in entries:
        name, text = name_and_value(entry, "--input NAME=VALUE", arrays)
        try:
            value = json.loads(f"[{text}]" if "," in text and not text.startswith("[") else text)
            array = np.asarray(value)
        except ValueError:
            array = np.asarray(None)
        if array.dtype.kind not in "biuf":
            raise UsageError(f"--input {entry}: expected numbers or true/false, such as {name}=16000")
        arrays[name] = array
    return arrays
