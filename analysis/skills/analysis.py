"""`emergraph skills`: the solvable model of skills, fitted and simulated."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject
from emergraph.analysis.skills.options import FitOptions, SimulationOptions
from emergraph.analysis.view import BRIEF_ROWS, View, evenly
from emergraph.graphstore.results import Column, ResultTable
from emergraph.optionforms import TableForm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emergraph.analysis.skills.fit import SkillFit
    from emergraph.analysis.skills.simulate import Simulation

SKILLS = ResultTable(
    "skills",
    "One row per skill of a fit: calibrated on the first, predicted for the others.",
    (
        Column("skill", "BIGINT", "k, from 1, the most frequent first."),
        Column("share", "DOUBLE", "P(k) / P(1)."),
        Column("calibrated", "BOOLEAN", "True for the skill that the model was fitted to."),
        Column("predicted", "DOUBLE", "Where the skill emerges, in the units of the axis."),
        Column(
            "low",
            "DOUBLE",
            "Lower end of its 95 % interval over runs; NULL for fewer than three.",
        ),
        Column("high", "DOUBLE", "Upper end of it."),
        Column("observed", "DOUBLE", "Where it was observed to emerge; NULL for never."),
        Column("ratio", "DOUBLE", "observed / predicted."),
        Column("error", "DOUBLE", "Root mean squared error of its curve, share of the target."),
    ),
)
CURVES = ResultTable(
    "skills_curves",
    "One row per skill and recorded point of a fit.",
    (
        Column("skill", "BIGINT", "k, from 1."),
        Column("x", "DOUBLE", "Step, samples or parameters."),
        Column("observed", "DOUBLE", "Mean strength over runs, share of the target."),
        Column("predicted", "DOUBLE", "The model's."),
        Column("low", "DOUBLE", "Lower end of its 95 % interval."),
        Column("high", "DOUBLE", "Upper end of it."),
    ),
)
FAMILIES = ResultTable(
    "skills_families",
    "One row per kind of curve of a fit, each calibrated on skill 1 alone.",
    (
        Column("family", "VARCHAR", "Name of the curve."),
        Column("held_out_error", "DOUBLE", "Root mean squared error on the other skills."),
        Column("calibration_error", "DOUBLE", "The same on skill 1."),
        Column("parameters", "BIGINT", "Fitted numbers."),
    ),
)
RECORDED = ResultTable(
    "skills_recorded",
    "One row per step and skill of a simulation.",
    (
        Column("step", "BIGINT", "Training step."),
        Column("skill", "BIGINT", "k, from 1."),
        Column("frequency", "DOUBLE", "P(k)."),
        Column("strength", "DOUBLE", "R_k, the mean of f g_k over inputs of the skill."),
        Column("accuracy", "DOUBLE", "Share of inputs of the skill with the right sign, in [0, 1]."),
        Column("loss", "DOUBLE", "Of the step's batch."),
    ),
)
SECTION = SectionSpec(
    id="skills",
    title="Skills",
    lead="Models of what is learned, and when.",
    command="emergraph skills fit FILE --store STORE",
)


def fit_view(found: "SkillFit", source: str = "", run: int | None = None) -> View:
    """Return what is shown of a fit to the curves of a file, which a store may have kept."""
    facts: dict[str, object] = {
        **({"curves": source} if source else {}),
        "axis": str(found.options.axis),
        "runs": found.n_runs,
        "full strength": found.target,
        "calibrated": "skill 1",
        "predicted": f"skills 2 to {len(found.shares)}",
        "best held-out error": found.comparison()["family"][0],
    }
    if run is not None:
        facts["run"] = run
    families = found.comparison()
    return View(
        finding=_finding(found),
        rows=found.emergence,
        details=families,
        brief=[found.emergence.head(BRIEF_ROWS), families],
        facts=facts,
        document=found.to_dict(),
        notes=found.notes,
    )


def _finding(found: "SkillFit") -> str:
    """How far the model is off on the skills that are held out, and which place that is among the curves."""
    ours = found.families[0]
    if not isfinite(ours.held_out_error):
        return "Calibrated on skill 1; there is no other skill to predict."
    ranked = found.comparison()
    place = ranked["family"].to_list().index(ours.name)
    other = ranked.row(0 if place else 1, named=True)
    return (
        f"Calibrated on skill 1, the model ({ours.name}) is off by {ours.held_out_error:.3g} of the full "
        f"strength on skills 2 to {len(found.shares)}, the {'next' if place == 0 else 'best'} of "
        f"{ranked.height} curves, {other['family']}, by {other['held_out_error']:.3g}."
    )


def simulation_view(found: "Simulation", seconds: float | None = None, run: int | None = None) -> View:
    """Return what is shown of a simulation, which took some seconds, and which a store may have kept."""
    import polars as pl

    last = found.curves.filter(pl.col("step") == pl.col("step").max())
    facts: dict[str, object] = {
        "skills": found.options.n_skills,
        "steps": found.options.steps,
        "last loss": float(last["loss"][0]),
        "strengths": ", ".join(f"{value:.3g}" for value in last["strength"]),
        "snapshots": len(found.snapshots),
        "seed": found.options.seed,
    }
    if seconds is not None:
        facts["seconds"] = round(seconds, 2)
    if run is not None:
        facts["run"] = run
    learned = sum(value > found.options.target / 2 for value in last["strength"])
    return View(
        finding=f"{learned} of {found.options.n_skills} skills are past half of their strength after "
        f"{found.options.steps:,} steps; fit the curves with: emergraph skills fit FILE.",
        rows=found.curves,
        brief=[evenly(found.curves)],
        facts=facts,
        document=found.to_dict(),
    )


def _headline(rows: "Sequence[tuple[Any, ...]]", _parameters: "Mapping[str, Any]") -> str | None:
    if not rows:
        return None
    family, off, n = rows[0]
    return (
        f"of {n} curves that were calibrated on skill 1, {family} predicts the other skills best, off by "
        f"{off:.3g} of the full strength"
    )


FIT = Analysis(
    name="skills fit",
    summary="Calibrate the model on skill 1, predict the other skills, and compare with other curves.",
    of=Subject.FILE,
    options=(FitOptions, TableForm),
    show=fit_view,
    tables=(SKILLS, CURVES, FAMILIES),
    section=SECTION,
    headline=Headline(
        query=Query(
            name="skills",
            table="skills_families",
            shared=True,
            sql="""
SELECT family, held_out_error, count(*) OVER () FROM skills_families
WHERE run = {run} AND held_out_error IS NOT NULL ORDER BY held_out_error, family LIMIT 1""",
        ),
        text=_headline,
    ),
)
SIMULATE = Analysis(
    name="skills simulate",
    summary="Train a two-layer network on multitask sparse parity and record every skill (needs torch).",
    of=Subject.NOTHING,
    options=(SimulationOptions,),
    show=simulation_view,
    tables=(RECORDED,),
    section=SECTION,
)


def save_fit(
    path: str | Path, fit: "SkillFit", *, source: str, separator: str | None = None, any_name: bool = False
) -> int:
    """Write a fit to a store, which is made when missing; return the id of the run.

    Args:
        path: The store.
        fit: The fit.
        source: Name of the file with the curves.
        separator: Between its fields, if it was said.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
    """
    import polars as pl

    from emergraph.graphstore.store import open_store

    with open_store(path, mode="create", any_name=any_name) as store:
        return store.record_run(
            None,
            "skills fit",
            {
                **fit.options.kept(),
                "full_strength": fit.target,
                "n_runs": fit.n_runs,
                "source": source,
                "separator": separator,
            },
            result_tables={
                SKILLS.name: fit.emergence,
                CURVES.name: fit.curves(),
                FAMILIES.name: fit.comparison().with_columns(pl.col(pl.Float64).fill_nan(None)),
            },
        )


def save_simulation(
    path: str | Path, simulation: "Simulation", *, duration: float, any_name: bool = False
) -> int:
    """Write a simulation to a store, which is made when missing; return the id of the run."""
    from emergraph.graphstore.store import open_store

    graphs = [graph for _, graph in simulation.snapshots]
    with open_store(path, mode="create", any_name=any_name) as store:
        return store.record_run(
            graphs[0] if graphs else None,
            "skills simulate",
            {**simulation.options.to_dict(), "snapshots_graphs": graphs},
            seed=simulation.options.seed,
            duration=duration,
            result_tables={RECORDED.name: simulation.curves.drop("run")},
        )
