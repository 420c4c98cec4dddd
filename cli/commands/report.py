"""`emergraph report`: everything about one graph, for people."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.limits import LONG, Limits
from emergraph.cli.links import Links
from emergraph.cli.output import OutputFormat, Writing, emit_text, say
from emergraph.cli.reportsteps import Making, run_plan
from emergraph.cli.storeargs import GraphChoice
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
    from emergraph.api.sources import is_store
    from emergraph.graphstore.store import open_store

    if is_store(source):
        with open_store(source) as opened:
            return collect_report(opened.graph(graph))
    plan = making.plan(source, words, links, memory_limit)
    outcome = run_plan(plan, say=lambda line: say(line, output))
    with open_store(plan.store) as opened:
        return collect_report(
            opened.graph(outcome.graph), attempts=outcome.attempts, budget=plan.budget, model=source.name
        )
