"""`emergraph prune`: what pruning a model would do, without touching it."""

from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.pruning.options import ActivityChoice, Keeping, PruningOptions, RunOptions
from emergraph.analysis.pruning.views import result_view, written_lines
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit, say
from emergraph.cli.storeargs import GraphChoice, StorePath, Verify

if TYPE_CHECKING:
    from emergraph.analysis.pruning.whatif import PruningResult


@command(
    examples="""
    emergraph prune net.duckdb
    emergraph prune net.duckdb --criterion wanda --level 0.3,0.5,0.7 --format csv
    emergraph prune net.duckdb --criterion 2:4
    emergraph prune net.duckdb --sensitivity
    emergraph prune net.duckdb --criterion random --seeds 5 --scope layer --level 0.5
    emergraph prune net.duckdb --where "layer = 'fc1' AND abs(weight) < 0.01"
    emergraph prune net.duckdb --unit unit --where "mean < 0.02"
    emergraph prune net.duckdb --model net.onnx --inputs test.npz --labels classes.npz --level 0.3,0.5,0.7
    emergraph prune net.duckdb --level 0.5 --model net.onnx --write pruned.onnx
    emergraph prune net.duckdb --criterion l2 --level 0.3 --model net.onnx --write small.onnx --save-graph sli
    """,
    limits=LONG,
)
def prune(  # noqa: PLR0913 - a parameter for each group of options
    store: StorePath,
    *,
    graph: GraphChoice = None,
    options: PruningOptions,
    activity: ActivityChoice,
    runs: RunOptions,
    keeping: Keeping,
    links: Links,
    verify: Verify = False,
    save: Annotated[bool, typer.Option(help="Keep the table in the store.")] = True,
    output: Output,
) -> None:
    """Say what pruning would do to sparsity, paths, dead units and emergence, level by level."""
    from emergraph import api

    def show(result: "PruningResult") -> None:
        for line in written_lines(result, keeping.write):
            say(line, output)
        emit(result_view(result), output)

    # A table in a file comes together with what is written.
    together = output.out is not None and not runs.sensitivity
    result = api.open_graph(store, graph).prune(
        *(options, activity, runs, keeping),
        verify=verify,
        root=links.root,
        save=save,
        before_commit=show if together else None,
    )
    if runs.sensitivity:
        emit(result_view(result), output)
    elif not together:
        show(result)
