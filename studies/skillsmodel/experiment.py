"""Simulations with snapshots, and what the graphs of the snapshots measure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from emergraph.analysis.activity.rules import activity
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.skills.fit import crossing
from emergraph.analysis.skills.simulate import SimulationOptions, simulate_parity
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.graphstore.store import open_store

Say = Callable[[str], None]


def run_seed(options: SimulationOptions, store: Path, say: Say) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Train with one seed; return the curves and one row per snapshot with the measures of its graph."""
    found = simulate_parity(options, store=store, name=f"parity{options.seed}")
    say(f"seed {options.seed}: trained")
    rows = [{"run": options.seed, "step": step, **measures(store, graph)} for step, graph in found.snapshots]
    say(f"seed {options.seed}: {len(rows)} snapshots measured")
    return found.curves, pl.DataFrame(rows)


def measures(store: Path, graph: int) -> dict[str, float]:
    """Path-count emergence (log10; rule mean for both interiors, mean_abs) and the percolation threshold."""
    with open_store(store) as opened:
        reader = opened.graph(graph)
        units, trace = read_unit_graph(reader), read_unit_trace(reader)
        result = path_count_emergence(units, activity("mean", units, threshold=0.05, trace=trace))
        absolute = path_count_emergence(units, activity("mean_abs", units, threshold=0.05, trace=trace))
        percolation = percolate(units, options=PercolationOptions(seeds=1, nulls=0))
    return {
        "log10_active": log10(result.active.emergence.log10),
        "log10_any": log10(result.any.emergence.log10),
        "log10_abs": log10(absolute.active.emergence.log10),
        "percolation": percolation.observed.threshold / percolation.n_edges,
    }


def log10(value: float) -> float:
    """Log of 1 + the count: a network without paths has 0."""
    return float(np.logaddexp(0, value * np.log(10)) / np.log(10))


def emergence_steps(curves: pl.DataFrame, target: float, share: float = 0.5) -> dict[int, list[float]]:
    """By run: the steps at which its skills reach a share of the target; those that do."""
    found: dict[int, list[float]] = {}
    for (run, _), one in curves.sort("step").group_by(["run", "skill"], maintain_order=True):
        step = crossing(one["step"].cast(pl.Float64).to_numpy(), one["strength"].to_numpy() / target, share)
        if np.isfinite(step):
            found.setdefault(int(run), []).append(step)
    return found


def change_effect(
    snapshots: pl.DataFrame, emergence: dict[int, list[float]], measure: str, *, draws: int, seed: int
) -> dict[str, float | str]:
    """How much more a measure changes between the snapshots around which a skill emerges than elsewhere.

    The difference is the mean of |change| over the intervals that hold an emergence, less that over the
    others, runs pooled, each run's changes divided by their mean. Beside it, what it is when the intervals
    with an emergence are shifted along the training, wrapped around, by a random number of snapshots per run.
    That is no null hypothesis, and gives no p value: a measure whose changes decay has nothing to do with
    skills, and would be called significant never or always, by whether most of them emerge early.
    """
    rng = np.random.default_rng(seed)
    changes, marks = [], []
    for (run,), one in snapshots.sort("step").group_by(["run"], maintain_order=True):
        steps = one["step"].to_numpy()
        change = np.abs(np.diff(one[measure].to_numpy()))
        change = change / change.mean() if change.mean() > 0 else change
        places = np.searchsorted(steps, emergence.get(int(run), []), side="left") - 1
        mark = np.zeros(len(change), dtype=bool)
        mark[np.clip(places, 0, len(change) - 1)] = True
        changes.append(change)
        marks.append(mark)

    def difference(moved: list[np.ndarray]) -> float:
        c, m = np.concatenate(changes), np.concatenate(moved)
        return float(c[m].mean() - c[~m].mean())

    shifted = [difference([np.roll(m, rng.integers(len(m))) for m in marks]) for _ in range(draws)]
    low, high = np.percentile(shifted, (2.5, 97.5))
    return {
        "measure": measure,
        "difference": difference(marks),
        "shifted_spread_low": float(low),
        "shifted_spread_high": float(high),
        "intervals": int(sum(map(len, marks))),
        "with_emergence": int(sum(map(np.sum, marks))),
    }
