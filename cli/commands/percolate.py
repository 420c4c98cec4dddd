"""`emergraph percolate`: what grows together as the edges of a graph are added one by one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emergraph.cli.app import command
from emergraph.cli.output import Output, View, emit
from emergraph.cli.storeargs import GraphChoice, StorePath, name_or_id

if TYPE_CHECKING:
    from emergraph.analysis.percolation.options import PercolationOptions
    from emergraph.analysis.percolation.result import PercolationResult

SHOWN_POINTS = 20


@dataclass(frozen=True, kw_only=True)
class Adding:
    """Which edges are added, in which order, how often."""

    order: Annotated[
        str,
        typer.Option(
            metavar="ORDER",
            help="weight, random, degree, activity, or an SQL expression over edges; the largest first.",
        ),
    ] = "weight"
    trace: Annotated[
        str | None,
        typer.Option(metavar="NAME|ID", help="The trace, for --order activity.  [default: the newest]"),
    ] = None
    kinds: Annotated[
        str | None,
        typer.Option(metavar="KIND,...", help="Kinds of edges.  [default: weight,identity,gate,attention]"),
    ] = None
    structure: Annotated[
        str, typer.Option(help="Edges without parameters are there from the start (given) or absent.")
    ] = "given"
    seeds: Annotated[int, typer.Option(min=1, help="Random orders of equal keys.")] = 5
    nulls: Annotated[int, typer.Option(min=0, help="Draws of each null model; 0 for none.")] = 5
    seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0
    points: Annotated[int, typer.Option(min=2, help="Points of the curve that are kept.")] = 100

    def options(self) -> "PercolationOptions":
        """The library's options."""
        from emergraph.analysis.percolation.options import PercolationOptions

        chosen: dict[str, Any] = {"kinds": tuple(self.kinds.split(","))} if self.kinds is not None else {}
        return PercolationOptions(
            structure=self.structure,
            seeds=self.seeds,
            nulls=self.nulls,
            seed=self.seed,
            points=self.points,
            **chosen,
        )


@command(
    examples="""
    emergraph percolate net.duckdb
    emergraph percolate net.duckdb --order l2 --seeds 10 --format json
    emergraph percolate net.duckdb --order activity --trace digits --nulls 20
    """
)
def percolate(
    store: StorePath,
    *,
    graph: GraphChoice = None,
    adding: Adding,
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Add the edges one by one, strongest first, and find where the network grows together."""
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    result = chosen.percolation(
        adding.order, trace=name_or_id(adding.trace), options=adding.options(), save=save
    )
    emit(_view(result), output)


def _view(result: "PercolationResult") -> View:
    facts: dict[str, object] = {
        "graph": result.graph,
        "order": result.order,
        "units": result.n_units,
        "edges added": result.n_edges,
        "edges there from the start": result.n_given,
        "units that end up connected": result.observed.curves[0].n_core,
        "expected from degrees": f"{result.degree_threshold:.6g} edges",
        "expected from layers": f"{result.layered_threshold:.6g} edges",
    }
    notes = []
    for row in result.comparisons():
        told = "no variance, degenerate" if row["z"] is None else f"z = {row['z']:.3g}"
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.4g}"
        facts[f"threshold / {row['null']}"] = f"{ratio} ({told})"
    if result.n_without_key:
        notes.append(
            f"{result.n_without_key} of {result.n_edges} edges have no key, such as units without a recorded "
            "activity: they come last"
        )
    if result.has_ties:
        notes.append(f"some keys are equal: their order is random, over {len(result.observed.curves)} seeds")
    curve = result.curve().filter(series="observed").drop("series")
    every = max(1, curve.height // SHOWN_POINTS)
    return View(
        rows=result.summary(),
        details=curve.gather_every(every),
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )
