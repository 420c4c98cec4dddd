"""`emergraph trace`: what the units of a graph do on inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.limits import Limits, held_to
from emergraph.cli.output import Output, View, emit
from emergraph.cli.parsing import parse_axes, parse_shapes, parse_values
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import GraphChoice, StorePath
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.exporters.traces.prepare import TraceOptions
    from emergraph.exporters.traces.record import TraceSummary
    from emergraph.exporters.traces.samples import RandomInputs


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the model runs on, beside a file of inputs."""

    random: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Run on N random samples instead of INPUTS.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of random samples.")] = 0
    input: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An input that all samples share; may be repeated."),
    ] = None
    input_shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1,3,64,64", help="Shape of one random sample; may be repeated."),
    ] = None
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
            raise UsageError("give either a file of INPUTS or --random N")
        from emergraph.exporters.traces.samples import RandomInputs

        return RandomInputs(self.random, self.seed)

    def options(self, name: str | None, limits: Limits) -> "TraceOptions":
        """The library's options."""
        from emergraph.exporters.runtime.limits import RunLimits
        from emergraph.exporters.traces.prepare import TraceOptions

        return TraceOptions(
            name=name,
            batch_size=self.batch,
            n_values=self.keep,
            sample_axes=parse_axes(self.sample_axis or ()),
            inputs=parse_values(self.input or ()),
            input_shapes=parse_shapes(self.input_shape or ()),
            run_limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
        )


@command(
    examples="""
    emergraph trace net.duckdb inputs.npz --model model.onnx
    emergraph trace net.duckdb --model model.onnx --random 100 --seed 1
    emergraph trace net.duckdb clips.npz --model vad.onnx --input sr=16000 --sample-axis state=1
    """
)
def trace(
    store: StorePath,
    inputs: Annotated[
        Path | None, typer.Argument(metavar="INPUTS", help="An .npz file with one array per input name.")
    ] = None,
    *,
    model: Annotated[
        Path, typer.Option(metavar="FILE", help="The model file that the graph was exported from.")
    ],
    graph: GraphChoice = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the trace.  [default: the name of the inputs]")
    ] = None,
    samples: Samples,
    limits: Limits,
    output: Output,
) -> None:
    """Run the model on inputs and keep what each unit of its graph does.

    Per sample a unit has one number: the mean of its activation over space and time.
    """
    given = samples.chosen(inputs)
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    with held_to(limits), progress_bar(f"running {model.name}", output) as progress:
        options = samples.options(name, limits)
        summary = chosen.trace(given, model=model, options=options, progress=progress)
    emit(_view(summary), output)


def _view(summary: "TraceSummary") -> View:
    facts = {
        "trace": summary.name,
        "id": summary.trace,
        "samples": summary.n_samples,
        "samples with values": summary.n_values,
        "layers": summary.n_layers,
        "units": summary.n_units,
        "batches": summary.batching,
        "seconds": round(summary.seconds, 2),
    }
    reasons: dict[str, list[str]] = {}
    for layer, why in summary.left_out.items():
        reasons.setdefault(why, []).append(layer)
    notes = [f"{_named(layers)} no activations: {why}" for why, layers in reasons.items()]
    return View(facts=facts, document=summary.to_dict(), notes=notes)


def _named(layers: list[str]) -> str:
    """A few names out of a list that may be long."""
    if len(layers) == 1:
        return f"layer {layers[0]} has"
    shown = ", ".join(layers[:3])
    return f"{len(layers)} layers ({shown}{', ...' if len(layers) > 3 else ''}) have"
