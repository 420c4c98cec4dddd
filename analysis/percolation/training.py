"""Training logs in, transitions and their exponent out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.percolation.options import LogColumns
from emergraph.analysis.percolation.transitions import TransitionFit, fit_transition
from emergraph.analysis.tablefile import numbers, read_table
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError

# How the transition of a training moves with the size of its data: the exponent, and what may be said of
# it.

Floats = NDArray[np.float64]

PREDICTED = 0.5
MARGIN = 0.1
"""Equivalence margin of the verdict, in the exponent."""
STATEMENT = (
    "Percolation predicts the exponent 0.5 only; the number of steps at which a transition comes is fitted, "
    "not predicted."
)
SHIFTS = np.linspace(-1, 3, 201)
"""Exponents that a collapse is tried with."""


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """An exponent of the data's size |E||K| with its interval."""

    method: str
    """threshold or middle (slopes of the logarithms), or collapse."""
    exponent: float
    low: float
    """95 % interval, Student's t; the standard error of a collapse is that of a bootstrap over runs. NaN for
    a collapse of which one size has most runs: the error of a single run of another is never drawn."""
    high: float
    factor: float | None
    """Fitted steps per (|E||K|)^exponent; None for a collapse."""
    n_runs: int
    n_sizes: int
    doubtful: bool = False
    """Whether the method assumes a shape that most runs do not have. The percolation curve widens with
    |K| / |E|: laid on curves that do not, its threshold moves with the size by itself, and the other way
    round for the other two methods."""

    margin: float = MARGIN
    """Exponents this close to the prediction count as the same."""

    @property
    def verdict(self) -> str:
        """What the interval says of the prediction 0.5 and all exponents within the margin of it.

        "compatible": the interval lies within the margin. "incompatible": it lies outside. "undecided":
        neither; holding 0.5 is no evidence for it where the interval is wide.
        """
        nearest, farthest = PREDICTED - self.margin, PREDICTED + self.margin
        if nearest <= self.low and self.high <= farthest:
            return "compatible"
        return "incompatible" if self.high < nearest or farthest < self.low else "undecided"

    @property
    def text(self) -> str:
        """The exponent with its interval, where it has one."""
        known = np.isfinite(self.low)
        ends = f"{self.low:.3g} to {self.high:.3g}" if known else "no interval: most runs are of one size"
        return f"{self.exponent:.3g} ({ends}), {self.method}"

    def to_dict(self) -> dict[str, object]:
        """Return one row."""
        return {
            "method": self.method,
            "exponent": self.exponent,
            "low": finite_or_none(self.low),
            "high": finite_or_none(self.high),
            "factor": self.factor,
            "n_runs": self.n_runs,
            "n_sizes": self.n_sizes,
            "doubtful": self.doubtful,
            "margin": self.margin,
            "verdict": self.verdict,
        }


def slope_exponent(method: str, sizes: Floats, points: Floats) -> Exponent:
    """Fit `ln point = ln factor + exponent ln size` by least squares over runs.

    Args:
        method: What the points are.
        sizes: (n_runs,) |E||K|, at least two different ones, at least three runs.
        points: (n_runs,) steps, positive.

    Raises:
        InvalidInputError: Too few runs or sizes.

    Example:
        >>> sizes = np.array([1e3, 1e4, 1e5])
        >>> found = slope_exponent("threshold", sizes, 7 * sizes**0.5)
        >>> round(found.exponent, 6), round(found.factor, 6)
        (0.5, 7.0)
    """
    if len(sizes) < 3 or len(np.unique(sizes)) < 2:
        raise InvalidInputError(
            f"exponent: {len(sizes)} runs of {len(np.unique(sizes))} sizes, expected at least 3 of 2"
        )
    line = stats.linregress(np.log(sizes), np.log(points))
    reach = float(stats.t.ppf(0.975, len(sizes) - 2)) * float(line.stderr)
    return Exponent(
        method=method,
        exponent=float(line.slope),
        low=float(line.slope) - reach,
        high=float(line.slope) + reach,
        factor=float(np.exp(line.intercept)),
        n_runs=len(sizes),
        n_sizes=len(np.unique(sizes)),
    )


@dataclass(frozen=True, eq=False)
class RunCurve:
    """The metric of one run over its steps."""

    size: float
    """|E||K|."""
    step: Floats
    """(n,) positive, ascending."""
    value: Floats
    """(n,) finite."""


def collapse_exponent(curves: Sequence[RunCurve], *, draws: int = 500, seed: int = 0) -> Exponent:
    """Find the exponent that lays the curves of all sizes on one another.

    The steps of each run are divided by size^exponent. The cost is the mean squared difference, over all
    pairs of runs of different sizes, between the points of one and the other interpolated in the logarithm of
    the steps; beyond its ends a curve goes on at its last level. The interval comes from a bootstrap over
    runs.

    Args:
        curves: At least three runs of at least two sizes.
        draws: Bootstrap draws, at least 2.
        seed: Seed of the draws.

    Raises:
        InvalidInputError: Too few runs or sizes.
    """
    sizes = np.array([curve.size for curve in curves])
    if len(curves) < 3 or len(np.unique(sizes)) < 2:
        raise InvalidInputError(
            f"collapse: {len(curves)} runs of {len(np.unique(sizes))} sizes, expected at least 3 of 2"
        )
    costs = _pair_costs(curves)
    n = len(curves)
    rng = np.random.default_rng(seed)
    found: list[float] = []
    while len(found) < draws:
        weight = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        if len(np.unique(sizes[weight > 0])) > 1:
            found.append(_best_shift(np.einsum("i,j,ijs->s", weight, weight, costs)))
    best = _best_shift(costs.sum(axis=(0, 1)))
    # A bootstrap of n runs is too narrow by sqrt((n - 1) / n), and n is small: hence Student's t.
    reach = float(stats.t.ppf(0.975, n - 2)) * float(np.std(found)) * (n / (n - 1)) ** 0.5
    if not _balanced(sizes):
        reach = float("nan")
    return Exponent(
        method="collapse",
        exponent=best,
        low=best - reach,
        high=best + reach,
        factor=None,
        n_runs=n,
        n_sizes=len(np.unique(sizes)),
    )


def _balanced(sizes: Floats) -> bool:
    """Whether at least two sizes have more than half as many runs as the one that has most.

    With 1 run of one size and 2, 3 or 5 of another, the bootstrap's intervals hold the truth 86, 84 and 73 %
    of the time.
    """
    runs = np.unique(sizes, return_counts=True)[1]
    return bool(np.sum(runs > runs.max() / 2) > 1)


def _pair_costs(curves: Sequence[RunCurve]) -> Floats:
    """(n_runs, n_runs, n_shifts) mean squared difference of each pair of runs; 0 for equal sizes."""
    n = len(curves)
    costs = np.zeros((n, n, len(SHIFTS)))
    logs = [np.log(curve.step) for curve in curves]
    for i, a in enumerate(curves):
        for j, b in enumerate(curves):
            if a.size == b.size:
                continue
            moved = logs[i][None, :] - SHIFTS[:, None] * (np.log(a.size) - np.log(b.size))
            other = np.interp(moved.ravel(), logs[j], b.value).reshape(moved.shape)
            costs[i, j] = ((other - a.value) ** 2).mean(axis=1)
    return costs


def _best_shift(costs: Floats) -> float:
    """The exponent of least cost, between the points of the grid by a parabola."""
    i = int(np.argmin(costs))
    if i in (0, len(costs) - 1):
        return float(SHIFTS[i])
    left, middle, right = costs[i - 1 : i + 2]
    bend = left - 2 * middle + right
    offset = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(SHIFTS[i] + offset * (SHIFTS[1] - SHIFTS[0]))


def exponents(
    fits: Sequence[TransitionFit],
    curves: Sequence[RunCurve],
    *,
    draws: int = 500,
    seed: int = 0,
    margin: float = MARGIN,
) -> list[Exponent]:
    """The exponent by three methods: thresholds of percolation fits, middles of logistic fits, collapse.

    The first is doubtful unless most runs are best described by the percolation curve, the others where they
    are.

    Raises:
        InvalidInputError: Fewer than three runs, or a single size.
    """
    sizes = np.array([fit.n_entities * fit.n_properties for fit in fits], dtype=np.float64)
    thresholds = np.array([fit.percolation.point for fit in fits], dtype=np.float64)
    middles = np.array([fit.logistic.point for fit in fits], dtype=np.float64)
    percolates = 2 * sum(fit.best == "percolation" for fit in fits) > len(fits)
    found = {
        slope_exponent("threshold", sizes, thresholds): not percolates,
        slope_exponent("middle", sizes, middles): percolates,
        collapse_exponent(curves, draws=draws, seed=seed): percolates,
    }
    return [replace(one, doubtful=doubtful, margin=margin) for one, doubtful in found.items()]


LARGEST_SIZE = 1e15
"""Entities or properties that a run may have: floats below it are told apart by one."""
IDS = ("run", "seed")
"""Columns that tell runs apart, where a table has them, beside the sizes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult(ShownInNotebooks):
    """The transitions of several runs, and how they move with the size of the data."""

    metric: str
    fits: tuple[TransitionFit, ...]
    """One per run, by size and name."""
    left_out: tuple[str, ...]
    """Runs that have no fit, and why."""
    exponents: tuple[Exponent, ...]
    """By three methods; empty where there are fewer than three runs, or a single size."""
    statement: str = STATEMENT

    @property
    def exponent(self) -> Exponent | None:
        """The exponent to quote: of the thresholds where most runs percolate, else of the collapse."""
        sound = {found.method: found for found in self.exponents if not found.doubtful}
        return sound.get("threshold", sound.get("collapse"))

    def runs(self) -> pl.DataFrame:
        """Return one row per run; see `TransitionFit.to_dict`."""
        return pl.DataFrame([fit.to_dict() for fit in self.fits], infer_schema_length=None)

    def exponent_table(self) -> pl.DataFrame:
        """Return one row per method."""
        return pl.DataFrame([found.to_dict() for found in self.exponents], infer_schema_length=None)

    def preferred(self) -> dict[str, int]:
        """How many runs each sort of curve fits best: percolation, smooth, constant, undecided."""
        best = [fit.best for fit in self.fits]
        return {sort: best.count(sort) for sort in ("percolation", "smooth", "constant", "undecided")}

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {
            "metric": self.metric,
            "statement": self.statement,
            "preferred": self.preferred(),
            "exponent": None if self.exponent is None else self.exponent.to_dict(),
            "exponents": [found.to_dict() for found in self.exponents],
            "runs": [fit.to_dict() for fit in self.fits],
            "left_out": list(self.left_out),
        }


def _check_columns(frame: pl.DataFrame, measured: Sequence[str], ids: Sequence[str]) -> None:
    """Refuse columns that are missing, and runs that are named by lists or records."""
    for name in (*measured, *ids):
        if name not in frame.columns:
            raise UsageError(unknown("column", name, frame.columns))
    for name in ids:
        if frame[name].dtype.is_nested():
            raise InvalidInputError(f"column '{name}' holds {frame[name].dtype}, expected a name or a number")


def training_transitions(
    source: str | Path | pl.DataFrame,
    *,
    columns: LogColumns | None = None,
    draws: int = 500,
    seed: int = 0,
    margin: float = MARGIN,
    progress: Callable[[float, float], None] | None = None,
) -> TrainingResult:
    """Fit the transition of every run of a training log, and the exponent of their sizes.

    Runs whose metric is best described by a constant have no transition: they are fitted, but take no part in
    the exponents.

    Args:
        source: Parquet, CSV, "-" for CSV from standard input, or a frame: one row per run and step.
        columns: Which columns hold what.
        draws: Bootstrap draws of the collapse.
        seed: Seed of the draws.
        margin: Exponents this close to the prediction count as the same.
        progress: Called with the runs that are fitted, and all of them.

    Raises:
        UsageError: A column is missing.
        InvalidInputError: No run has enough steps, or numbers of entities or properties are none.
    """
    columns = columns or LogColumns()
    frame = source if isinstance(source, pl.DataFrame) else read_table(source).frame
    ids = [name for name in IDS if name in frame.columns] if columns.run is None else list(columns.run)
    sizes = [columns.n_entities, columns.n_properties]
    _check_columns(frame, (columns.step, columns.metric, *sizes), ids)
    frame = frame.with_columns(numbers(frame, name) for name in dict.fromkeys((columns.step, columns.metric)))
    frame = frame.with_columns(numbers(frame, name).fill_nan(None) for name in dict.fromkeys(sizes))
    for name in sizes:
        outside = frame[name].filter(~frame[name].is_between(1, LARGEST_SIZE))
        if not outside.is_empty():
            raise InvalidInputError(f"column '{name}': {outside[0]:g}; expected whole numbers from 1")
    clean = frame.drop_nulls([columns.step, *sizes])
    fits, curves, left_out = [], [], []
    runs = clean.sort(*sizes, *ids, columns.step).partition_by(
        [*sizes, *ids], maintain_order=True, as_dict=True
    )
    for number, (key, rows) in enumerate(runs.items()):
        if progress is not None:
            progress(number, len(runs))
        n_entities, n_properties = int(key[0]), int(key[1])
        name = " ".join(f"{column}={value}" for column, value in zip(ids, key[2:], strict=True))
        step = rows[columns.step].cast(pl.Float64).to_numpy()
        value = rows[columns.metric].fill_null(float("nan")).to_numpy()
        try:
            fit = fit_transition(
                step,
                value,
                n_entities=n_entities,
                n_properties=n_properties,
                run=name or f"|E|={n_entities} |K|={n_properties}",
            )
        except InvalidInputError as error:
            left_out.append(str(error))
            continue
        fits.append(fit)
        kept = (step > 0) & np.isfinite(value)
        curves.append(RunCurve(float(n_entities) * n_properties, step[kept], value[kept]))
    if not fits:
        raise InvalidInputError(f"no run can be fitted: {left_out[0] if left_out else 'the table is empty'}")
    moving = [i for i, fit in enumerate(fits) if fit.best != "constant"]
    enough = len(moving) >= 3 and len({curves[i].size for i in moving}) >= 2
    found: list[Exponent] = []
    if enough:
        chosen = [fits[i] for i in moving], [curves[i] for i in moving]
        found = exponents(*chosen, draws=draws, seed=seed, margin=margin)
    return TrainingResult(
        metric=columns.metric,
        fits=tuple(fits),
        left_out=tuple(left_out),
        exponents=tuple(found),
    )
