"""`emergraph prune`: what pruning a model would do, without touching it."""

from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.pruning.options import PruningOptions
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit, say
from emergraph.cli.pruneoptions import PruneActivity, PruneRuns
from emergraph.cli.pruneviews import sensitivity_view, what_if_view, written_lines
from emergraph.cli.storeargs import GraphChoice, StorePath, name_or_id

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
def prune(
    store: StorePath,
    *,
    graph: GraphChoice = None,
    options: PruningOptions,
    activity: PruneActivity,
    runs: PruneRuns,
    links: Links,
    save: Annotated[bool, typer.Option(help="Keep the table in the store.")] = True,
    output: Output,
) -> None:
    """Say what pruning would do to sparsity, paths, dead units and emergence, level by level."""
    from emergraph import api

    chosen = api.open_store(store).graph(graph)
    if runs.sensitivity:
        runs.check_sensitivity()
        layers = chosen.prune_sensitivity(
            options.for_layers(), trace=name_or_id(activity.trace), save=save, files=runs.files(links)
        )
        emit(sensitivity_view(layers), output)
        return

    def show(result: "PruningResult") -> None:
        for line in written_lines(result, runs.write):
            say(line, output)
        emit(what_if_view(result), output)

    to_file = output.out is not None  # then it comes together with what is written
    result = chosen.prune(
        options,
        trace=name_or_id(activity.trace),
        rule=activity.rule,
        threshold=activity.threshold,
        save=save,
        files=runs.files(links),
        write=runs.keeping(),
        before_commit=show if to_file else None,
    )
    if not to_file:
        show(result)
