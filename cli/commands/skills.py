"""`emergraph skills`: the solvable model of skills, fitted, predicted and simulated."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.app import app, command
from emergraph.cli.limits import LONG, doing
from emergraph.cli.output import Output, View, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import Keeping
from emergraph.cli.tableinput import TableForm
from emergraph.optionforms import parse_numbers
from emergraph.options import member

if TYPE_CHECKING:
    from emergraph.analysis.skills.fit import FitOptions, SkillFit
    from emergraph.analysis.skills.prediction import ModelParameters, Prediction
    from emergraph.analysis.skills.simulate import Simulation, SimulationOptions

skills = typer.Typer(
    help="Skills that emerge one after the other: a solvable model (arXiv 2404.17563).",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="\b\nExamples:\n  emergraph skills simulate --out curves.csv\n  emergraph skills fit curves.csv",
)
app.add_typer(skills, name="skills")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How recorded curves are read and predicted."""

    axis: Annotated[str, typer.Option(help="What x is: time, data or parameters.")] = "time"
    alpha: Annotated[
        float | None, typer.Option(help="Frequencies are k^-(alpha+1).  [default: the column frequency]")
    ] = None
    target: Annotated[
        float | None, typer.Option(help="Full strength S.  [default: the largest of skill 1]")
    ] = None
    share: Annotated[float, typer.Option(help="A skill has emerged at this share of S.")] = 0.5
    draws: Annotated[int, typer.Option(min=0, help="Calibrations behind an interval.")] = 200
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0

    def options(self) -> "FitOptions":
        """The library's."""
        from emergraph.analysis.skills.families import Axis
        from emergraph.analysis.skills.fit import FitOptions

        return FitOptions(
            axis=member(Axis, self.axis, "axis"),
            alpha=self.alpha,
            target=self.target,
            share=self.share,
            draws=self.draws,
            seed=self.seed,
        )


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
    calibration: Calibration,
    form: TableForm,
    keeping: Keeping,
    output: Output,
) -> None:
    """Calibrate the model on skill 1, predict the other skills, and compare with other curves."""
    from emergraph.analysis.skills.fit import fit_skills, read_curves
    from emergraph.analysis.skills.saving import save_fit

    store = keeping.store
    curves = read_curves(form.read(file, output))
    with doing("fitting curves"):
        found = fit_skills(curves, calibration.options())
    run = None if store is None else save_fit(store, found, source=file.name, any_name=keeping.any_name)
    emit(_fit_view(found, file.name, run), output)


def _fit_view(found: "SkillFit", source: str, run: int | None) -> View:
    facts: dict[str, object] = {
        "curves": source,
        "axis": str(found.options.axis),
        "runs": found.n_runs,
        "full strength": found.target,
        "calibrated": "skill 1",
        "predicted": f"skills 2 to {len(found.shares)}",
        "best held-out error": found.comparison()["family"][0],
        "seed": found.options.seed,
    }
    if run is not None:
        facts["run"] = run
    return View(rows=found.emergence, details=found.comparison(), facts=facts, document=found.to_dict())


@dataclass(frozen=True, kw_only=True)
class Model:
    """The parameters of the solvable model."""

    n_skills: Annotated[int, typer.Option("--skills", min=1, help="Skills.")] = 5
    alpha: Annotated[float, typer.Option(help="Frequencies are k^-(alpha+1).")] = 0.6
    target: Annotated[float, typer.Option(help="Full strength S.")] = 5.0
    start: Annotated[float, typer.Option(help="Strength R(0) at the start.")] = 0.01
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.05
    time_factor: Annotated[
        float, typer.Option(help="Speed beside the model; 1/22 = 0.0455 for the paper's network.")
    ] = 1.0
    per_skill: Annotated[float, typer.Option(help="Parameters that one skill takes.")] = 4
    samples_per_skill: Annotated[float, typer.Option(help="Samples that one skill takes.")] = 800
    share: Annotated[float, typer.Option(help="A skill emerges at this share of S.")] = 0.05

    def parameters(self) -> "ModelParameters":
        """The library's."""
        from emergraph.analysis.skills.prediction import ModelParameters

        return ModelParameters(
            n_skills=self.n_skills,
            alpha=self.alpha,
            target=self.target,
            start=self.start,
            rate=self.rate,
            time_factor=self.time_factor,
            per_skill=self.per_skill,
            samples_per_skill=self.samples_per_skill,
            share=self.share,
        )


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
    model: Model,
    times: Annotated[str | None, typer.Option(metavar="T,...", help="Steps to give strengths at.")] = None,
    samples: Annotated[
        str | None, typer.Option(metavar="D,...", help="Numbers of samples, both readings of the paper.")
    ] = None,
    parameters: Annotated[str | None, typer.Option(metavar="N,...", help="Numbers of parameters.")] = None,
    output: Output,
) -> None:
    """Say when each skill emerges, and how the loss scales with time, data, parameters and compute."""
    from emergraph.analysis.skills.prediction import predict_skills

    at = [
        () if text is None else parse_numbers(text, option)
        for text, option in ((times, "--times"), (samples, "--samples"), (parameters, "--parameters"))
    ]
    found = predict_skills(model.parameters(), times=at[0], samples=at[1], parameters=at[2])
    emit(_prediction_view(found), output)


def _prediction_view(found: "Prediction") -> View:
    laws = {
        f"loss against {law.axis}": f"{law.prefactor:.4g} {law.axis}^{law.exponent:.4f}" for law in found.laws
    }
    facts: dict[str, object] = {"alpha": found.model.alpha, "full strength": found.model.target, **laws}
    wide = None
    if found.curves.height:
        wide = found.curves.pivot(on="skill", index=["axis", "x", "reading"], values="strength")
    return View(rows=found.skills, details=wide, facts=facts, document=found.to_dict())


@dataclass(frozen=True, kw_only=True)
class Task:
    """The parity task, the network and its training."""

    n_skills: Annotated[int, typer.Option("--skills", min=1, help="Skills.")] = 5
    alpha: Annotated[float, typer.Option(help="Frequencies are k^-(alpha+1).")] = 0.6
    bits: Annotated[int, typer.Option(min=1, help="Random bits of an input.")] = 32
    relevant: Annotated[int, typer.Option(min=1, help="Bits that a skill's parity is of.")] = 3
    target: Annotated[float, typer.Option(help="Full strength S.")] = 5.0
    width: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 256
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.05
    batch: Annotated[int, typer.Option(min=1, help="Inputs per step.")] = 2000
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 4000
    points: Annotated[int, typer.Option(min=1, help="Steps at which strengths are measured.")] = 80
    snapshots: Annotated[int, typer.Option(min=0, help="Networks that go to --store.")] = 0
    seed: Annotated[int, typer.Option(min=0, help="Seed of task, network and inputs.")] = 0

    def options(self) -> "SimulationOptions":
        """The library's."""
        from emergraph.analysis.skills.simulate import SimulationOptions

        return SimulationOptions(
            n_skills=self.n_skills,
            alpha=self.alpha,
            bits=self.bits,
            relevant=self.relevant,
            target=self.target,
            width=self.width,
            rate=self.rate,
            batch=self.batch,
            steps=self.steps,
            points=self.points,
            snapshots=self.snapshots,
            seed=self.seed,
        )


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
    task: Task,
    name: Annotated[str, typer.Option(help="Name of the snapshots.")] = "parity",
    keeping: Keeping,
    output: Output,
) -> None:
    """Train a two-layer network on multitask sparse parity and record every skill (needs torch)."""
    from emergraph.analysis.skills.saving import save_simulation
    from emergraph.analysis.skills.simulate import simulate_parity

    begin, store = perf_counter(), keeping.store
    with progress_bar("training", output) as update:
        found = simulate_parity(
            task.options(), store=store, name=name, any_name=keeping.any_name, progress=update
        )
    seconds = perf_counter() - begin
    run = None
    if store is not None:
        run = save_simulation(store, found, duration=seconds, any_name=keeping.any_name)
    emit(_simulation_view(found, seconds, run), output)


def _simulation_view(found: "Simulation", seconds: float, run: int | None) -> View:
    import polars as pl

    last = found.curves.filter(pl.col("step") == pl.col("step").max())
    facts: dict[str, object] = {
        "skills": found.options.n_skills,
        "steps": found.options.steps,
        "last loss": float(last["loss"][0]),
        "strengths": ", ".join(f"{value:.3g}" for value in last["strength"]),
        "snapshots": len(found.snapshots),
        "seed": found.options.seed,
        "seconds": round(seconds, 2),
    }
    if run is not None:
        facts["run"] = run
    return View(rows=found.curves, facts=facts, document=found.to_dict())
