"""`emergraph report`: everything about one graph, for people."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.limits import LONG, Limits
from emergraph.cli.links import Links
from emergraph.cli.output import OutputFormat, Writing, emit_text, say
from emergraph.cli.storeargs import AnyName, GraphChoice
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.options import FileRole

if TYPE_CHECKING:
    from emergraph.analysis.report.document import Report


class ReportOutput(Writing):
    """Where a report goes; a page goes to report.html by default."""

    formats = (OutputFormat.HTML, OutputFormat.JSON)
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write.  [default: report.html]"),
        FileRole.WRITES,
    ]


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
def report(
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
    terminal: Annotated[bool, typer.Option("--terminal", help="Print a short report instead.")] = False,
    output: ReportOutput,
    limits: Limits,
) -> None:
    """Write a report about a graph: a self-contained page that loads nothing and runs no script.

    From a model file it exports, traces and analyses with defaults in the budget, and keeps the store. What
    the store does not hold is left out, with the command that would make it.
    """
    made = _made(source, graph, making, words, links, output, limits.memory_limit)
    if terminal:
        from emergraph.cli.reportterminal import print_report

        print_report(made)
    elif output.resolved_format is OutputFormat.JSON:
        from emergraph.cli.jsonform import json_text

        emit_text(json_text(made), output)
    else:
        from emergraph.analysis.report.html import report_page

        emit_text(report_page(made), replace(output, out=output.out or Path("report.html")))


def _made(
    source: Path,
    graph: str | None,
    making: Making,
    words: InputWords,
    links: Links,
    output: ReportOutput,
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
    outcome = run_plan(plan, say=lambda line: say(line, output))
    with open_store(plan.store) as opened:
        return collect_report(
            opened.graph(outcome.graph), attempts=outcome.attempts, budget=plan.budget, model=source.name
        )
