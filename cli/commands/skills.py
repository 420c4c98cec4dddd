"""`emergraph skills`: the solvable model of skills, fitted, predicted and simulated."""

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from emergraph.analysis.skills.options import (
    FitOptions,
    ModelParameters,
    PredictionOptions,
    SimulationOptions,
)
from emergraph.cli.app import app, command
from emergraph.cli.limits import LONG, doing
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import ResultStore
from emergraph.cli.tableinput import read_input_table
from emergraph.optionforms import TableForm

skills = typer.Typer(
    help="Skills that emerge one after the other: a solvable model (arXiv 2404.17563).",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="\b\nExamples:\n  emergraph skills simulate --out curves.csv\n  emergraph skills fit curves.csv",
)
app.add_typer(skills, name="skills")


@command(
    name="fit",
    group=skills,
    examples="""
    emergraph skills fit curves.csv
    emergraph skills fit curves.parquet --axis data --alpha 0.6 --store runs.duckdb
    """,
    limits=LONG,
)
def fit(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV or Parquet: skill, x (or step), strength[, run, frequency]."
        ),
    ],
    *,
    options: FitOptions,
    form: TableForm,
    keeping: ResultStore,
    output: Output,
) -> None:
    """Calibrate the model on skill 1, predict the other skills, and compare with other curves."""
    from emergraph.analysis.skills.analysis import fit_view, save_fit
    from emergraph.analysis.skills.fit import fit_skills, read_curves

    store = keeping.store
    curves = read_curves(read_input_table(file, form, output))
    with doing("fitting curves"):
        found = fit_skills(curves, options)
    run = (
        None
        if store is None
        else save_fit(store, found, source=file.name, separator=form.separator, any_name=keeping.any_name)
    )
    emit(fit_view(found, file.name, run), output)


@command(
    name="predict",
    group=skills,
    examples="""
    emergraph skills predict --skills 5 --alpha 0.6
    emergraph skills predict --times 100,1000,10000 --format json
    emergraph skills predict --samples 1000,10000 --parameters 4,8,16
    """,
    limits=LONG,
)
def predict(
    *,
    model: ModelParameters,
    at: PredictionOptions,
    output: Output,
) -> None:
    """Say when each skill emerges, and how the loss scales with time, data, parameters and compute."""
    from emergraph.analysis.skills.prediction import predict_skills, prediction_view

    found = predict_skills(model, times=at.times, samples=at.samples, parameters=at.parameters)
    emit(prediction_view(found), output)


@command(
    name="simulate",
    group=skills,
    examples="""
    emergraph skills simulate --out curves.csv
    emergraph skills simulate --steps 20000 --width 1000 --snapshots 40 --store parity.duckdb
    """,
    limits=LONG,
)
def simulate(
    *,
    task: SimulationOptions,
    name: Annotated[str, typer.Option(help="Name of the snapshots.")] = "parity",
    keeping: ResultStore,
    output: Output,
) -> None:
    """Train a two-layer network on multitask sparse parity and record every skill (needs torch)."""
    from emergraph.analysis.skills.analysis import save_simulation, simulation_view
    from emergraph.analysis.skills.simulate import simulate_parity

    begin, store = perf_counter(), keeping.store
    with progress_bar("training", output) as update:
        found = simulate_parity(task, store=store, name=name, any_name=keeping.any_name, progress=update)
    seconds = perf_counter() - begin
    run = None
    if store is not None:
        run = save_simulation(store, found, duration=seconds, any_name=keeping.any_name)
    emit(simulation_view(found, seconds, run), output)
