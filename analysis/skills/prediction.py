"""What the solvable model says before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from emergraph.analysis.skills.closedforms import (
    emergence_duration,
    emergence_time,
    linear_strength,
    multilinear_strength,
    skill_frequencies,
)
from emergraph.analysis.skills.options import ModelParameters
from emergraph.analysis.skills.scaling import (
    PowerLaw,
    compute_law,
    data_law,
    parameter_law,
    time_law,
    time_loss,
)
from emergraph.analysis.skills.shots import (
    data_by_definition,
    data_from_loss,
    parameter_strength,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Skills, their times, and scaling laws."""

    model: ModelParameters
    skills: pl.DataFrame
    """One row per skill: skill, frequency, emergence, duration (steps), data (samples in all until it is
    learned), parameters (until it is learned)."""
    laws: tuple[PowerLaw, ...]
    curves: pl.DataFrame
    """One row per skill and x: axis, skill, x, reading, strength. Empty where no x was given."""

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {
            **{name: getattr(self.model, name) for name in self.model.__dataclass_fields__},
            "skills": self.skills.to_dicts(),
            "laws": [
                {"axis": law.axis, "exponent": law.exponent, "prefactor": law.prefactor} for law in self.laws
            ],
            "curves": self.curves.to_dicts(),
        }


def predict_skills(
    model: ModelParameters | None = None,
    *,
    times: Sequence[float] = (),
    samples: Sequence[float] = (),
    parameters: Sequence[float] = (),
) -> Prediction:
    """Return the model's emergence times, scaling laws, and strengths where they are asked for.

    Args:
        model: Its parameters.
        times: Steps.
        samples: Samples in all, of which skill k gets P(k).
        parameters: Numbers of parameters.

    Example:
        >>> predict_skills(ModelParameters(n_skills=2)).skills["skill"].to_list()
        [1, 2]
    """
    model = model or ModelParameters()
    p = skill_frequencies(model.n_skills, model.alpha)
    skills = np.arange(1, model.n_skills + 1)
    table = pl.DataFrame(
        {
            "skill": skills,
            "frequency": p,
            "emergence": emergence_time(
                p, share=model.share, target=model.target, start=model.start, rate=model.speed
            ),
            "duration": emergence_duration(p, share=model.share, target=model.target, rate=model.speed),
            "data": model.samples_per_skill / p,
            "parameters": skills * model.per_skill,
        }
    )
    about = {"target": model.target, "start": model.start, "rate": model.speed}
    laws = (
        time_law(model.alpha, **about),
        data_law(model.alpha, target=model.target),
        parameter_law(model.alpha, target=model.target, per_skill=model.per_skill),
        compute_law(model.alpha, per_skill=model.per_skill, **about),
    )
    return Prediction(model=model, skills=table, laws=laws, curves=_curves(model, times, samples, parameters))


def _curves(
    model: ModelParameters, times: Sequence[float], samples: Sequence[float], parameters: Sequence[float]
) -> pl.DataFrame:
    p = skill_frequencies(model.n_skills, model.alpha)
    rows: list[dict[str, object]] = []

    def add(axis: str, x: float, reading: str, strength: np.ndarray) -> None:
        rows.extend(
            {"axis": axis, "x": x, "reading": reading, "skill": k, "strength": float(value)}
            for k, value in enumerate(strength, start=1)
        )

    s = model.target
    for t in times:
        multilinear = multilinear_strength(t, p, target=s, start=model.start, rate=model.speed)
        add("time", t, "multilinear", multilinear)
        add("time", t, "linear", linear_strength(t, p, target=s, rate=model.speed))
    for d in samples:
        add(
            "data", d, "by definition", data_by_definition(p * d, target=s, per_skill=model.samples_per_skill)
        )
        add("data", d, "from loss", data_from_loss(p * d, target=s, per_skill=model.samples_per_skill))
    for n in parameters:
        k = np.arange(1, model.n_skills + 1)
        add("parameters", n, "parameter shot", parameter_strength(n, k, target=s, per_skill=model.per_skill))
    schema = {
        "axis": pl.String,
        "x": pl.Float64,
        "reading": pl.String,
        "skill": pl.Int64,
        "strength": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)


def loss_at(model: ModelParameters, times: Sequence[float]) -> list[float]:
    """Return the loss of the multilinear model with these skills at these times."""
    p = skill_frequencies(model.n_skills, model.alpha)
    found = time_loss(np.array(times), p, target=model.target, start=model.start, rate=model.speed)
    return [float(loss) for loss in found]
