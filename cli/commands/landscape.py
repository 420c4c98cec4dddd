"""`emergraph landscape`: how rugged the loss is around a model's own weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.landscape.options import (
    Backend,
    LossKind,
    ModelOptions,
    ParallelOptions,
    SurveyOptions,
    TargetOptions,
)
from emergraph.analysis.view import View
from emergraph.choices import unknown
from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit, say
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import ResultStore, name_or_id, refuse_store
from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.options import FileRole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emergraph.analysis.landscape.modelsurvey import ModelSurvey
    from emergraph.analysis.landscape.surveyresult import Survey
    from emergraph.analysis.landscape.sweep import Progress


# What `emergraph landscape` evaluates on and where, from its options.


def evaluation(
    how: ModelOptions,
    inputs: InputOptions,
    target: TargetOptions,
    parallel: ParallelOptions,
    *,
    limits: Limits,
    links: Links,
) -> ModelOptions:
    """The options of an evaluation with what files hold.

    Raises:
        UsageError: The target is not among the inputs.
        InvalidInputError: The file of inputs cannot be read.
    """
    from emergraph.analysis.landscape.sweep import Parallelism
    from emergraph.exporters.runtime.limits import RunLimits

    arrays = inputs.arrays()
    backend = parallel.backend
    labelled = how.loss is LossKind.AUTO and target.target is not None
    return replace(
        how,
        inputs={name: array for name, array in arrays.items() if name != target.target},
        input_shapes=inputs.shapes(),
        samples=how.samples if inputs.inputs is None else None,
        targets=_target(target.target, arrays),
        loss=LossKind.CROSS_ENTROPY if labelled else how.loss,
        root=links.root,
        limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
        parallelism=None if backend is None else Parallelism(backend=backend, n_jobs=parallel.jobs),
        source=inputs.kept() | target.kept(),
    )


@contextmanager
def connected(parallel: ParallelOptions) -> Iterator[None]:
    """Keep the cluster of --backend, if it is one, while the body runs.

    Raises:
        UsageError: Nothing answers there.
        MissingExtraError: The backend is not installed.
    """
    from emergraph.analysis.landscape.cluster import cluster

    if parallel.backend not in (Backend.DASK, Backend.RAY):
        yield
        return
    with cluster(parallel.backend, address=parallel.cluster, n_jobs=parallel.jobs):
        yield


def _target(name: str | None, arrays: "dict[str, NDArray[np.generic]]") -> "NDArray[np.generic] | None":
    if name is None:
        return None
    if name not in arrays:
        raise UsageError(unknown("--target", name, sorted(arrays)))
    return arrays[name]


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
    from emergraph.analysis.landscape.modelsurvey import survey_model
    from emergraph.analysis.landscape.saving import check_store, has_graph, save_model_survey

    store = keeping.store
    refuse_store(model, "landscape")
    if graph is not None and store is None:
        raise UsageError("--graph names a graph of --store; give that, too")
    if store is not None:
        check_store(store, name_or_id(graph))
    with (
        connected(parallel),
        progress_bar(f"evaluating {Path(model).name}", output) as update,
    ):

        def moved(progress: "Progress") -> None:
            if progress.done == 0 or progress.seconds == 0:
                say(f"{progress.total} evaluations, about {progress.seconds_left:.0f} s", output)
            update(progress.done, progress.total)

        result = survey_model(
            model,
            options,
            evaluation(how, inputs, target, parallel, limits=limits, links=links),
            checkpoint=parallel.resume,
            progress=moved,
        )
        run = None
        if store is not None:
            run = save_model_survey(store, result, graph=name_or_id(graph), any_name=keeping.any_name)
            if not has_graph(store, run):
                say(
                    f"Note: {store.name} has no graph of this model, so a report shows the run with none; "
                    "export the model into it, or give --graph NAME, and run again",
                    output,
                )
    emit(_view(result, run), output)


def _view(result: "ModelSurvey", run: int | None) -> View:
    from emergraph.analysis.landscape.saving import layers_frame, statistics_frame

    survey = result.survey
    facts: dict[str, object] = {
        "model": result.source,
        "loss": survey.loss_name,
        "samples": f"{result.samples} given" if result.probes_seed is None else f"{result.samples} generated",
        "parameters perturbed": survey.n_params,
        "directions scaled by": str(survey.options.norm),
        "loss at the model's weights": survey.base_loss,
        "noise floor": survey.noise_floor,
        "seed": survey.options.seed,
        "evaluations per second": round(result.rates[result.variant], 1),
        "seconds": round(result.seconds, 2),
    }
    if run is not None:
        facts["run"] = run
    facts |= _found(survey)
    rows = statistics_frame(survey).select("statistic", "mean", "low", "high", "n", "null_value")
    layers = layers_frame(survey).select(
        "tensor",
        "operation",
        "n_params",
        "rise",
        "low",
        "high",
        "excess_ruggedness",
        "excess_low",
        "excess_high",
    )
    return View(
        rows=rows,
        details=layers if layers.height else None,
        facts=facts,
        document=result.to_dict(),
        notes=list(survey.notes),
    )


def _found(survey: "Survey") -> dict[str, str]:
    """One line for each part that was asked for."""
    extras, said = survey.extras, {}
    if survey.masks is not None:
        masks, lon = survey.masks.summary, survey.masks.lon
        said["masks"] = (
            f"{2**masks.m}, {100 * masks.additive_share:.1f} % of the variance additive, "
            f"{masks.n_minima} minima, {lon.n_funnels} funnels"
        )
    if extras.line is not None:
        barrier = extras.line.barrier
        said[f"line to {extras.line.other}"] = (
            f"barrier {barrier.barrier:.4g} at {barrier.at:.2f}, {barrier.n} points, "
            f"loss {barrier.ends[0]:.4g} and {barrier.ends[1]:.4g} at the ends"
        )
    if extras.trajectory is not None:
        pca = extras.trajectory.pca
        shares = ", ".join(f"{100 * share:.1f} %" for share in pca.explained)
        null = ", ".join(f"{100 * share:.1f} %" for share in pca.random_walk)
        said["run"] = f"first components explain {shares} (a random walk: {null})"
    if extras.curvature is not None:
        found = extras.curvature.extremes
        met = "converged" if found.converged else "not all converged"
        said["Hessian"] = f"{found.largest[0]:.4g} to {found.smallest[0]:.4g}, {met}, all parameters"
    if extras.optima is not None:
        lon, sampled = extras.optima.summary, extras.optima.sampled
        how = "all weights" if extras.optima.gradients else f"a random {extras.optima.dimensions}-D subspace"
        said["local optima"] = (
            f"{lon.n_optima} in {lon.n_funnels} funnels from {sampled.descents} descents in {how}, "
            f"{sampled.unexplored} more not explored"
        )
    return said
