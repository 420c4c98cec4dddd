"""Training logs in, transitions and their exponent out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from emergraph.analysis.percolation.options import LogColumns
from emergraph.analysis.percolation.scaling import MARGIN, STATEMENT, Exponent, RunCurve, exponents
from emergraph.analysis.percolation.transitions import TransitionFit, fit_transition
from emergraph.analysis.tablefile import numbers, read_table
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError

LARGEST_SIZE = 1e15
"""Entities or properties that a run may have: floats below it are told apart by one."""
IDS = ("run", "seed")
"""Columns that tell runs apart, where a table has them, beside the sizes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
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
