"""`emergraph trajectory`: emergence along the snapshots of a training run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.emergenceoptions import Conventions
from emergraph.cli.emergenceviews import trajectory_view
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import StorePath

if TYPE_CHECKING:
    from emergraph.analysis.emergence.trajectory import TrajectoryOptions


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is asked of the run."""

    metric: Annotated[str, typer.Option(help="Recorded metric whose change E is compared with.")] = "accuracy"
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="The metric is one to be small, such as a loss.")
    ] = False
    window: Annotated[int, typer.Option(help="Steps of the trailing mean that smooths the metric.")] = 3
    max_lag: Annotated[int, typer.Option(help="Largest lag between E and the change that follows.")] = 3
    permutations: Annotated[int, typer.Option(help="Draws behind each p value.")] = 9999
    patience: Annotated[int, typer.Option(help="Steps that a stopping rule waits.")] = 3
    min_delta: Annotated[float, typer.Option(help="What counts as an improvement of the metric.")] = 0.0
    tolerance: Annotated[float, typer.Option(help="E has settled when a step changes it by this share.")] = (
        0.01
    )
    share: Annotated[float, typer.Option(help="E is near zero at this share of its largest value.")] = 0.01
    seed: Annotated[int, typer.Option(help="Seed of the permutations.")] = 0

    def options(self) -> "TrajectoryOptions":
        """The library's options."""
        from emergraph.analysis.emergence.trajectory import TrajectoryOptions

        return TrajectoryOptions(
            metric=self.metric,
            higher_is_better=not self.lower_is_better,
            window=self.window,
            max_lag=self.max_lag,
            n_permutations=self.permutations,
            seed=self.seed,
            patience=self.patience,
            min_delta=self.min_delta,
            tolerance=self.tolerance,
            share=self.share,
        )


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
    graphs: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Snapshots by name, id or pattern, such as 'mlp-*'."),
    ] = "*",
    rule: Annotated[
        str, typer.Option(help="mean, mean_abs, any, majority, contribution or weight_change.")
    ] = "mean",
    threshold: Annotated[
        float | None, typer.Option(help="A unit is active above it.  [default: 0.05, for contribution 1]")
    ] = None,
    course: Course,
    conventions: Conventions,
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Follow emergence over training steps: with the change in a metric, and as a reason to stop."""
    from emergraph import api

    result = api.open_store(store).trajectory(
        graphs.split(","),
        rule=rule,
        threshold=threshold,
        options=conventions.options(),
        trajectory=course.options(),
        save=save,
    )
    emit(trajectory_view(result), output)
