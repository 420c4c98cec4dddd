"""`emergraph emergence`: path-count emergence of a graph under an activation trace."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emergraph.analysis.activity.options import ActivityOptions, ActivityRule
from emergraph.analysis.emergence.options import ExtentOptions, ReportOptions
from emergraph.analysis.emergence.views import result_view
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, StorePath, Verify, weights_of
from emergraph.errors import UsageError
from emergraph.memory import mebibytes

if TYPE_CHECKING:
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.paths.planning import CountPlan


@command(
    examples="""
    emergraph emergence net.duckdb
    emergraph emergence net.duckdb --dry-run
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
def emergence(  # noqa: PLR0913 - a parameter for each group of options
    store: StorePath,
    *,
    graph: GraphChoice = None,
    activity: ActivityOptions,
    report: ReportOptions,
    extent: ExtentOptions,
    conventions: EmergenceOptions,
    links: Links,
    verify: Verify = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count nothing; say what a count would take.")
    ] = False,
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Count the paths from inactive to active units (path-count emergence, arXiv 2409.01568)."""
    from emergraph import api

    _check(activity, report, extent)
    chosen = api.open_graph(store, graph)
    if dry_run:
        cases = len(report.thresholds) if isinstance(report.thresholds, tuple) else 1
        emit(_plan_view(chosen.emergence_plan(options=conventions, cases=cases)), output)
        return
    about: dict[str, Any] = {"rule": activity.rule, "trace": activity.trace, "save": save}
    single: dict[str, Any] = {"threshold": activity.threshold}
    common = {**about, "before": activity.before, "options": conventions}
    if extent.model is not None and not extent.runs_model and not chosen.in_place:
        raise UsageError("--model and --nulls are for null models: add --full")
    with weights_of(extent.model, links, verify=verify):
        if extent.positions:
            found: object = chosen.emergence_positions(_needed(extent, links), **single, **about)
        elif extent.full:
            kinds = report.null_kinds(runs_model=extent.model is not None)
            found = chosen.emergence_report(
                reference=extent.reference,
                report=replace(report, nulls=kinds),
                files=_files(extent, links),
                **single,
                **common,
            )
        elif report.thresholds is not None:
            found = chosen.emergence_sweep(report.grid, **common)
        elif _has_interval(activity, report):
            drawn: dict[str, Any] = {"draws": report.n_draws, "seed": report.seed}
            found = chosen.emergence_interval(options=conventions, **drawn, **single, **about)
        else:
            found = chosen.emergence(reference=extent.reference, **single, **common)
    emit(result_view(found), output)


def _plan_view(found: "CountPlan") -> View:
    facts = {
        "edges": found.edges,
        "full matrices": found.skipped,
        "rows of the store": found.rows,
        "weights in the file": found.in_file,
        "seconds": found.seconds,
        "memory": mebibytes(found.memory),
    }
    return View(facts=facts, document=found.to_dict())


def _has_interval(activity: ActivityOptions, report: ReportOptions) -> bool:
    return report.draws is not None or activity.rule is ActivityRule.PER_SAMPLE


def _check(activity: ActivityOptions, report: ReportOptions, extent: ExtentOptions) -> None:
    """Refuse options that do not go together."""
    if extent.positions:
        if extent.full or activity.before is not None:
            raise UsageError("--positions runs the model: give --model FILE, and no --full or --before")
        return
    if extent.full:
        return
    if report.nulls is not None:
        raise UsageError("--model and --nulls are for null models: add --full")
    if report.thresholds is not None:
        if report.draws is not None or activity.threshold is not None:
            raise UsageError("--thresholds sweeps: leave out --threshold and --draws, or add --full")
    elif _has_interval(activity, report) and activity.before is not None:
        raise UsageError("--draws needs samples, and weight_change has none: leave it out")


def _needed(extent: ExtentOptions, links: Links) -> "ModelFiles":
    files = _files(extent, links)
    if files is None:
        raise UsageError("--positions runs the model: give --model FILE, and no --full or --before")
    return files


def _files(extent: ExtentOptions, links: Links) -> "ModelFiles | None":
    """The model and its inputs; None without a model."""
    if extent.model is None:
        return None
    from emergraph.analysis.modelruns.files import ModelFiles

    return ModelFiles(model=extent.model, inputs=extent.inputs, root=links.root)
