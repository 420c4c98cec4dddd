"""Fits, predictions and simulations of skills as rows of a store."""

from pathlib import Path

import polars as pl

from emergraph.analysis.skills.analysis import CURVES, FAMILIES, RECORDED, SKILLS
from emergraph.analysis.skills.fit import SkillFit
from emergraph.analysis.skills.simulate import Simulation
from emergraph.graphstore.store import open_store


def save_fit(
    path: str | Path, fit: SkillFit, *, source: str, separator: str | None = None, any_name: bool = False
) -> int:
    """Write a fit to a store, which is made when missing; return the id of the run.

    Args:
        path: The store.
        fit: The fit.
        source: Name of the file with the curves.
        separator: Between its fields, if it was said.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
    """
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
    path: str | Path, simulation: Simulation, *, duration: float, any_name: bool = False
) -> int:
    """Write a simulation to a store, which is made when missing; return the id of the run."""
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
