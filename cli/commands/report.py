"""`emergraph report`: everything about one graph, for people."""

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.limits import LONG, Limits
from emergraph.cli.links import Links
from emergraph.cli.output import Output, say
from emergraph.cli.storeargs import AnyName, GraphChoice
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.options import FileRole

if TYPE_CHECKING:
    from emergraph.analysis.report.document import Report


class ReportFormat(StrEnum):
    """What a report is written as."""

    HTML = "html"
    JSON = "json"


@dataclass(frozen=True, kw_only=True)
class Making:
    """What is run where a model is given."""

    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Inputs to trace the model on.  [default: 64 random samples]"),
    ] = None
    store: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Where to keep the graph.  [default: the model's name, .duckdb]"),
        FileRole.STORES,
    ] = None
    any_name: AnyName = False
    budget: Annotated[str, typer.Option(metavar="TIME", help="Wall time for the whole report.")] = "60s"
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random draws.")] = 0


@command(
    examples="""
    emergraph report model.onnx
    emergraph report model.onnx --inputs samples.npz --budget 5m --out model.html
    emergraph report net.duckdb --graph vad --out vad.html
    emergraph report net.duckdb --terminal
    emergraph report net.duckdb --format json --out vad.json
    """,
    limits=LONG,
)
def report(  # noqa: PLR0913 - a parameter for each group of options
    source: Annotated[
        Path,
        typer.Argument(metavar="MODEL_OR_STORE", help="A store, or a model file to analyse with defaults."),
        FileRole.MODEL,
    ],
    *,
    graph: GraphChoice = None,
    making: Making,
    words: InputWords,
    links: Links,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write.  [default: report.html]"),
        FileRole.WRITES,
    ] = None,
    chosen: Annotated[
        ReportFormat | None,
        typer.Option("--format", help="html, or json for machines.  [default: by the name of --out]"),
    ] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="Print a short report instead.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    limits: Limits,
) -> None:
    """Write a report about a graph: a self-contained page that loads nothing and runs no script.

    From a model file it exports, traces and analyses with defaults in the budget, and keeps the store. What
    the store does not hold is left out, with the command that would make it.
    """
    talk = Output(quiet=quiet, debug=debug)
    made = _made(source, graph, making, words, links, talk, limits.memory_limit)
    if terminal:
        from emergraph.cli.reportterminal import print_report

        print_report(made)
        return
    suffix = out.suffix.lower() if out is not None else ""
    form = chosen or (ReportFormat.JSON if suffix == ".json" else ReportFormat.HTML)
    if form is ReportFormat.JSON:
        from emergraph.cli.jsonform import json_text

        text = json_text(made)
    else:
        from emergraph.analysis.report.html import report_page

        text = report_page(made)
    if out is None and form is ReportFormat.JSON:
        sys.stdout.write(text)
        return
    _write(text, out or Path("report.html"), talk)


def _write(text: str, target: Path, talk: Output) -> None:
    from emergraph.atomic import write_atomically

    data = text.encode()
    size = f"{len(data) / 1e6:.1f} MB" if len(data) >= 1e5 else f"{len(data) / 1e3:.0f} kB"
    write_atomically(target, data, then=lambda: say(f"Wrote {target} ({size})", talk))


def _made(
    source: Path,
    graph: str | None,
    making: Making,
    words: InputWords,
    links: Links,
    talk: Output,
    memory_limit: str,
) -> "Report":
    """The report, after running what a model needs."""
    from emergraph.analysis.report.collect import collect_report
    from emergraph.cli.reportsteps import ReportPlan, is_store, run_plan
    from emergraph.graphstore.store import open_store

    if is_store(source):
        with open_store(source) as opened:
            return collect_report(opened.graph(graph))
    from emergraph.optionforms import parse_seconds

    plan = ReportPlan(
        model=source,
        store=making.store or Path(f"{source.stem}.duckdb"),
        any_name=making.any_name,
        inputs=making.inputs,
        words=words,
        seed=making.seed,
        root=links.root,
        budget=parse_seconds(making.budget),
        memory_limit=memory_limit,
    )
    outcome = run_plan(plan, say=lambda line: say(line, talk))
    with open_store(plan.store) as opened:
        return collect_report(
            opened.graph(outcome.graph), attempts=outcome.attempts, budget=plan.budget, model=source.name
        )
