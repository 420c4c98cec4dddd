"""`emergraph emergence`: path-count emergence of a graph under an activation trace."""

from typing import Annotated, Any

import typer

from emergraph.cli.app import command
from emergraph.cli.emergenceoptions import Activity, Conventions, Fullness
from emergraph.cli.emergenceviews import (
    count_view,
    interval_view,
    position_view,
    report_view,
    sweep_view,
)
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, StorePath, name_or_id
from emergraph.errors import UsageError


@command(
    examples="""
    emergraph emergence net.duckdb
    emergraph emergence net.duckdb --full --model net.onnx
    emergraph emergence net.duckdb --positions --model net.onnx --inputs test.npz
    emergraph emergence net.duckdb --graph vad --rule any --threshold 0.1
    emergraph emergence net.duckdb --graph epoch-9 --rule weight_change --before epoch-8
    emergraph emergence net.duckdb --graph pruned --reference dense
    emergraph emergence net.duckdb --thresholds 0.01,0.05,0.1,0.2 --format csv
    emergraph emergence net.duckdb --rule per_sample --draws 500 --seed 1 --format json
    """,
    limits=LONG,
)
def emergence(
    store: StorePath,
    *,
    graph: GraphChoice = None,
    activity: Activity,
    fullness: Fullness,
    conventions: Conventions,
    links: Links,
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Count the paths from inactive to active units (path-count emergence, arXiv 2409.01568)."""
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    common: dict[str, Any] = {**activity.common(), "options": conventions.options(), "save": save}
    reference = name_or_id(fullness.reference)
    if fullness.positions:
        files = fullness.files(links)
        if files is None or fullness.full or activity.before is not None:
            raise UsageError("--positions runs the model: give --model FILE, and no --full or --before")
        view = position_view(
            chosen.emergence_positions(
                files,
                rule=activity.rule,
                threshold=activity.threshold,
                trace=name_or_id(activity.trace),
                save=save,
            )
        )
    elif fullness.full:
        view = report_view(
            chosen.emergence_report(
                threshold=activity.threshold,
                reference=reference,
                report=fullness.options(activity),
                files=fullness.files(links),
                **common,
            )
        )
    elif fullness.model is not None or fullness.nulls is not None:
        raise UsageError("--model and --nulls are for null models: add --full")
    elif activity.thresholds is not None:
        if activity.draws or activity.threshold is not None:
            raise UsageError("--thresholds sweeps: leave out --threshold and --draws, or add --full")
        view = sweep_view(chosen.emergence_sweep(activity.grid(), **common))
    elif activity.draws or activity.rule == "per_sample":
        if common.pop("before") is not None:
            raise UsageError("--draws needs samples, and weight_change has none: leave it out")
        draws, seed = activity.draws or 200, activity.seed
        view = interval_view(
            chosen.emergence_interval(threshold=activity.threshold, draws=draws, seed=seed, **common)
        )
    else:
        view = count_view(chosen.emergence(threshold=activity.threshold, reference=reference, **common))
    emit(view, output)
