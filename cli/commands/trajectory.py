"""`emergraph trajectory`: emergence along the snapshots of a training run."""

from typing import Annotated

import typer

from emergraph.analysis.activity.options import RuleOptions
from emergraph.analysis.emergence.options import SnapshotOptions, TrajectoryOptions
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.cli.app import command
from emergraph.cli.emergenceviews import trajectory_view
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import StorePath


@command(
    examples="""
    emergraph trajectory run.duckdb
    emergraph trajectory run.duckdb --graphs 'mlp-*' --metric validation_accuracy
    emergraph trajectory run.duckdb --metric loss --lower-is-better --patience 5
    emergraph trajectory run.duckdb --rule weight_change --format json
    """,
    limits=LONG,
)
def trajectory(
    store: StorePath,
    *,
    snapshots: SnapshotOptions,
    activity: RuleOptions,
    asked: TrajectoryOptions,
    conventions: EmergenceOptions,
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Follow emergence over training steps: with the change in a metric, and as a reason to stop."""
    from emergraph import api

    result = api.open_store(store).trajectory(
        snapshots.graphs,
        rule=activity.rule,
        threshold=activity.threshold,
        options=conventions,
        trajectory=asked,
        save=save,
    )
    emit(trajectory_view(result), output)
