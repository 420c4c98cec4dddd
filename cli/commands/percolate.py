"""`emergraph percolate`: what grows together as the edges of a graph are added one by one."""

from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.percolation.options import OrderOptions, PercolationOptions
from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, StorePath

if TYPE_CHECKING:
    from emergraph.analysis.percolation.result import PercolationResult

SHOWN_POINTS = 20


@command(
    examples="""
    emergraph percolate net.duckdb
    emergraph percolate net.duckdb --order l2 --seeds 10 --format json
    emergraph percolate net.duckdb --order activity --trace digits --nulls 20
    """,
    limits=LONG,
)
def percolate(
    store: StorePath,
    *,
    graph: GraphChoice = None,
    order: OrderOptions,
    options: PercolationOptions,
    save: Annotated[bool, typer.Option(help="Keep the result in the store.")] = True,
    output: Output,
) -> None:
    """Add the edges one by one, strongest first, and find where the network grows together."""
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    result = chosen.percolation(order.order, trace=order.trace, options=options, save=save)
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
            "activity: they are added last"
        )
    if result.has_ties:
        n_seeds = len(result.observed.curves)
        notes.append(f"some keys are equal: their order is random, over {n_seeds} seed{'s' * (n_seeds > 1)}")
    curve = result.curve().filter(series="observed").drop("series")
    every = max(1, curve.height // SHOWN_POINTS)
    return View(
        rows=result.summary(),
        details=curve.gather_every(every),
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )
