"""What is asked of an activation trace."""

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from emergraph.errors import UsageError
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.optionforms import parse_axes
from emergraph.options import Options, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from emergraph.exporters.onnxfile.limits import ReadLimits
    from emergraph.exporters.traces.samples import RandomInputs


class SampleOptions(Options):
    """What the model runs on, beside a file of inputs."""

    HEADING: ClassVar = "Inputs"

    random: int | None = option(
        default=None, help="Run on N random samples instead of INPUTS.", metavar="N", least=1
    )
    recorded: Path | None = option(
        default=None,
        help="Take activations that were recorded elsewhere (.npz, .safetensors, .parquet, one array per "
        "layer or tensor name) instead of running the model.",
        flag="--import",
        metavar="FILE",
    )
    seed: int = option(default=0, help="Seed of random samples.", least=0)
    sample_axis: tuple[str, ...] = option(
        default=(),
        help="Axis of an input along which samples are, or none; may be repeated.",
        metavar="NAME=AXIS",
        repeatable=True,
    )

    def chosen(self, inputs: Path | None) -> "Path | RandomInputs":
        """Return the file of inputs, or the wish for random ones.

        Raises:
            UsageError: Both are given, or none.
        """
        if inputs is not None and self.random is None:
            return inputs
        if inputs is not None or self.random is None:
            raise UsageError("give one of INPUTS, --random N and --import FILE")
        from emergraph.exporters.traces.samples import RandomInputs

        return RandomInputs(self.random, self.seed)

    @property
    def axes(self) -> dict[str, int | None]:
        """Axes of samples by input."""
        return parse_axes(self.sample_axis)


class TraceOptions(Options):
    """What decides a trace besides the graph and the samples."""

    name: str | None = option(default=None, help="Name of the trace.", default_text="the name of the inputs")
    batch_size: int = option(
        default=32, help="Maximum number of samples per run.", flag="--batch", metavar="N", least=1
    )
    n_values: int = option(
        default=1024, help="Keep the values of the first N samples, too.", flag="--keep", metavar="N", least=0
    )
    sample_axes: "Mapping[str, int | None]" = field(default_factory=dict)
    """By input: the axis that samples are along; None for an input that all samples share."""
    inputs: "Mapping[str, NDArray[np.generic]]" = field(default_factory=dict)
    """Inputs that all samples share, such as a sampling rate."""
    input_shapes: "Mapping[str, tuple[int, ...]]" = field(default_factory=dict)
    """Shapes of one random sample."""
    root: Path | None = None
    """Folder that symbolic links of external data may lead to."""
    read_limits: "ReadLimits | None" = None
    """Of the model's file; None for the usual ones."""
    run_limits: RunLimits = field(default_factory=RunLimits)
