"""The options of `emergraph trace`: what the model runs on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import InputWords, parse_axes

if TYPE_CHECKING:
    from emergraph.exporters.traces.prepare import TraceOptions
    from emergraph.exporters.traces.samples import RandomInputs


@dataclass(frozen=True, kw_only=True)
class TraceSamples:
    """What the model runs on, beside a file of inputs."""

    random: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Run on N random samples instead of INPUTS.")
    ] = None
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="FILE",
            help="Take activations that were recorded elsewhere (.npz, .safetensors, .parquet, one array per "
            "layer or tensor name) instead of running the model.",
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of random samples.")] = 0
    sample_axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=AXIS", help="Axis of an input along which samples are, or none; may be repeated."
        ),
    ] = None
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Most samples per run.")] = 32
    keep: Annotated[
        int, typer.Option(metavar="N", min=0, help="Keep the values of the first N samples, too.")
    ] = 1024

    def chosen(self, inputs: Path | None) -> "Path | RandomInputs":
        """The file of inputs, or the wish for random ones; exactly one of them must be given."""
        if inputs is not None and self.random is None:
            return inputs
        if inputs is not None or self.random is None:
            raise UsageError("give one of INPUTS, --random N and --import FILE")
        from emergraph.exporters.traces.samples import RandomInputs

        return RandomInputs(self.random, self.seed)

    def options(self, name: str | None, words: InputWords, limits: Limits, links: Links) -> "TraceOptions":
        """The library's options."""
        from emergraph.exporters.runtime.limits import RunLimits
        from emergraph.exporters.traces.prepare import TraceOptions

        return TraceOptions(
            name=name,
            batch_size=self.batch,
            n_values=self.keep,
            sample_axes=parse_axes(self.sample_axis or ()),
            inputs=words.values(),
            input_shapes=words.shapes(),
            root=links.root,
            run_limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
        )
