"""`emergraph lineage`: which models are the same, derived from one another, or independent."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from emergraph.analysis.lineage.options import LineageOptions
from emergraph.cli.app import command
from emergraph.cli.limits import LONG, doing
from emergraph.cli.links import Links
from emergraph.cli.output import TABLES, Output, OutputFormat, emit
from emergraph.cli.storeargs import ResultStore
from emergraph.options import FileRole


class LineageOutput(Output):
    """Where relations go; as html, they are a page with the family tree."""

    formats = (*TABLES, OutputFormat.HTML)


@command(
    examples="""
    emergraph lineage net.duckdb
    emergraph lineage *.onnx
    emergraph lineage original.safetensors quantized.onnx --out lineage.html
    emergraph lineage downloads.duckdb suspect.onnx --store downloads.duckdb --format json
    """,
    limits=LONG,
)
def lineage(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS...",
            help="Model files, stores and lakes with all their graphs, or FILE.duckdb:graph.",
        ),
        FileRole.MODEL,
    ],
    *,
    options: LineageOptions,
    keeping: ResultStore,
    links: Links,
    output: LineageOutput,
) -> None:
    """Find which models are the same, derived from one another, or independent.

    Fingerprints find pairs that may be related; those are compared unit by unit. A p value is for "trained
    independently", corrected over all pairs. With --out FILE.html, the result is a page with the family tree.
    """
    from emergraph.analysis.lineage.analysis import save_lineage
    from emergraph.analysis.lineage.lineage import relate
    from emergraph.analysis.lineage.views import lineage_view
    from emergraph.api.sources import graph_sources

    begin = perf_counter()
    with ExitStack() as stack:
        sources, notes = graph_sources(models, links.root, stack)
        with doing("comparing models"):
            found = relate(sources, options)
    run = None
    if keeping.store is not None:
        seconds = perf_counter() - begin
        given = [Path(text).name for text in models]
        run = save_lineage(
            keeping.store, found, options, models=given, duration=seconds, any_name=keeping.any_name
        )

    def page() -> str:
        from emergraph.analysis.report.html import page_html
        from emergraph.analysis.report.lineagepage import lineage_page

        return page_html(lineage_page(found, notes=notes))

    emit(replace(lineage_view(found, run, notes=notes), texts={OutputFormat.HTML: page}), output)
