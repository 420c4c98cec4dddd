"""Trajectories of the snapshots in a store."""

import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.rules import activity_scores
from emergraph.analysis.activity.scores import rule_named
from emergraph.analysis.emergence.analysis import CORRELATIONS, STEPS, STOPPINGS
from emergraph.analysis.emergence.baselines import baselines
from emergraph.analysis.emergence.options import TrajectoryOptions
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.trajectory import (
    LaggedCorrelation,
    Stopping,
    Trajectory,
    change,
    corrected,
    lagged_correlations,
    stoppings,
)
from emergraph.analysis.paths.options import EmergenceOptions, Interior
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.errors import UsageError
from emergraph.graphstore.store import StoreFile
from emergraph.safetext import escape_controls
from emergraph.steps import steps

if TYPE_CHECKING:
    from emergraph.analysis.unitgraph import UnitGraph
    from emergraph.graphstore.results import ResultTable

MINIMUM_STEPS = 3


def chosen_snapshots(graphs: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """The graphs with one of these names, ids or patterns (`run-*`), by training run and step.

    Args:
        graphs: The table `graphs` of a store.
        wanted: Names, ids or patterns.

    Raises:
        UsageError: Fewer than three graphs are left of a run, some have no step, or two have the same one.
    """
    names = graphs["name"].to_list()
    ids = [str(i) for i in graphs["id"].to_list()]
    keep = [
        any(fnmatchcase(name, one) or number == one for one in wanted)
        for name, number in zip(names, ids, strict=True)
    ]
    chosen = graphs.filter(pl.Series(keep, dtype=pl.Boolean))
    if chosen["step"].null_count():
        unnamed = chosen.filter(pl.col("step").is_null())["name"][0]
        raise UsageError(f"graph '{unnamed}' has no training step: choose recorded snapshots with --graphs")
    training = pl.col("id").replace_strict(trainings(graphs), return_dtype=pl.String)
    chosen = chosen.with_columns(training=training).sort("training", "step")
    counts = chosen.group_by("training", maintain_order=True).agg(
        pl.len().alias("n"), pl.col("step").n_unique().alias("steps")
    )
    if not chosen.height:
        raise UsageError(f"none of the {graphs.height} graphs has one of these names: {', '.join(wanted)}")
    for name, n, n_steps in counts.iter_rows():
        run = f"run {escape_controls(name)[:60]!r}" if counts.height > 1 else "the run"
        if n < MINIMUM_STEPS:
            raise UsageError(
                f"a trajectory needs at least {MINIMUM_STEPS} snapshots of each run, and {run} has {n}: "
                "choose with --graphs"
            )
        if n != n_steps:
            raise UsageError(f"two graphs of {run} have the same training step: choose with --graphs")
    return chosen


def trainings(graphs: pl.DataFrame) -> dict[int, str]:
    """Return the name of the training run of each graph that has a step, by id, a different one for each run.

    The snapshots of one recording have its first one as their parent. Others belong together where their
    names differ by the step alone.

    Args:
        graphs: The table `graphs` of a store.
    """
    steps_of = {i: (name, step) for i, name, step in graphs.select("id", "name", "step").iter_rows()}
    parents = {i: parent for i, parent in graphs.select("id", "parent").iter_rows() if parent in steps_of}
    roots = sorted({root for i, root in parents.items() if None not in (steps_of[i][1], steps_of[root][1])})
    found: dict[int, str] = {}
    taken: set[str] = set()
    for root in roots:
        name, step = steps_of[root]
        base = re.sub(rf"-{step}(-\d+)?$", "", name)  # the second recording of a name is called `mlp-0-2`
        number = next(k for k in count(1) if _numbered(base, k) not in taken)
        taken.add(_numbered(base, number))
        for member in (root, *(i for i, parent in parents.items() if parent == root)):
            found[member] = _numbered(base, number)
    for i, (name, step) in steps_of.items():
        if step is not None and i not in found:
            found[i] = training_of(name, step)
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} ({number})"


def training_of(name: str, step: int) -> str:
    """Name of the training run of a graph by its own: that without the step.

    Example:
        >>> training_of("mlp-20", 20), training_of("last", 20)
        ('mlp', '')
    """
    ending = f"-{step}"
    return name.removesuffix(ending) if name.endswith(ending) else ""


def stored_trajectory(
    store: StoreFile,
    wanted: Sequence[str],
    *,
    rule: ActivityRule | str = ActivityRule.MEAN,
    threshold: float | None = None,
    options: EmergenceOptions | None = None,
    trajectory: TrajectoryOptions | None = None,
) -> Trajectory:
    """Count every snapshot and relate E to the change in a metric.

    Each snapshot is counted with its newest trace; for weight_change with the snapshot before it, so that the
    first one has no E.

    Args:
        store: The store.
        wanted: Names, ids or patterns of the snapshots.
        rule: Any activity rule but per_sample.
        threshold: Default: the rule's own.
        options: Conventions of the count.
        trajectory: Metric, lags, patience.

    Returns:
        `frame` has one row per run and step: training, graph, name, step, then for each interior
        `emergence_<interior>`, `log10_<interior>`, `per_param_<interior>`,
        `per_dense_param_<interior>`, `per_density_<interior>`; for chains of layers `emergence_printed`,
        `log10_printed` and `per_density_printed`; n_active, activity_sparsity, weight_sparsity,
        weight_l2; every recorded metric as `metric_<name>`; and `change_raw` and
        `change_smoothed`, the change in the chosen metric that follows the step.

    Raises:
        UsageError: The snapshots do not make a trajectory, or no snapshot has the metric.
    """
    options, wish = options or EmergenceOptions(), trajectory or TrajectoryOptions()
    rule = rule_named(rule)
    if rule is ActivityRule.PER_SAMPLE:
        raise UsageError("a trajectory needs one activity per snapshot: choose another rule than per_sample")
    chosen = chosen_snapshots(store.graphs(), wanted)
    metrics = {
        int(graph): dict(store.graph(int(graph)).metrics().drop_nulls().iter_rows())
        for graph in chosen["id"].to_list()
    }
    wish = wish.about({name for recorded in metrics.values() for name in recorded})
    for graph, name in chosen.select("id", "name").iter_rows():
        if wish.metric is not None and wish.metric not in metrics[graph]:
            raise UsageError(f"graph '{name}' has no metric '{wish.metric}', others have: leave it out")
    rows: list[dict[str, object]] = []
    before: UnitGraph | None = None
    text = ""
    last = None
    snapshots = chosen.select("id", "name", "step", "training").rows()
    for graph, name, step, training in steps(snapshots, "snapshots"):
        before, last = (before if training == last else None), training
        reader = store.graph(int(graph))
        unit_graph = read_unit_graph(reader)
        row: dict[str, object] = {"training": training, "graph": graph, "name": name, "step": step}
        if rule is not ActivityRule.WEIGHT_CHANGE or before is not None:
            trace = None if rule is ActivityRule.WEIGHT_CHANGE else read_unit_trace(reader)
            active = activity_scores(rule, unit_graph, trace=trace, before=before).above(threshold)
            text = active.text
            result = path_count_emergence(unit_graph, active, options=options)
            for count in result.counts:
                for kind in ("emergence", "per_param", "per_dense_param", "per_density"):
                    size = getattr(count, kind)
                    row[f"{kind}_{count.interior}"] = None if size is None else size.value
                row[f"log10_{count.interior}"] = count.emergence.to_dict()["log10"]
            if result.printed is not None:
                row["emergence_printed"] = result.printed.emergence.value
                row["log10_printed"] = result.printed.emergence.to_dict()["log10"]
                relative = result.printed.per_density
                row["per_density_printed"] = None if relative is None else relative.value
            figures = baselines(unit_graph, active, options=options)
            row |= {
                "n_active": result.n_active,
                "activity_sparsity": figures.activity_sparsity,
                "weight_sparsity": figures.weight_sparsity,
                "weight_l2": figures.weight_l2,
            }
        row |= {f"metric_{key}": value for key, value in metrics[int(graph)].items()}
        rows.append(row)
        before = unit_graph
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return _related(frame, text, options.interiors, wish)


def _related(
    frame: pl.DataFrame, text: str, interiors: Sequence[Interior], wish: TrajectoryOptions
) -> Trajectory:
    """Add the changes, correlations and stopping rules."""
    column = f"metric_{wish.metric}"
    left_out: list[str] = []
    correlations: list[LaggedCorrelation] = []
    found: list[Stopping] = []
    if wish.metric is None:
        left_out.append("the snapshots have no metrics: E has nothing to be compared with")
        return Trajectory(
            frame=frame,
            correlations=(),
            stoppings=(),
            activity=text,
            options=wish,
            left_out=tuple(left_out),
        )
    runs = frame.partition_by("training", maintain_order=True)
    runs = [_with_changes(run, column, wish) for run in runs]
    same_steps = len({tuple(run["step"].to_list()) for run in runs}) == 1
    if not same_steps:
        left_out.append("the runs have different steps: no correlation is taken over them")
    metric = [run[column].to_numpy().astype(np.float64) for run in runs]
    for interior in interiors:
        for measure, figure in _figures(interior).items():
            sizes = [run.select(figure.fill_null(math.nan)).to_series().to_numpy() for run in runs]
            if same_steps:
                correlations += lagged_correlations(measure, sizes, metric, wish)
        for run in runs:
            measured = run.filter(pl.col(f"emergence_{interior}").is_not_null())
            found += stoppings(
                f"emergence_{interior}",
                measured[f"emergence_{interior}"].to_numpy(),
                measured[column].to_numpy(),
                measured["step"].to_list(),
                wish,
                training=run["training"][0],
            )
    frame = pl.concat(runs)
    return Trajectory(
        frame=frame,
        correlations=corrected(correlations),
        stoppings=tuple(found),
        activity=text,
        options=wish,
        left_out=tuple(left_out),
    )


def _with_changes(run: pl.DataFrame, column: str, wish: TrajectoryOptions) -> pl.DataFrame:
    values = run[column].to_numpy()
    changes = {
        name: [*change(values, window=window).tolist(), None]
        for name, window in (("change_raw", 1), ("change_smoothed", wish.window))
    }
    return run.with_columns(pl.Series(name, column, dtype=pl.Float64) for name, column in changes.items())


def _figures(interior: Interior) -> dict[str, pl.Expr]:
    """What is correlated: E by its logarithm, finite where E is not, with E = 0 below all; and relative E."""
    logs = pl.col(f"log10_{interior}").cast(pl.Float64).fill_null(-1.0)
    size = pl.when(pl.col(f"emergence_{interior}").is_null()).then(None).otherwise(logs)
    relative = pl.col(f"per_density_{interior}").cast(pl.Float64)
    return {f"emergence_{interior}": size, f"per_density_{interior}": relative}


def trajectory_rows(result: Trajectory) -> dict[str, pl.DataFrame]:
    """Return the rows of the result tables of a trajectory, by table."""
    metric = f"metric_{result.options.metric}"
    interiors = [i for i in ("active", "any") if f"log10_{i}" in result.frame.columns]
    known = metric in result.frame.columns
    steps = [
        {
            "training": row["training"],
            "snapshot": row["graph"],
            "step": row["step"],
            "interior": interior,
            "emergence": row[f"emergence_{interior}"],
            "log10": row[f"log10_{interior}"],
            "per_density": row[f"per_density_{interior}"],
            "activity_sparsity": row["activity_sparsity"],
            "weight_sparsity": row["weight_sparsity"],
            "metric": row[metric] if known else None,
        }
        for row in result.frame.to_dicts()
        for interior in interiors
    ]
    tables: Mapping[ResultTable, list[dict[str, object]]] = {
        STEPS: steps,
        CORRELATIONS: [c.row() for c in result.correlations],
        STOPPINGS: [s.row() for s in result.stoppings],
    }
    return {table.name: pl.DataFrame(rows, schema=table.schema) for table, rows in tables.items()}
