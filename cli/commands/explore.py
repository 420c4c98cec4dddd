"""`emergraph explore`: a page on which a reader walks through a graph."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from emergraph.analysis.explorer.options import ExplorerOptions
from emergraph.cli.app import command
from emergraph.cli.limits import LONG, Limits
from emergraph.cli.links import Links
from emergraph.cli.output import OutputFormat, Writing, emit_text, say
from emergraph.cli.reportsteps import Making, run_plan
from emergraph.cli.storeargs import GraphChoice, ModelChoice, weights_of
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.options import FileRole


class ExplorerOutput(Writing):
    """Where the page goes; to explorer.html by default."""

    formats = (OutputFormat.HTML,)
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write.  [default: explorer.html]"),
        FileRole.WRITES,
    ]


RUN_FOR_IT = ("audit", "trace")
"""Commands that run on a model, after its export."""


@command(
    examples="""
    emergraph explore net.duckdb --out net.html
    emergraph explore net.duckdb --graph vad --strongest 30
    emergraph explore model.onnx --inputs samples.npz
    emergraph explore llm.duckdb --model llm/
    """,
    limits=LONG,
)
def explore(  # noqa: PLR0913 - a parameter for each group of options
    source: Annotated[
        Path,
        typer.Argument(metavar="MODEL_OR_STORE", help="A store, or a model file to export, audit and trace."),
        FileRole.MODEL,
    ],
    *,
    graph: GraphChoice = None,
    options: ExplorerOptions,
    model: ModelChoice,
    making: Making,
    words: InputWords,
    links: Links,
    output: ExplorerOutput,
    limits: Limits,
) -> None:
    """Write a page to walk through a graph, layer by layer and edge by edge; it loads nothing.

    It has the layers, what the store knows about every unit, and the strongest edges into and out of each.
    From a model file, it exports, audits and traces the model first, and keeps the store. Edges left in
    the model file need --model.
    """
    from emergraph.analysis.explorer.page import explorer_page
    from emergraph.api.sources import is_store
    from emergraph.graphstore.store import open_store

    store, chosen, given = source, graph, model.given(links)
    if not is_store(source):
        plan = making.plan(source, words, links, limits.memory_limit, only=RUN_FOR_IT)
        chosen = str(run_plan(plan, say=lambda line: say(line, output)).graph)
        store, given = plan.store, weights_of(model.model or source, links, verify=model.verify)
    with given, open_store(store) as opened:
        text = explorer_page(opened.graph(chosen), options)
    emit_text(text, replace(output, out=output.out or Path("explorer.html")))
