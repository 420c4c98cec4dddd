"""What can be asked of a graph: a method for every analysis that runs on one, by the name of its command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.analysis.access import carry_out
from emergraph.analysis.declaration import Analysis
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.registry import analysis_named
from emergraph.api.handle import GraphHandle, weights_of
from emergraph.api.keywords import with_options
from emergraph.options import FileRole, Options, declared_options, option

if TYPE_CHECKING:
    from emergraph.analysis.influence.contributions import ContributionResult
    from emergraph.analysis.influence.results import CircuitResult, InfluenceResult
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.paths.planning import CountPlan
    from emergraph.analysis.percolation.result import PercolationResult
    from emergraph.analysis.routes.routes import PathsResult
    from emergraph.analysis.topology.topology import TopologyResult


class ModelPlace(Options):
    """Where the weights are that a graph has not."""

    model: Path | None = option(
        default=None,
        help="What the graph was exported from; needed where edges stayed there.",
        role=FileRole.MODEL,
    )


def run_on(
    graph: GraphHandle,
    analysis: Analysis,
    options: Sequence[Options],
    *,
    save: bool,
    verify: bool = False,
    root: str | Path | None = None,
    files: "ModelFiles | None" = None,
) -> Any:  # noqa: ANN401 - each analysis has a result of its own
    """Run an analysis on a graph, as its command does."""
    models: list[Path] = [place for one in options if (place := getattr(one, "model", None)) is not None]
    chosen = options[: len(analysis.options)]
    if analysis.check is not None and files is None:
        analysis.check(*chosen, *(look() for look in analysis.looks))
    with weights_of(*models, root=root, verify=verify):
        place = None if root is None else Path(root)
        return carry_out(analysis, graph.path, graph.id, *chosen, save=save, files=files, root=place)


def _method(name: str) -> Callable[..., Any]:
    """The method that runs an analysis, with the options and words of its declaration."""
    analysis = analysis_named(name)
    names_model = any(one.name == "model" for cls in analysis.options for one in declared_options(cls))

    def method(
        self: GraphHandle,
        *,
        options: Sequence[Options],
        verify: bool = False,
        root: str | Path | None = None,
        save: bool = True,
    ) -> object:
        return run_on(self, analysis, options, save=save, verify=verify, root=root)

    method.__name__, method.__qualname__ = name, f"Graph.{name}"
    method.__doc__ = "\n\n".join(filter(None, (analysis.summary, analysis.details, _SHARED)))
    return with_options(*analysis.options, *(() if names_model else (ModelPlace,)))(method)


_SHARED = """\
Args:
    verify: Check all tensors of the model first, not each when it is read.
    root: Folder inside which files of the model may be symbolic links.
    save: Keep the result in the store.

Raises:
    UsageError: Options do not make sense, or something that they need is not in the store.
    LimitError: A limit of time or memory was hit."""


class GraphAnalyses(GraphHandle):
    """What can be asked of a graph, by the names of the commands."""

    topology: "Callable[..., TopologyResult]" = _method("topology")
    influence: "Callable[..., InfluenceResult]" = _method("influence")
    circuit: "Callable[..., CircuitResult]" = _method("circuit")
    contributions: "Callable[..., ContributionResult]" = _method("contributions")
    percolate: "Callable[..., PercolationResult]" = _method("percolate")
    paths: "Callable[..., PathsResult]" = _method("paths")


@dataclass(frozen=True)
class GraphEmergence(GraphHandle):
    """Path-count emergence of a graph."""

    @with_options(*analysis_named("emergence").options)
    def emergence(
        self,
        *,
        options: Sequence[Options],
        files: "ModelFiles | None" = None,
        verify: bool = False,
        root: str | Path | None = None,
        save: bool = True,
    ) -> Any:  # noqa: ANN401 - one of five results
        """Count the paths from inactive to active units (path-count emergence, arXiv 2409.01568).

        The options say what is counted beside the one number: `thresholds` gives a sweep, `draws` or rule
        per_sample an interval, `full` a report with null models, `positions` a count between positions.

        Args:
            files: The model and its inputs, where arrays are at hand rather than the names of files.
            save: Keep the result in the store.
            root: Folder inside which files of the model may be symbolic links.
            verify: Check all tensors of the model first, not each when it is read.

        Returns:
            EmergenceResult, ThresholdSweep, BootstrapResult, EmergenceReport or PositionReport.

        Raises:
            UsageError: The graph has no such trace, or an option does not make sense.
            InvalidInputError: The model is not the graph's, or the inputs are not the trace's.
        """
        analysis = analysis_named("emergence")
        return run_on(self, analysis, options, save=save, verify=verify, root=root, files=files)

    @with_options(EmergenceOptions)
    def emergence_plan(self, *, options: tuple[EmergenceOptions], cases: int = 1) -> "CountPlan":
        """Say what a count will take, from its size and a probe of this machine; nothing is counted.

        Args:
            cases: Activities that are counted at once, such as the thresholds of a sweep.
        """
        from emergraph.analysis.paths.planning import plan_count
        from emergraph.analysis.storedgraph import read_unit_graph

        with self._reader() as reader:
            return plan_count(read_unit_graph(reader), reader, options[0], cases=cases)
