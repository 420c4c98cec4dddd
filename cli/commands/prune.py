"""`emergraph prune`: what pruning a model would do, without touching it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from emergraph.analysis.pruning.options import ActivityChoice, Keeping, PruningOptions, RunOptions
from emergraph.analysis.pruning.views import result_view, written_lines
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit, say
from emergraph.cli.storeargs import GraphChoice, StorePath, Verify, weights_of
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.pruning.gradients import ModuleData
    from emergraph.analysis.pruning.whatif import PruningResult


# What `emergraph prune` runs on, from its options.


def check_together(runs: RunOptions, keeping: Keeping) -> None:
    """Refuse to keep a model where none can be made.

    Raises:
        UsageError: One is to be kept.
    """
    kept = "--write" if keeping.write is not None else "--save-graph"
    if not keeping.keeps:
        return
    if runs.sensitivity:
        raise UsageError("--sensitivity prunes each layer alone: leave out --write and --save-graph")
    if runs.module is not None:
        raise UsageError(f"--module gives scores only: leave out {kept}, or run once for each")
    if runs.model is None:
        raise UsageError(f"{kept} needs --model FILE, the file that the graph was exported from")


def runs_onnx(runs: RunOptions) -> bool:
    """Whether the model can be run: an ONNX file. Others are for weights that stayed in them."""
    from emergraph.exporters.sources import SourceKind, source_kind

    return runs.inputs is not None or (runs.model is not None and source_kind(runs.model) is SourceKind.ONNX)


def given_files(runs: RunOptions, links: Links) -> "ModelFiles | ModuleData | None":
    """The library's description of what is run; None without a model."""
    samples: dict[str, Any] = {"inputs": runs.inputs, "labels": runs.labels}
    if runs.module is not None:
        from emergraph.analysis.pruning.gradients import ModuleData

        return ModuleData(
            module=runs.module,
            weights=runs.weights,
            ignore_label=runs.ignore_label,
            root=links.root,
            **samples,
        )
    if runs.model is None or not runs_onnx(runs):
        return None
    from emergraph.analysis.modelruns.files import ModelFiles

    return ModelFiles(model=runs.model, ignore_label=runs.ignore_label, root=links.root, **samples)


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

    check_together(runs, keeping)
    chosen = api.open_graph(store, graph)
    if runs.sensitivity:
        with weights_of(runs.model, links, verify=verify):
            layers = chosen.prune_sensitivity(
                options.for_layers(), trace=activity.trace, save=save, files=given_files(runs, links)
            )
        emit(result_view(layers), output)
        return

    def show(result: "PruningResult") -> None:
        for line in written_lines(result, keeping.write):
            say(line, output)
        emit(result_view(result), output)

    to_file = output.out is not None  # then it comes together with what is written
    with weights_of(runs.model, links, verify=verify):
        result = chosen.prune(
            options,
            trace=activity.trace,
            rule=activity.rule,
            threshold=activity.threshold,
            save=save,
            files=given_files(runs, links),
            write=keeping,
            before_commit=show if to_file else None,
        )
    if not to_file:
        show(result)
