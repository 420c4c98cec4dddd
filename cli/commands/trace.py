"""`emergraph trace`: what the units of a graph do on inputs."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import GraphChoice, StorePath
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.traces.options import SampleOptions, TraceOptions
from emergraph.options import FileRole

if TYPE_CHECKING:
    from emergraph.exporters.traces.record import TraceSummary


@command(
    examples="""
    emergraph trace net.duckdb inputs.npz --model model.onnx
    emergraph trace net.duckdb --model model.onnx --random 100 --seed 1
    emergraph trace net.duckdb clips.npz --model vad.onnx --input sr=16000 --sample-axis state=1
    emergraph trace net.duckdb --import activations.npz
    """
)
def trace(  # noqa: PLR0913 - a parameter for each group of options
    store: StorePath,
    inputs: Annotated[
        Path | None, typer.Argument(metavar="INPUTS", help="An .npz file with one array per input name.")
    ] = None,
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER", help="The model file or folder that the graph was exported from."
        ),
        FileRole.MODEL,
    ] = None,
    graph: GraphChoice = None,
    samples: SampleOptions,
    options: TraceOptions,
    words: InputWords,
    links: Links,
    limits: Limits,
    output: Output,
) -> None:
    """Run the model on inputs and keep what each unit of its graph does.

    Statistics are over samples and positions: a channel has a value in each pixel, and all of them count.
    """
    from emergraph import api

    chosen = api.open_graph(store, graph)
    doing_what = "tracing" if model is None else f"running {model.name}"
    with progress_bar(doing_what, output) as progress:
        asked = replace(
            options,
            inputs=words.values(),
            input_shapes=words.shapes(),
            root=links.root,
            run_limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
        )
        summary = chosen.trace(inputs, samples, asked, model=model, progress=progress)
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
    if summary.open_shapes:
        from emergraph.exporters.runtime.sizes import open_shapes_note

        notes.append(open_shapes_note(summary.open_shapes))
    finding = (
        f"What {summary.n_units:,} units of {summary.n_layers} layers do on {summary.n_samples} samples "
        f"is in the store, as trace '{summary.name}'."
    )
    return View(finding=finding, facts=facts, document=summary.to_dict(), notes=notes)


def _named(layers: list[str]) -> str:
    """A few names out of a list that may be long."""
    if len(layers) == 1:
        return f"layer {layers[0]} has"
    shown = ", ".join(layers[:3])
    return f"{len(layers)} layers ({shown}{', ...' if len(layers) > 3 else ''}) have"
