"""How relations between models are sought."""

from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.errors import UsageError
from emergraph.options import Options, option

if TYPE_CHECKING:
    from emergraph.exporters.runtime.inputfile import InputFile
    from emergraph.exporters.traces.samples import RandomInputs


class LineageOptions(Options):
    """When two models are said to be related, and how many are compared."""

    level: float = option(
        default=1e-6, help="Corrected p value below which two models are related.", above=0.0, most=0.05
    )
    neighbours: int = option(
        default=12, help="Models that each matrix is compared with, the nearest by fingerprint.", least=1
    )
    inputs: Path | None = option(
        default=None,
        help="Run ONNX models on these samples (.npz, an array per input): whose outputs follow others'?",
        metavar="FILE.npz",
    )
    random: int | None = option(
        default=None, help="Run them on N random samples instead of --inputs.", metavar="N", least=2
    )
    seed: int = option(default=0, help="Seed of searches, random samples and the order of ties.", least=0)

    @property
    def samples(self) -> "InputFile | RandomInputs | None":
        """What models are run on, if they are.

        Raises:
            UsageError: Both kinds of samples are given.
            InvalidInputError: The file cannot be read.
        """
        if self.random is None and self.inputs is None:
            return None
        if self.random is not None and self.inputs is not None:
            raise UsageError("give one of --inputs FILE.npz and --random N")
        if self.inputs is not None:
            from emergraph.exporters.runtime.inputfile import read_input_file

            return read_input_file(self.inputs)
        from emergraph.exporters.traces.samples import RandomInputs

        return RandomInputs(self.random or 0, self.seed)
