"""What is shown of a survey of a landscape."""

from typing import TYPE_CHECKING

from emergraph.analysis.landscape.saving import layers_frame, statistics_frame
from emergraph.analysis.view import View

if TYPE_CHECKING:
    from emergraph.analysis.landscape.modelsurvey import ModelSurvey
    from emergraph.analysis.landscape.surveyresult import Survey


def survey_view(result: "ModelSurvey", run: int | None = None) -> View:
    """Return what is shown of a survey, which a store may have kept."""
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
