"""The solvable model of skills (arXiv 2404.17563): fitted, predicted and simulated; see `docs/skills.md`."""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from emergraph.analysis.skills.options import (
    FitOptions,
    ModelParameters,
    PredictionOptions,
    SimulationOptions,
)
from emergraph.api.handle import Progress
from emergraph.api.keywords import with_options
from emergraph.api.tables import table_of
from emergraph.optionforms import TableForm

if TYPE_CHECKING:
    import polars as pl

    from emergraph.analysis.skills.fit import SkillCurves, SkillFit
    from emergraph.analysis.skills.prediction import Prediction
    from emergraph.analysis.skills.simulate import Simulation


@with_options(FitOptions, TableForm)
def fit(
    file: "str | Path | pl.DataFrame | SkillCurves",
    *,
    options: tuple[FitOptions, TableForm],
    store: str | Path | None = None,
    any_name: bool = False,
) -> "SkillFit":
    """Calibrate the model on skill 1, predict the other skills, and compare with other curves.

    Args:
        file: CSV or Parquet, or a polars frame: skill, x (or step), strength[, run, frequency]; or curves.
        store: Keep the result there.
        any_name: Let a new store have a name that does not end in .duckdb or .db.

    Raises:
        InvalidInputError: Columns are missing, or skill 1 never gets anywhere.
        UsageError: The frequencies are not known.
    """
    from emergraph.analysis.skills.analysis import save_fit
    from emergraph.analysis.skills.fit import SkillCurves, fit_skills, read_curves

    asked, form = options
    curves = file if isinstance(file, SkillCurves) else read_curves(table_of(file, form))
    found = fit_skills(curves, asked)
    if store is not None:
        source = Path(file).name if isinstance(file, str | Path) else "a table"
        save_fit(Path(store), found, source=source, separator=form.separator, any_name=any_name)
    return found


@with_options(ModelParameters, PredictionOptions)
def predict(*, options: tuple[ModelParameters, PredictionOptions]) -> "Prediction":
    """Say when each skill emerges, and how the loss scales with time, data, parameters and compute."""
    from emergraph.analysis.skills.prediction import predict_skills

    model, at = options
    return predict_skills(model, times=at.times, samples=at.samples, parameters=at.parameters)


@with_options(SimulationOptions)
def simulate(
    *,
    options: tuple[SimulationOptions],
    name: str = "parity",
    store: str | Path | None = None,
    any_name: bool = False,
    progress: Progress | None = None,
) -> "Simulation":
    """Train a two-layer network on multitask sparse parity and record every skill (needs torch).

    Args:
        name: Name of the snapshots.
        store: Keep snapshots and result there.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        progress: Called with (steps done, steps in all).

    Raises:
        MissingExtraError: torch is not installed.
    """
    from emergraph.analysis.skills.analysis import save_simulation
    from emergraph.analysis.skills.simulate import simulate_parity

    begin, place = perf_counter(), None if store is None else Path(store)
    found = simulate_parity(options[0], store=place, name=name, any_name=any_name, progress=progress)
    if place is not None:
        save_simulation(place, found, duration=perf_counter() - begin, any_name=any_name)
    return found
