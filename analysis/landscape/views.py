"""What is shown of a survey of a landscape."""

from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.landscape.analysis import beside_a_bowl
from emergraph.analysis.landscape.saving import layers_frame, statistics_frame
from emergraph.analysis.view import BRIEF_ROWS, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emergraph.analysis.landscape.modelsurvey import ModelSurvey
    from emergraph.analysis.landscape.surveyresult import Survey

_SHOWN = ("mean", "low", "high", "null_value")
STATISTICS_THAT_MATTER = {
    "excess_ruggedness": "ruggedness in excess of a bowl",
    "rise": "rise of the loss to the ends of random lines",
    "curvature": "curvature at the model's weights",
    "convexity": "share of a line that curves up",
    "average_sharpness": "rise under Gaussian noise on the weights",
    "ball_rise_highest": "largest sampled rise on a ball around the weights",
    "neutral_share": "share of steps that change nothing",
    "fdc_pearson": "correlation of loss and distance",
    "plane_n_minima": "minima on a random plane",
    "line_barrier": "barrier on the line to the other model",
    "correlation_length": "correlation length of the loss along a walk, in steps",
}
"""By name, in words: the statistics that people see unless they ask for all, in order."""

ASKED_FOR = ("mask_", "lon_", "hessian_", "line_", "trajectory_", "worst_case")
"""Beginnings of the statistics that are there because an option asked for them: people see them all."""


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
    values = {row["statistic"]: row for row in rows.to_dicts()}
    words = [
        {"statistic": meaning, "symbol": name, **{key: values[name][key] for key in _SHOWN}}
        for name, meaning in STATISTICS_THAT_MATTER.items()
        if name in values and values[name]["mean"] is not None
    ]
    asked = [
        {"statistic": name.replace("_", " "), "symbol": name, **{key: row[key] for key in _SHOWN}}
        for name, row in values.items()
        if name.startswith(ASKED_FOR) and name not in STATISTICS_THAT_MATTER and row["mean"] is not None
    ]
    brief = pl.DataFrame([*words[:BRIEF_ROWS], *asked], infer_schema_length=None)
    fragile = (
        layers.sort("rise", descending=True, nulls_last=True).select("tensor", "n_params", "rise").head(3)
    )
    return View(
        finding=_finding(values),
        rows=rows,
        details=layers if layers.height else None,
        brief=[brief, fragile],
        facts=facts,
        document=result.to_dict(),
        notes=list(survey.notes),
    )


def _finding(values: "Mapping[str, Mapping[str, float | None]]") -> str:
    """Whether the loss is rugged, beside a bowl, and what that rests on."""
    excess = values.get("excess_ruggedness")
    if excess is None or excess["mean"] is None or excess["low"] is None or excess["high"] is None:
        rise = values.get("rise", {}).get("mean")
        return (
            "No random walks were made, so nothing is said about ruggedness"
            + ("" if rise is None else f"; along random lines the loss rises by {rise:.3g}")
            + "."
        )
    mean, low, high = excess["mean"], excess["low"], excess["high"]
    side = beside_a_bowl(low, high)
    ends = f"{mean:.2g}, {low:.2g} to {high:.2g}"
    said = f"The loss around these weights is {side} a bowl (excess ruggedness {ends})"
    minima = values.get("plane_n_minima", {}).get("mean")
    barrier = values.get("line_barrier", {}).get("mean")
    said += "" if minima is None else f"; {minima:.2g} minima on a random plane"
    said += "" if barrier is None else f"; the barrier to the other model is {barrier:.3g}"
    return f"{said}."


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
