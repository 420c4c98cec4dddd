"""`emergraph topology`: strengths, communities, cores, centralities, backbone and spectra of a graph."""

from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.topology.options import TopologyOptions
from emergraph.analysis.view import View
from emergraph.choices import unknown
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, StorePath
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.topology.topology import TopologyResult

VIEWS = ("layers", "blocks", "units", "spectra", "rich-club")


@command(
    examples="""
    emergraph topology net.duckdb
    emergraph topology net.duckdb --view spectra --format csv
    emergraph topology net.duckdb --view units --no-spectra --alpha 0.01 --out units.parquet
    """,
    limits=LONG,
)
def topology(
    store: StorePath,
    *,
    graph: GraphChoice = None,
    options: TopologyOptions,
    view: Annotated[
        str, typer.Option(help="Second table: layers, blocks, units, spectra or rich-club.")
    ] = "layers",
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Measure a graph as a network, and the spectra of its weights."""
    if view not in VIEWS:
        raise UsageError(unknown("view", view, VIEWS))
    if view == "spectra" and not options.spectra:
        raise UsageError("--view spectra shows what --no-spectra leaves out: drop one of them")
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    result = chosen.topology(options=options, save=save)
    emit(_view(result, view), output)


def _view(result: "TopologyResult", view: str) -> View:
    chosen = getattr(result, view.replace("-", "_"))
    facts = {"graph": result.graph, "alpha of the backbone": result.options.alpha}
    document = result.to_dict() | ({"units": result.units.to_dicts()} if view == "units" else {})
    if view == "layers":
        return View(rows=result.measures, details=chosen, facts=facts, document=document, notes=result.notes)
    return View(rows=chosen, facts=facts, document=document, notes=result.notes)
