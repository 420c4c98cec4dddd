"""What the solvable model says before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gamma

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import zeta

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.skills.closedforms import (
    Floats,
    emergence_duration,
    emergence_time,
    linear_strength,
    multilinear_strength,
    skill_frequencies,
)
from emergraph.analysis.skills.options import ModelParameters
from emergraph.analysis.skills.shots import (
    data_by_definition,
    data_from_loss,
    parameter_strength,
)
from emergraph.analysis.view import BRIEF_ROWS, View, evenly

# Scaling laws of the solvable model, with prefactors: loss against time, data, parameters and compute.

_FAR = 60.0
"""Beyond this u the integrands are below 1e-50."""


def time_loss(
    time: ArrayLike, frequencies: Floats, *, target: float = 1.0, start: float = 0.01, rate: float = 1.0
) -> Floats:
    """Return the loss `1/2 sum_k P(k) (S - R_k(T))^2` of the multilinear model.

    Args:
        time: (...) steps.
        frequencies: (n_skills,) P(k).
        target: S.
        start: R(0).
        rate: eta.
    """
    t = np.asarray(time, np.float64)[..., None]
    strength = multilinear_strength(t, frequencies, target=target, start=start, rate=rate)
    return np.asarray(0.5 * (frequencies * (target - strength) ** 2).sum(axis=-1))


def parameter_loss(
    parameters: ArrayLike, frequencies: Floats, *, target: float = 1.0, per_skill: float = 4
) -> Floats:
    """Return the loss `1/2 sum_k P(k) (S - R_k(N))^2` where N parameters serve the frequent skills first."""
    from emergraph.analysis.skills.shots import parameter_strength

    n = np.asarray(parameters, np.float64)[..., None]
    strength = parameter_strength(n, np.arange(1, len(frequencies) + 1), target=target, per_skill=per_skill)
    return np.asarray(0.5 * (frequencies * (target - strength) ** 2).sum(axis=-1))


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """`loss = prefactor * x^exponent` for large x and infinitely many skills."""

    axis: str
    """time (steps), data (samples), parameters or compute (parameters times steps)."""
    exponent: float
    prefactor: float

    def __call__(self, x: ArrayLike) -> Floats:
        """The loss at x."""
        return np.asarray(self.prefactor * np.asarray(x, np.float64) ** self.exponent)


def time_law(alpha: float, *, target: float = 1.0, start: float = 0.01, rate: float = 1.0) -> PowerLaw:
    """Return the law of time, exponent `-alpha / (alpha + 1)`.

    With u = 2 eta S T A k^-(alpha+1) the sum over skills becomes
    `S^2/2 A c^(-alpha/(alpha+1)) / (alpha+1) int_0^inf u^(-1/(alpha+1)) (1 + e^u / r)^-2 du`,
    c = 2 eta S A and r = S / R(0) - 1.
    """
    c, amplitude = _speed(alpha, target, rate)
    shape = _undone(alpha, target / start - 1, 0.0)
    return PowerLaw(
        axis="time",
        exponent=-alpha / (alpha + 1),
        prefactor=target**2 / 2 * amplitude * c ** (-alpha / (alpha + 1)) * shape,
    )


def data_law(alpha: float, *, target: float = 1.0, seen: float = 0.0) -> PowerLaw:
    """Return the law of data of a one-shot learner, exponent `-alpha / (alpha + 1)`.

    `(S - r)^2/2 A^(1/(alpha+1)) Gamma(alpha/(alpha+1)) / (alpha+1) D^(-alpha/(alpha+1))`.
    """
    amplitude = _amplitude(alpha)
    shape = gamma(alpha / (alpha + 1)) / (alpha + 1)
    return PowerLaw(
        axis="data",
        exponent=-alpha / (alpha + 1),
        prefactor=(target - seen) ** 2 / 2 * amplitude ** (1 / (alpha + 1)) * shape,
    )


def parameter_law(alpha: float, *, target: float = 1.0, per_skill: float = 4) -> PowerLaw:
    """Return the law of parameters, exponent `-alpha`: `S^2/2 A/alpha (N / N_c)^-alpha`."""
    prefactor = target**2 / 2 * _amplitude(alpha) / alpha * per_skill**alpha
    return PowerLaw(axis="parameters", exponent=-alpha, prefactor=prefactor)


@dataclass(frozen=True, kw_only=True)
class ComputeLaw(PowerLaw):
    """The law of compute, at the best number of parameters for each compute."""

    size_exponent: float
    """Best N is `size_prefactor * C^size_exponent`."""
    size_prefactor: float


def compute_law(
    alpha: float, *, target: float = 1.0, start: float = 0.01, rate: float = 1.0, per_skill: float = 4
) -> ComputeLaw:
    """Return the law of compute C = N T, exponent `-alpha / (alpha + 2)`, best N as `C^(1 / (alpha + 2))`.

    N parameters serve the skills up to K = N / N_c, which learn for T steps; those beyond stay unlearned.
    With K = q c^(1/(alpha+1)), c = 2 eta S A T, the loss is `S^2/2 A c^(-alpha/(alpha+1)) h(q)`, and q is
    chosen for the smallest loss at equal C.
    """
    c, amplitude = _speed(alpha, target, rate)
    odds = target / start - 1
    a1, a2 = alpha + 1, alpha + 2

    def shape(q: float) -> float:
        return float(_undone(alpha, odds, q**-a1) + q**-alpha / alpha)

    best = minimize_scalar(
        lambda log_q: np.log(shape(float(np.exp(log_q)))) + alpha / a2 * log_q,
        bounds=(-8, 6),
        method="bounded",
    )
    q = float(np.exp(best.x))
    # C = N T with N = N_c q (c T)^(1/a1): T = [C / (N_c q c^(1/a1))]^(a1/a2)
    step = per_skill * q * c ** (1 / a1)
    prefactor = target**2 / 2 * amplitude * c ** (-alpha / a1) * step ** (alpha / a2) * shape(q)
    return ComputeLaw(
        axis="compute",
        exponent=-alpha / a2,
        prefactor=prefactor,
        size_exponent=1 / a2,
        size_prefactor=step ** (a1 / a2),
    )


def compute_loss(
    parameters: ArrayLike, time: ArrayLike, frequencies: Floats, *, per_skill: float = 4, **model: float
) -> Floats:
    """Return the loss where only the first N / N_c skills are learned, for T steps."""
    n, t = (np.asarray(values, np.float64)[..., None] for values in (parameters, time))
    target = model.get("target", 1.0)
    served = np.arange(1, len(frequencies) + 1) <= n / per_skill
    strength = np.where(served, multilinear_strength(t, frequencies, **model), 0.0)
    return np.asarray(0.5 * (frequencies * (target - strength) ** 2).sum(axis=-1))


def local_slope(x: Floats, loss: Floats) -> float:
    """Return the slope of log loss against log x, by least squares."""
    return float(np.polyfit(np.log(x), np.log(loss), 1)[0])


def _amplitude(alpha: float) -> float:
    """A of P(k) = A k^-(alpha+1) for infinitely many skills."""
    return float(1 / zeta(alpha + 1))


def _speed(alpha: float, target: float, rate: float) -> tuple[float, float]:
    amplitude = _amplitude(alpha)
    return 2 * rate * target * amplitude, amplitude


def _undone(alpha: float, odds: float, lowest: float) -> float:
    """`1/(alpha+1) int_lowest^inf u^(-1/(alpha+1)) (1 + e^u / odds)^-2 du`."""
    power = 1 - 1 / (alpha + 1)  # with v = u^power the singularity at 0 is gone

    def integrand(v: float) -> float:
        return float((1 + np.exp(v ** (1 / power)) / odds) ** -2 / power)

    low, high = lowest**power, _FAR**power
    if low >= high:
        return 0.0
    return float(quad(integrand, low, high, limit=200, epsabs=0, epsrel=1e-10)[0] / (alpha + 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction(ShownInNotebooks):
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


def prediction_view(found: Prediction) -> View:
    """Return what is shown of a prediction."""
    laws = {
        f"loss against {law.axis}": f"{law.prefactor:.4g} {law.axis}^{law.exponent:.4f}" for law in found.laws
    }
    facts: dict[str, object] = {"alpha": found.model.alpha, "full strength": found.model.target, **laws}
    wide = None
    if found.curves.height:
        wide = found.curves.pivot(on="skill", index=["axis", "x", "reading"], values="strength")
    exponents = ", ".join(f"{law.axis} to the power {law.exponent:.3g}" for law in found.laws)
    finding = f"The loss falls with {exponents}." if exponents else "The skills and when they emerge:"
    brief = [found.skills.head(BRIEF_ROWS)] + ([] if wide is None else [evenly(wide)])
    return View(
        finding=finding, rows=found.skills, details=wide, brief=brief, facts=facts, document=found.to_dict()
    )
