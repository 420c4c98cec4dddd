"""`emergraph topology`: strengths, communities, cores, centralities, backbone and spectra of a graph."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emergraph.cli.app import command
from emergraph.cli.output import Output, View, emit
from emergraph.cli.storeargs import GraphChoice, StorePath
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.topology.options import TopologyOptions
    from emergraph.analysis.topology.topology import TopologyResult

VIEWS = ("layers", "blocks", "units", "spectra", "rich-club")


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is measured on what."""

    kinds: Annotated[
        str | None,
        typer.Option(metavar="KIND,...", help="Kinds of edges.  [default: weight,identity,gate,attention]"),
    ] = None
    alpha: Annotated[float, typer.Option(help="Level of the disparity filter that makes the backbone.")] = (
        0.05
    )
    nulls: Annotated[int, typer.Option(min=0, help="Null draws of the modularity.")] = 3
    seed: Annotated[int, typer.Option(min=0, help="Seed of Leiden and of the nulls.")] = 0
    max_edges: Annotated[
        int, typer.Option(min=0, help="Pairs of units beyond which the backbone is measured.")
    ] = 1_000_000
    motifs: Annotated[bool, typer.Option(help="Count motifs of blocks.")] = True
    spectra: Annotated[bool, typer.Option(help="Diagnose the spectrum of every weight tensor.")] = True

    def options(self) -> "TopologyOptions":
        """The library's options."""
        from emergraph.analysis.topology.options import TopologyOptions

        chosen: dict[str, Any] = {"kinds": tuple(self.kinds.split(","))} if self.kinds is not None else {}
        return TopologyOptions(
            alpha=self.alpha,
            nulls=self.nulls,
            seed=self.seed,
            max_edges=self.max_edges,
            motifs=self.motifs,
            spectra=self.spectra,
            **chosen,
        )


@command(
    examples="""
    emergraph topology net.duckdb
    emergraph topology net.duckdb --view spectra --format csv
    emergraph topology net.duckdb --view units --no-spectra --alpha 0.01 --out units.parquet
    """
)
def topology(
    store: StorePath,
    *,
    graph: GraphChoice = None,
    measuring: Measuring,
    view: Annotated[
        str, typer.Option(help="Second table: layers, blocks, units, spectra or rich-club.")
    ] = "layers",
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Measure a graph as a network, and the spectra of its weights."""
    if view not in VIEWS:
        raise UsageError(f"no view '{view}'; there is {', '.join(VIEWS)}")
    if view == "spectra" and not measuring.spectra:
        raise UsageError("--view spectra shows what --no-spectra leaves out: drop one of them")
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    result = chosen.topology(options=measuring.options(), save=save)
    emit(_view(result, view), output)


def _view(result: "TopologyResult", view: str) -> View:
    chosen = getattr(result, view.replace("-", "_"))
    facts = {"graph": result.graph, "alpha of the backbone": result.options.alpha}
    document = result.to_dict() | ({"units": result.units.to_dicts()} if view == "units" else {})
    if view == "layers":
        return View(rows=result.measures, details=chosen, facts=facts, document=document, notes=result.notes)
    return View(rows=chosen, facts=facts, document=document, notes=result.notes)
