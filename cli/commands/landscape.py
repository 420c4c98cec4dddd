"""`emergraph landscape`: how rugged the loss is around a model's own weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.inputs import ModelInputs
from emergraph.cli.landscapeoptions import Evaluation, Measures
from emergraph.cli.limits import Limits, held_to
from emergraph.cli.output import Output, View, emit, say
from emergraph.cli.progress import progress_bar

if TYPE_CHECKING:
    from emergraph.analysis.landscape.modelsurvey import ModelSurvey
    from emergraph.analysis.landscape.sweep import Progress


@command(
    examples="""
    emergraph landscape model.onnx
    emergraph landscape model.onnx --inputs test.npz --target labels --store net.duckdb
    emergraph landscape vad.onnx --input sr=16000 --norm element --budget 5m --format json
    emergraph landscape model.onnx --masks 8 --resume model.part.npz
    """
)
def landscape(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model file (ONNX).")],
    *,
    store: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Keep the result in this store; it is made when missing."),
    ] = None,
    inputs: ModelInputs,
    evaluation: Evaluation,
    measures: Measures,
    limits: Limits,
    output: Output,
) -> None:
    """Measure how rugged the loss landscape is around a model's own weights; no labels needed."""
    from emergraph.analysis.landscape.modelsurvey import survey_model
    from emergraph.analysis.landscape.saving import save_model_survey

    options = measures.options()
    with held_to(limits), progress_bar(f"evaluating {model.name}", output) as update:

        def moved(progress: "Progress") -> None:
            if progress.done == 0 or progress.seconds == 0:
                say(f"{progress.total} evaluations, about {progress.seconds_left:.0f} s", output)
            update(progress.done, progress.total)

        result = survey_model(
            model, options, evaluation.options(inputs, limits), checkpoint=evaluation.resume, progress=moved
        )
        run = save_model_survey(store, result) if store is not None else None
    emit(_view(result, run), output)


def _view(result: "ModelSurvey", run: int | None) -> View:
    from emergraph.analysis.landscape.saving import layers_frame, statistics_frame

    survey = result.survey
    facts: dict[str, object] = {
        "model": result.source,
        "loss": survey.loss_name,
        "samples": f"{result.samples} given" if result.probes_seed is None else f"{result.samples} made up",
        "parameters moved": survey.n_params,
        "directions scaled by": str(survey.options.norm),
        "loss at the model's weights": survey.base_loss,
        "noise floor": survey.noise_floor,
        "seed": survey.options.seed,
        "evaluations per second": round(result.rates[result.variant], 1),
        "seconds": round(result.seconds, 2),
    }
    if run is not None:
        facts["run"] = run
    if survey.masks is not None:
        masks = survey.masks.summary
        facts["masks"] = (
            f"{2**masks.m}, {100 * masks.additive_share:.1f} % of the variance additive, "
            f"{masks.n_minima} minima, {survey.masks.lon.n_funnels} funnels"
        )
    rows = statistics_frame(survey).select("statistic", "mean", "low", "high", "n", "null_value")
    layers = layers_frame(survey).select("tensor", "operation", "n_params", "rise", "low", "high")
    return View(
        rows=rows,
        details=layers if layers.height else None,
        facts=facts,
        document=result.to_dict(),
        notes=list(survey.notes),
    )
