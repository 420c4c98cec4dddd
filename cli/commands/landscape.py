"""`emergraph landscape`: how rugged the loss is around a model's own weights."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.landscape.options import (
    ModelOptions,
    ParallelOptions,
    SurveyOptions,
    TargetOptions,
)
from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit, say
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import ResultStore, refuse_store
from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.optionforms import name_or_id
from emergraph.options import FileRole

if TYPE_CHECKING:
    from emergraph.analysis.landscape.sweep import Progress


@command(
    examples="""
    emergraph landscape model.onnx
    emergraph landscape model.onnx --inputs test.npz --target labels --store net.duckdb
    emergraph landscape vad.onnx --input sr=16000 --norm element --budget 5m --format json
    emergraph landscape model.onnx --masks 8 --optima 5 --resume model.part.npz
    emergraph landscape model.onnx --to other.onnx --inputs test.npz --target labels
    emergraph landscape package.module:factory --weights model.safetensors --hessian 5
    """
)
def landscape(  # noqa: PLR0913 - a parameter for each group of options
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="ONNX file, or package.module:factory of a PyTorch module."),
        FileRole.MODEL,
    ],
    *,
    keeping: ResultStore,
    graph: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Graph of the store that belongs to the model.  [default: the one of the same file]",
        ),
    ] = None,
    inputs: InputOptions,
    target: TargetOptions,
    how: ModelOptions,
    parallel: ParallelOptions,
    options: SurveyOptions,
    links: Links,
    limits: Limits,
    output: Output,
) -> None:
    """Measure how rugged the loss landscape is around a model's own weights; no labels needed."""
    from emergraph import api
    from emergraph.analysis.landscape.saving import check_store, has_graph, save_model_survey
    from emergraph.analysis.landscape.views import survey_view
    from emergraph.exporters.runtime.limits import RunLimits

    store = keeping.store
    named = None if graph is None else name_or_id(graph)
    refuse_store(model, "landscape")
    if graph is not None and store is None:
        raise UsageError("--graph names a graph of --store; give that, too")
    if store is not None:
        check_store(store, named)
    how = replace(
        how,
        input_shapes=inputs.shapes(),
        samples=how.samples if inputs.inputs is None else None,
        root=links.root,
        limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
        source=inputs.kept() | target.kept(),
    )
    with progress_bar(f"evaluating {Path(model).name}", output) as update:

        def moved(progress: "Progress") -> None:
            if progress.done == 0 or progress.seconds == 0:
                say(f"{progress.total} evaluations, about {progress.seconds_left:.0f} s", output)
            update(progress.done, progress.total)

        result = api.landscape(
            model,
            *(options, how, parallel, target),
            inputs=inputs.arrays(),
            progress=moved,
        )
    run = None
    if store is not None:
        run = save_model_survey(store, result, graph=named, any_name=keeping.any_name)
        if not has_graph(store, run):
            say(
                f"Note: {store.name} has no graph of this model, so a report shows the run with none; "
                "export the model into it, or give --graph NAME, and run again",
                output,
            )
    emit(survey_view(result, run), output)
