"""Command lines that repeat runs: from the classes of options of their commands and what runs keep."""

import shlex
from collections.abc import Mapping

from emergraph.analysis.activity.options import ActivityOptions, RuleOptions
from emergraph.analysis.emergence.options import (
    ExtentOptions,
    ReportOptions,
    SnapshotOptions,
    TrajectoryOptions,
)
from emergraph.analysis.figures.figure import Run
from emergraph.analysis.landscape.options import ModelOptions, ParallelOptions, SurveyOptions, TargetOptions
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.percolation.options import OrderOptions, PercolationOptions
from emergraph.analysis.pruning.options import ActivityChoice, PruningOptions, RunOptions
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.options import Options, repeated
from emergraph.safetext import escape_controls

OPTIONS: Mapping[str, tuple[type[Options], ...]] = {
    "emergence": (ActivityOptions, ReportOptions, ExtentOptions, EmergenceOptions),
    "trajectory": (SnapshotOptions, RuleOptions, TrajectoryOptions, EmergenceOptions),
    "prune": (PruningOptions, ActivityChoice, RunOptions),
    "percolate": (OrderOptions, PercolationOptions),
    "topology": (TopologyOptions,),
    "landscape": (InputOptions, TargetOptions, ModelOptions, ParallelOptions, SurveyOptions),
}
"""By command: the classes whose options decide its numbers."""

_OF_MODELS = frozenset({"landscape"})
"""Commands whose argument is a model, and whose store is an option."""


def command_of(run: Run, *, store: str, graph: str) -> str:
    """Return a command line that repeats a run, for a shell.

    Args:
        run: The run.
        store: File name of the store.
        graph: Name of the graph.
    """
    words = ["emergraph", run.command]
    if run.command in _OF_MODELS:
        words += [str(run.parameters.get("model", "MODEL")), "--store", store]
    else:
        words += [store] if run.command == "trajectory" else [store, "--graph", graph]
    kept = dict(run.parameters) if run.seed is None else {**run.parameters, "seed": run.seed}
    for options in OPTIONS.get(run.command, ()):
        words += repeated(options, kept)
    return shlex.join(map(escape_controls, words))
