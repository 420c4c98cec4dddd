"""`emergraph emergence`: path-count emergence of a graph under an activation trace."""

from typing import Annotated, Any

import typer

from emergraph.cli.app import command
from emergraph.cli.emergenceoptions import Activity, Conventions
from emergraph.cli.emergenceviews import count_view, interval_view, sweep_view
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, StorePath, name_or_id
from emergraph.errors import UsageError


@command(
    examples="""
    emergraph emergence net.duckdb
    emergraph emergence net.duckdb --graph vad --rule any --threshold 0.1
    emergraph emergence net.duckdb --thresholds 0.01,0.05,0.1,0.2 --format csv
    emergraph emergence net.duckdb --rule per_sample --draws 500 --seed 1 --format json
    """
)
def emergence(
    store: StorePath,
    *,
    graph: GraphChoice = None,
    activity: Activity,
    conventions: Conventions,
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Count the paths from inactive to active units (path-count emergence, arXiv 2409.01568)."""
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    common: dict[str, Any] = {
        "rule": activity.rule,
        "trace": name_or_id(activity.trace),
        "options": conventions.options(),
        "save": save,
    }
    if activity.thresholds is not None:
        if activity.draws or activity.threshold is not None:
            raise UsageError("--thresholds sweeps: leave out --threshold and --draws")
        view = sweep_view(chosen.emergence_sweep(activity.grid(), **common))
    elif activity.draws or activity.rule == "per_sample":
        draws, seed = activity.draws or 200, activity.seed
        view = interval_view(
            chosen.emergence_interval(threshold=activity.threshold, draws=draws, seed=seed, **common)
        )
    else:
        view = count_view(chosen.emergence(threshold=activity.threshold, **common))
    emit(view, output)
