"""The options that give a model's inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.parsing import parse_shapes, parse_values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """Values and shapes of inputs; what is not given is made up, small."""

    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Values of inputs, one array per input name.")
    ] = None
    input: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value of one input: a number or a list; may be repeated."),
    ] = None
    input_shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1,3,64,64", help="Shape of one input; may be repeated."),
    ] = None

    def arrays(self) -> "dict[str, NDArray[np.generic]]":
        """The values by input name; --input wins over --inputs.

        Raises:
            InvalidInputError: The file of --inputs is missing, damaged, or of another format.
        """
        given = parse_values(self.input or ())
        if self.inputs is None:
            return given
        from emergraph.exporters.runtime.inputfile import read_input_file

        return {**read_input_file(self.inputs).arrays, **given}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes by input name."""
        return parse_shapes(self.input_shape or ())
