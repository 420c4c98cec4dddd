"""`emergraph concepts`: which entity-property pairs can be inferred from those that were seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.percolation.options import ConceptOptions, PairColumns
from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.tableinput import read_input_table
from emergraph.optionforms import TableForm

if TYPE_CHECKING:
    from emergraph.analysis.percolation.concepts import ConceptResult

SHOWN_POINTS = 20


@command(
    examples="""
    emergraph concepts pairs.parquet
    emergraph concepts stream.csv --time seen_at --class kind --format json
    emergraph concepts facts.csv --entity who --property what --entities 900 --properties 18000
    """,
    limits=LONG,
)
def concepts(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Parquet or CSV, one row per pair seen; - for CSV on stdin."),
    ],
    *,
    columns: PairColumns,
    options: ConceptOptions,
    form: TableForm,
    output: Output,
) -> None:
    """Find which unseen pairs entity-property data connect, and where they percolate (arXiv 2408.12578)."""
    from emergraph.analysis.percolation.concepts import concept_percolation

    table = read_input_table(file, form, output)
    with progress_bar("following pairs", output) as update:
        found = concept_percolation(table, columns=columns, options=options, progress=update)
    emit(_view(found), output)


def _view(result: "ConceptResult") -> View:
    share = "-" if result.inferable_share is None else f"{result.inferable_share:.4g}"
    facts: dict[str, object] = {
        "entities |E|": result.n_entities,
        "properties |K|": result.n_properties,
        "rows": result.n_observations,
        "distinct pairs M": result.n_pairs,
        "threshold M_c = sqrt(|E||K|)": f"{result.expected_threshold:.6g} pairs",
        "M / M_c": f"{result.relative:.4g}",
        "connected pairs": f"{result.connected} of {result.n_possible} ({result.connected_share:.4g})",
        "inferable though unseen": f"{result.inferable} ({share} of unseen)",
    }
    if result.classes.height > 1:
        facts["threshold M_c = sqrt(|E||K|)"] = (
            f"{result.expected_threshold:.6g} pairs, summed over {result.classes.height} classes"
        )
    notes = [f"{result.n_left_out} rows lack an entry and are left out"] if result.n_left_out else []
    every = max(1, result.curve.height // SHOWN_POINTS)
    shown = result.curve.drop("random_spread_low", "random_spread_high", "observations", strict=False)
    return View(
        rows=result.thresholds,
        details=shown.gather_every(every) if result.classes.height == 1 else result.classes,
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )
