"""`emergraph transition`: when training runs make their jump, and how that moves with the data's size."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.percolation.options import CollapseOptions, LogColumns
from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.tableinput import read_input_table
from emergraph.optionforms import TableForm

if TYPE_CHECKING:
    from emergraph.analysis.percolation.training import TrainingResult


@command(
    examples="""
    emergraph transition log.csv --metric accuracy
    emergraph transition runs.parquet --metric type_check --run seed,batch --format json
    """,
    limits=LONG,
)
def transition(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Parquet or CSV, one row per run and step; - for CSV on stdin."),
    ],
    *,
    columns: LogColumns,
    options: CollapseOptions,
    form: TableForm,
    output: Output,
) -> None:
    """Fit the transition of each training run, and the exponent with which it moves with |E||K|.

    A percolation curve is compared with smooth ones. Only the exponent, 0.5, is predicted, not the step.
    """
    from emergraph.analysis.percolation.training import training_transitions

    table = read_input_table(file, form, output)
    with progress_bar("fitting runs", output) as update:
        found = training_transitions(
            table,
            columns=columns,
            draws=options.draws,
            seed=options.seed,
            margin=options.margin,
            progress=update,
        )
    emit(_view(found), output)


def _view(result: "TrainingResult") -> View:
    facts: dict[str, object] = {"metric": result.metric, "runs": len(result.fits)}
    facts |= {f"best described by {sort}": n for sort, n in result.preferred().items() if n}
    if result.exponent is not None:
        told = result.exponent
        facts["exponent of |E||K|"] = (
            f"{told.exponent:.3g} ({told.low:.3g} to {told.high:.3g}), {told.method}"
        )
        facts["prediction 0.5"] = f"{told.verdict} (margin {told.margin:g})"
    notes = [f"left out: {reason}" for reason in result.left_out]
    if result.exponents:
        notes.append(result.statement)
    else:
        notes.append("no exponent: it needs at least three runs, of two sizes, that have a transition")
    return View(
        rows=result.runs(),
        details=result.exponent_table() if result.exponents else None,
        facts=facts,
        document=result.to_dict(),
        notes=notes,
        columns=(
            *("run", "n_entities", "n_properties", "n_points", "threshold", "threshold_low"),
            *("threshold_high", "middle", "bic_percolation", "bic_logistic", "bic_power", "best"),
        ),
    )
