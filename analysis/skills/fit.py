"""Calibrate on the first skill, predict the others, and compare with other curves by held-out error."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import least_squares

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.skills.closedforms import Floats, linear_strength, multilinear_strength
from emergraph.analysis.skills.options import Axis, FitOptions
from emergraph.analysis.skills.shots import data_by_definition, data_from_loss, parameter_strength
from emergraph.analysis.statistics.intervals import Support, left_out_ends
from emergraph.analysis.tablefile import numbers, read_table
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.steps import steps

# Curves that skills may follow against time, data or parameters: the solvable model and its rivals.

Curve = Callable[[Floats, float, int, Floats], Floats]
"""(x, s, k, parameters) -> share of the target."""


@dataclass(frozen=True)
class Family:
    """One kind of curve."""

    name: str
    curve: Curve
    starts: tuple[Callable[[float], tuple[float, ...]], ...]
    """First guesses of the parameters, in terms of the x at which skill 1 is half learned."""
    bounds: tuple[tuple[float, float], ...]
    """Lowest and highest value of each parameter; all are fitted as logarithms."""


def _multilinear(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    # rate p[0] = 2 eta P(1) S, start p[1] = R(0) / S
    return multilinear_strength(x, s, start=float(p[1]), rate=float(p[0]) / 2)


def _linear(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return linear_strength(x, s, rate=float(p[0]))


def _gompertz(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return np.asarray(np.exp(-p[1] * np.exp(-p[0] * s * x)))


def _hill(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    scaled = (s * x / p[0]) ** p[1]
    return np.asarray(scaled / (1 + scaled))


def _step(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    # steep, but not vertical: a fit needs a slope
    return np.asarray(1 / (1 + np.exp(-np.clip(60 * (s * x / p[0] - 1), -500, 500))))


def _same(x: Floats, _s: float, _k: int, p: Floats) -> Floats:
    return _multilinear(x, 1.0, 1, p)


def _definition(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return data_by_definition(s * x, per_skill=float(p[0]))


def _from_loss(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return data_from_loss(s * x, per_skill=float(p[0]))


def _shot(x: Floats, _s: float, k: int, p: Floats) -> Floats:
    return parameter_strength(x, k, per_skill=float(p[0]))


def _shared(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return np.asarray(np.clip(s * x / p[0], 0, 1))


_WIDE = (1e-12, 1e12)
_RATE_AND_START = (_WIDE, (1e-9, 0.4))
_SIGMOIDS = (
    Family(
        "linear",
        _linear,
        (lambda half: (0.7 / half,),),
        (_WIDE,),
    ),
    Family(
        "gompertz",
        _gompertz,
        (lambda half: (3 / half, 14.0), lambda half: (1.5 / half, 3.0)),
        (_WIDE, (0.1, 1e6)),
    ),
    Family("hill", _hill, (lambda half: (half, 4.0), lambda half: (half, 1.0)), (_WIDE, (0.2, 60.0))),
    Family("step", _step, (lambda half: (half,),), (_WIDE,)),
    Family(
        "same for all", _same, (lambda half: (5 / half, 7e-3), lambda half: (2 / half, 0.1)), _RATE_AND_START
    ),
)

FAMILIES: dict[Axis, tuple[Family, ...]] = {
    Axis.TIME: (
        Family(
            "multilinear",
            _multilinear,
            (lambda half: (5 / half, 7e-3), lambda half: (2 / half, 0.1), lambda half: (9 / half, 1e-4)),
            _RATE_AND_START,
        ),
        *_SIGMOIDS,
    ),
    Axis.DATA: (
        Family("by definition", _definition, (lambda half: (2 * half,),), (_WIDE,)),
        Family("from loss", _from_loss, (lambda half: (1.34 * half,),), (_WIDE,)),
        *_SIGMOIDS[:4],
    ),
    Axis.PARAMETERS: (
        Family("parameter shot", _shot, (lambda half: (2 * half,),), (_WIDE,)),
        Family("by frequency", _shared, (lambda half: (2 * half,),), (_WIDE,)),
        *_SIGMOIDS[:4],
    ),
}
"""The model first; on the axis of data it has two readings, which stand first and second."""


MINIMUM_RUNS = 3
"""Runs from which on a prediction has an interval: each is left out once."""
LEVELLED = 0.8
"""Share of the fitted full strength that skill 1 must come to within the data."""
MAX_CELLS = 1 << 27
"""Strengths of all runs and skills at all x."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SkillCurves:
    """Recorded strengths."""

    x: Floats
    """(n_points,) rising."""
    strength: Floats
    """(n_runs, n_skills, n_points), NaN where nothing was recorded."""
    frequency: Floats | None = None
    """(n_skills,) P(k), if recorded."""

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> "SkillCurves":
        """Read a table with the columns skill (1, 2, ...), x (or step) and strength; also run and frequency.

        Raises:
            InvalidInputError: A column is missing, or the table is empty.
        """
        if "x" not in frame.columns and "step" in frame.columns:
            frame = frame.rename({"step": "x"})
        missing = [name for name in ("skill", "x", "strength") if name not in frame.columns]
        if missing or frame.is_empty():
            there = ", ".join(frame.columns) or "none"
            raise InvalidInputError(
                f"recorded skills: expected the columns skill, x (or step) and strength, found {there}"
            )
        frame = frame.with_columns(
            numbers(frame, name) for name in ("skill", "x", "strength", "frequency") if name in frame.columns
        )
        if "run" not in frame.columns:
            frame = frame.with_columns(run=pl.lit(0))
        places = ("skill", "x", "run")
        finite = pl.col("skill", "x").cast(pl.Float64).is_finite()
        known = pl.all_horizontal(pl.col(places).is_not_null(), finite)
        if lacking := frame.height - frame.filter(known).height:
            raise InvalidInputError(
                f"recorded skills: {lacking} of {frame.height} rows lack a skill, an x or a run; "
                "leave them out"
            )
        x = np.sort(frame["x"].unique().cast(pl.Float64).to_numpy())
        if x[0] < 0:
            raise InvalidInputError(f"recorded skills: an x is {x[0]:g}, expected at least 0")
        skills, runs = frame["skill"].unique().sort(), frame["run"].unique().sort()
        if len(runs) * len(skills) * len(x) > MAX_CELLS:
            raise LimitError(
                f"recorded skills: {len(runs)} runs of {len(skills)} skills at {len(x)} values of x, at most "
                f"{MAX_CELLS} strengths in all"
            )
        values = np.full((len(runs), len(skills), len(x)), np.nan)
        cells = (
            runs.to_numpy().searchsorted(frame["run"].to_numpy()),
            skills.to_numpy().searchsorted(frame["skill"].to_numpy()),
            x.searchsorted(frame["x"].cast(pl.Float64).to_numpy()),
        )
        values[cells] = frame["strength"].cast(pl.Float64).to_numpy()
        frequency = None
        if "frequency" in frame.columns:
            by_skill = frame.group_by("skill").agg(pl.col("frequency").first()).sort("skill")
            frequency = by_skill["frequency"].cast(pl.Float64).to_numpy()
        return cls(x=x, strength=values, frequency=frequency)

    @property
    def n_skills(self) -> int:
        """Skills."""
        return int(self.strength.shape[1])

    def shares(self, options: FitOptions) -> Floats:
        """Return P(k) / P(1) of each skill.

        Raises:
            UsageError: Neither alpha nor recorded frequencies are there.
        """
        if options.alpha is not None:
            return np.asarray(np.arange(1, self.n_skills + 1, dtype=np.float64) ** -(options.alpha + 1))
        if self.frequency is None:
            raise UsageError(
                "the frequencies of the skills are unknown: give --alpha, or a column frequency in the table"
            )
        return np.asarray(self.frequency / self.frequency[0])


@dataclass(frozen=True, kw_only=True)
class FamilyFit:
    """One kind of curve, calibrated on skill 1."""

    name: str
    parameters: tuple[float, ...]
    scale: float
    """Full strength by this family, as a share of the model's; 1 where it was given."""
    calibration_error: float
    """Root mean squared error on skill 1, as a share of the target."""
    held_out_error: float
    """The same on all other skills, which are held out; NaN for a single skill."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SkillFit(ShownInNotebooks):
    """Predictions of one family for all skills, and how the others do."""

    options: FitOptions
    target: float
    """Full strength S: as given, or fitted to skill 1 with the model's parameters."""
    shares: Floats
    """(n_skills,) P(k) / P(1)."""
    x: Floats
    observed: Floats
    """(n_skills, n_points) mean over runs, as a share of the target."""
    predicted: Floats
    low: Floats
    high: Floats
    """(n_skills, n_points) pointwise 95 %, by leaving out one run at a time; NaN for fewer than three."""
    emergence: pl.DataFrame
    """One row per skill: skill, share, calibrated, predicted, low, high, observed (x where the skill reaches
    `share` of the target; NULL for never), ratio (observed / predicted), error (held-out, of the curve)."""
    families: tuple[FamilyFit, ...]
    """The model first."""
    n_runs: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Why there are no intervals, if so."""
        if self.n_runs >= MINIMUM_RUNS:
            return ()
        return (f"no intervals: {self.n_runs} of at least {MINIMUM_RUNS} runs",)

    def comparison(self) -> pl.DataFrame:
        """Return one row per family, the smallest held-out error first."""
        rows = [
            {
                "family": family.name,
                "held_out_error": family.held_out_error,
                "calibration_error": family.calibration_error,
                "parameters": len(family.parameters),
            }
            for family in self.families
        ]
        return pl.DataFrame(rows).sort("held_out_error", nulls_last=True)

    def curves(self) -> pl.DataFrame:
        """Return one row per skill and point: skill, x, observed, predicted, low, high (shares of target)."""
        n, m = self.observed.shape
        return pl.DataFrame(
            {
                "skill": np.repeat(np.arange(1, n + 1), m),
                "x": np.tile(self.x, n),
                "observed": self.observed.ravel(),
                "predicted": self.predicted.ravel(),
                "low": self.low.ravel(),
                "high": self.high.ravel(),
            }
        ).with_columns(pl.col(pl.Float64).fill_nan(None))

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {
            **self.options.to_dict(),
            "target": self.target,
            "n_runs": self.n_runs,
            "calibrated": [1],
            "predicted": list(range(2, len(self.shares) + 1)),
            "skills": self.emergence.to_dicts(),
            "families": self.comparison().to_dicts(),
            "curves": self.curves().to_dicts(),
        }


def fit_skills(curves: SkillCurves, options: FitOptions | None = None) -> SkillFit:
    """Calibrate the model on skill 1 and predict the others.

    The full strength S is fitted with the model's parameters, unless it is given: the largest observed
    strength lies above S by as much as the noise reaches, and every time at a share of it comes late.

    Args:
        curves: Recorded strengths.
        options: Axis, frequencies.

    Raises:
        InvalidInputError: Skill 1 never gets anywhere or does not level off, or has too few points.
        UsageError: The frequencies are not known.
    """
    options = options or FitOptions()
    shares = curves.shares(options)
    mean = _mean(curves.strength)
    if not np.nanmax(mean[0], initial=0.0) > 0 or np.isfinite(mean[0]).sum() < 4:
        raise InvalidInputError(
            "skill 1 cannot be calibrated: expected at least 4 points, and a strength above 0 at some of them"
        )
    families = FAMILIES[options.axis]
    model = families[0]
    parameters, target = _calibrate(model, curves.x, mean[0], options.target)
    reached = float(model.curve(curves.x[np.isfinite(mean[0])][-1:], 1.0, 1, parameters)[0])
    if options.target is None and reached < LEVELLED:
        raise InvalidInputError(
            f"skill 1 has not levelled off: it comes to {reached:.0%} of the full strength that fits it, "
            f"expected at least {LEVELLED:.0%}; give the full strength with --target"
        )
    left_out = _without_each(model, curves, options.target)
    predicted = _all_skills(model, curves.x, shares, parameters)
    low, high = _bands(predicted, [_all_skills(model, curves.x, shares, p) for p in left_out])
    observed = mean / target
    return SkillFit(
        options=options,
        target=target,
        shares=shares,
        x=curves.x,
        observed=observed,
        predicted=predicted,
        low=low,
        high=high,
        emergence=_emergence(model, curves.x, observed, shares, parameters, left_out, options),
        families=tuple(
            _family_fit(family, curves.x, observed, shares, None if options.target is None else 1.0)
            for family in families
        ),
        n_runs=len(curves.strength),
    )


def _mean(strength: Floats) -> Floats:
    return np.asarray(np.ma.masked_invalid(strength).mean(axis=0).filled(np.nan))


def _without_each(model: Family, curves: SkillCurves, target: float | None) -> list[Floats]:
    """Calibrations on all runs but one; empty for fewer than three runs."""
    n = len(curves.strength)
    if n < MINIMUM_RUNS:
        return []
    means = (_mean(np.delete(curves.strength, run, axis=0))[0] for run in range(n))
    return [_calibrate(model, curves.x, mean, target)[0] for mean in steps(means, "runs left out", total=n)]


def _bands(predicted: Floats, left_out: list[Floats]) -> tuple[Floats, Floats]:
    """Pointwise ends of the predicted curves."""
    ends = np.full((2, *predicted.shape), np.nan)
    for place in np.ndindex(predicted.shape) if left_out else ():
        each = np.array([curve[place] for curve in left_out])
        ends[(slice(None), *place)] = left_out_ends(float(predicted[place]), each, support=Support.SHARE)
    return ends[0], ends[1]


def crossing(x: Floats, values: Floats, share: float) -> float:
    """Return where a curve first reaches a share, by linear interpolation; NaN for never."""
    there = np.isfinite(values)
    x, values = x[there], values[there]
    above = np.flatnonzero(values >= share)
    if above.size == 0:
        return float("nan")
    place = int(above[0])
    if place == 0:
        return float(x[0])
    before, after = values[place - 1], values[place]
    return float(x[place - 1] + (x[place] - x[place - 1]) * (share - before) / (after - before))


def _all_skills(family: Family, x: Floats, shares: Floats, parameters: Floats) -> Floats:
    return np.array([family.curve(x, float(s), k, parameters) for k, s in enumerate(shares, start=1)])


def _calibrate(family: Family, x: Floats, values: Floats, target: float | None) -> tuple[Floats, float]:
    """Parameters for skill 1, as logarithms by least squares from each of the first guesses, and S.

    For given parameters the best S is a projection, `<curve, values> / <curve, curve>`.
    """
    there = np.isfinite(values)
    x, values = x[there], values[there]
    half = crossing(x, values, 0.5 * (target or float(values.max())))
    half = half if np.isfinite(half) and half > 0 else float(x[-1])
    low, high = (np.log([bound[i] for bound in family.bounds]) for i in (0, 1))

    def full(curve: Floats) -> float:
        size = float(curve @ curve)
        return target if target is not None else float(curve @ values) / size if size > 0 else 0.0

    def rest(logs: Floats) -> Floats:
        curve = family.curve(x, 1.0, 1, np.exp(logs))
        return np.asarray(full(curve) * curve - values)

    found = [
        least_squares(rest, np.clip(np.log(start(half)), low + 1e-6, high - 1e-6), bounds=(low, high))
        for start in family.starts
    ]
    parameters = np.asarray(np.exp(min(found, key=lambda one: float(one.cost)).x))
    return parameters, full(family.curve(x, 1.0, 1, parameters))


def _root_mean_square(errors: Floats) -> float:
    """Over what is finite; NaN where nothing is, as of a skill without a strength."""
    there = errors[np.isfinite(errors)]
    return float(np.sqrt(np.mean(there**2))) if there.size else float("nan")


def _family_fit(
    family: Family, x: Floats, observed: Floats, shares: Floats, target: float | None
) -> FamilyFit:
    parameters, scale = _calibrate(family, x, observed[0], target)
    errors = scale * _all_skills(family, x, shares, parameters) - observed
    return FamilyFit(
        name=family.name,
        parameters=tuple(parameters.tolist()),
        scale=scale,
        calibration_error=_root_mean_square(errors[0]),
        held_out_error=_root_mean_square(errors[1:]),
    )


def _emergence(
    family: Family,
    x: Floats,
    observed: Floats,
    shares: Floats,
    parameters: Floats,
    left_out: list[Floats],
    options: FitOptions,
) -> pl.DataFrame:
    """The table of `SkillFit.emergence`."""
    fine = np.concatenate(
        [[0.0], np.geomspace(max(float(x[x > 0].min()), 1e-9) / 4, 4e3 * float(x.max()), 6000)]
    )
    rows: list[dict[str, object]] = []
    for k, s in enumerate(shares, start=1):
        at, *each = (
            crossing(fine, family.curve(fine, float(s), k, p), options.share) for p in (parameters, *left_out)
        )
        low, high = left_out_ends(at, np.array(each), support=Support.POSITIVE) if each else (np.nan, np.nan)
        seen = crossing(x, observed[k - 1], options.share)
        error = family.curve(x, float(s), k, parameters) - observed[k - 1]
        rows.append(
            {
                "skill": k,
                "share": float(s),
                "calibrated": k == 1,
                "predicted": at,
                "low": low,
                "high": high,
                "observed": seen,
                "ratio": seen / at,
                "error": _root_mean_square(error),
            }
        )
    return pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None))


def read_curves(source: str | Path | pl.DataFrame) -> SkillCurves:
    """Read recorded curves from a CSV or Parquet file (see `read_table`), or take them from a frame.

    Raises:
        InvalidInputError: The file is missing, of another form, or lacks columns.
        LimitError: There are too many runs, skills and values of x.
    """
    frame = source if isinstance(source, pl.DataFrame) else read_table(source).frame
    try:
        return SkillCurves.from_frame(frame)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise InvalidInputError(f"recorded skills: columns that are not numbers: {error}") from error
