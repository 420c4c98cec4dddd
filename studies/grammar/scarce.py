"""Where pairs are scarce: when unseen pairs are learned, and which, beside what the stated ones connect."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from planned import Row, judge, named, over_replicates, read_plan

from grammar.experiment import Run
from grammar.findings import PRIMARY
from grammar.language import make_language

PLAN = read_plan("percolation")
LEARNED = 0.1
"""Decades of odds from which on a model has learned anything of unseen pairs."""
MANY = 100
"""Pairs that an odds ratio is taken over, at least."""


def per_run(logs: pl.DataFrame, settings: Mapping[str, tuple[Run, ...]]) -> pl.DataFrame:
    """One row per run: when the pairs percolate, when unseen ones are half learned, and which are."""
    rows = []
    for setting, runs in settings.items():
        for run in runs:
            own = logs.filter(setting=setting, n_properties=run.n_properties, seed=run.seed).sort("step")
            if own.is_empty():
                continue  # not trained yet
            used = make_language(run.n_entities, run.n_properties, seed=run.seed).used.sum()
            step = float(np.sqrt(run.n_entities * used) / run.release)
            about = {
                "setting": setting,
                "n_properties": run.n_properties,
                "seed": run.seed,
                "percolates": step,
            }
            rows.append(about | _learned(own) | {"late": None} | _which(own))
    found = pl.DataFrame(rows, infer_schema_length=None)
    late = (pl.col("half").cast(pl.Float64) / pl.col("percolates")).log(10)
    return found.with_columns(late.alias("late"))


def _learned(own: pl.DataFrame) -> dict[str, float | None]:
    """The step at which the lift of unseen pairs is first half its last value; None where that is nothing."""
    steps, lift = own["step"].to_numpy().astype(float), own["unseen_lift"].to_numpy()
    above = np.flatnonzero(lift >= lift[-1] / 2)
    if lift[-1] < LEARNED or above[0] == 0:
        return {"half": None, "last_lift": float(lift[-1])}
    at = above[0]
    share = (lift[-1] / 2 - lift[at - 1]) / (lift[at] - lift[at - 1])
    return {"half": float(steps[at - 1] + share * (steps[at] - steps[at - 1])), "last_lift": float(lift[-1])}


def _which(own: pl.DataFrame) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in ("apart", "connected"):
        many = own.filter(pl.col(f"n_{name}") > MANY)
        found[name] = float(many[f"{name}_lift"][-1]) if many.height else None
        found[f"{name}_step"] = float(many["step"][-1]) if many.height else None
    return found


def primary(exponents: pl.DataFrame, runs: pl.DataFrame | None) -> pl.DataFrame:
    """The plan's claims: exponents as the collapse has them, and the runs where pairs are scarce."""
    rows: list[Row] = []
    for claim in ("exponent", "control"):
        said = PLAN["claims"][claim]
        found = exponents.filter(group=said["setting"], metric=said["metric"], method="collapse").to_dicts()[
            0
        ]
        row = {"mean": found["exponent"], "low": found["low"], "high": found["high"], "n": found["n_runs"]}
        rows.append(named("percolation", claim, setting=said["setting"]) | row)
    for claim, column in (("after", "late"), ("apart", "apart"), ("blind", "apart"), ("joined", "connected")):
        setting = PLAN["claims"][claim]["setting"]
        if runs is None:
            continue
        values = runs.filter(setting=setting)[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        if len(values):
            rows.append(
                named("percolation", claim, setting=setting) | over_replicates(values, unit="decades")
            )
    return judge(rows, level=PLAN["level"])


def both_exponents(exponents: pl.DataFrame) -> tuple[float, float]:
    """Of descriptive and of relative types, with batches of 64."""
    chosen = exponents.filter(group="batch64", method="collapse")
    return tuple(float(chosen.filter(metric=name)["exponent"][0]) for name in (PRIMARY, "relative_mass"))  # type: ignore[return-value]
