"""What would happen to a graph: pruning, and edges added one by one."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.api.handle import GraphHandle
from emergraph.commandfiles import one_command
from emergraph.graphstore.store import Mode
from emergraph.graphstore.store import open_store as open_file
from emergraph.options import member

if TYPE_CHECKING:
    from collections.abc import Callable

    from emergraph.analysis.activity.options import ActivityRule
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.percolation.options import PercolationOptions
    from emergraph.analysis.percolation.result import PercolationResult
    from emergraph.analysis.pruning.gradients import ModuleData
    from emergraph.analysis.pruning.options import Keeping, PruningOptions
    from emergraph.analysis.pruning.sensitivity import SensitivityResult
    from emergraph.analysis.pruning.whatif import PruningResult


@dataclass(frozen=True)
class GraphWhatIfs(GraphHandle):
    """What would happen to a graph: pruning, and edges added one by one."""

    def prune(
        self,
        options: "PruningOptions | None" = None,
        *,
        trace: str | int | None = None,
        rule: "ActivityRule | str" = "mean",
        threshold: float | None = None,
        save: bool = True,
        files: "ModelFiles | ModuleData | None" = None,
        write: "str | Path | Keeping | None" = None,
        before_commit: "Callable[[PruningResult], None] | None" = None,
    ) -> "PruningResult":
        """Say what pruning the model would do, at many levels; the graph stays as it is.

        Args:
            options: Criterion, levels, scope and unit, or a predicate in SQL; see `PruningOptions`.
            trace: Name or id of the activation trace for E and for criteria that need one; default: the
                newest, if there is one.
            rule: Activity rule of E, as in `emergence`, but for per_sample.
            threshold: As in `emergence`.
            save: Keep the table in the store.
            files: The model and inputs to run the pruned models on, with labels; or a `gradients.ModuleData`
                for criteria snip, taylor and gate, which then is not run.
            write: Write the pruned model of the one level there; needs `files`. An `options.Keeping` says
                more: a smaller or a masked model, and a name to store its graph under.
            before_commit: Called with the result before the store is changed; what it raises takes everything
                back, so that results written there come together with the others.

        Raises:
            UsageError: An option does not make sense for the graph, a trace is missing, or a predicate is
                wrong or matches nothing.
            InvalidInputError: The model is not the graph's, or the inputs do not fit it.
        """
        from emergraph.analysis.activity.options import ActivityRule
        from emergraph.analysis.pruning.options import ActivityChoice, Keeping, PruningOptions
        from emergraph.analysis.pruning.saving import save_pruning
        from emergraph.analysis.pruning.storedwhatif import (
            check_keeping,
            pick,
            prune_stored,
            trace_id,
            trace_name,
        )
        from emergraph.atomic import joined

        options = options or PruningOptions()
        keeping = write if isinstance(write, Keeping) else Keeping(write=Path(write) if write else None)
        ran = {} if files is None else files.kept()
        files, gradients = _told_apart(files)
        check_keeping(keeping, options, files)
        choice = ActivityChoice(trace=trace, rule=member(ActivityRule, rule, "rule"), threshold=threshold)
        picked = None
        if options.where is not None:
            with self._reader() as reader:
                number = trace_id(reader, trace)
            picked = pick(self.path, self.id, options, number)
        mode: Mode = "write" if save or keeping.graph else "read"
        # The file, the graph and the table come together, or none of them does.
        with one_command(), joined() as outputs, open_file(self.path, mode=mode) as opened:
            result = prune_stored(
                opened.graph(self.id),
                options,
                activity=choice,
                picked=picked,
                files=files,
                gradients=gradients,
            )
            with opened.together() if mode == "write" else nullcontext():
                if files is not None and keeping.keeps:
                    from emergraph.analysis.pruning.variants import keep_variant

                    result = keep_variant(opened, self.id, result, keeping, files)
                if save:
                    about: dict[str, Any] = choice.to_dict() | ran
                    about["trace"] = trace_name(opened.graph(self.id), trace)
                    save_pruning(opened, self.id, result, **about)
                if before_commit is not None:
                    before_commit(result)
                outputs.sync()
        return result

    def prune_sensitivity(
        self,
        options: "PruningOptions | None" = None,
        *,
        trace: str | int | None = None,
        save: bool = True,
        files: "ModelFiles | ModuleData | None" = None,
    ) -> "SensitivityResult":
        """Prune each layer alone, at every level; the graph stays as it is.

        Args:
            options: Criterion, levels and unit; default: magnitude at 10, 30, 50, 70 and 90 %.
            trace: Name or id of the activation trace for criteria that need one; default: the newest.
            save: Keep the table in the store.
            files: The model and inputs to run every pruned model on, with labels; or a `gradients.ModuleData`
                for criteria snip, taylor and gate.

        Raises:
            UsageError: The criterion does not rank what is in a layer, or its trace is missing.
            InvalidInputError: The model is not the graph's, or the inputs do not fit it.
        """
        from emergraph.analysis.pruning.options import PruningOptions
        from emergraph.analysis.pruning.saving import save_sensitivity
        from emergraph.analysis.pruning.storedwhatif import sensitivity_stored, trace_name

        options = options or PruningOptions().for_layers()
        ran = {} if files is None else files.kept()
        files, gradients = _told_apart(files)
        with open_file(self.path, mode="write" if save else "read") as opened:
            result = sensitivity_stored(
                opened.graph(self.id), options, trace=trace, files=files, gradients=gradients
            )
            if save:
                save_sensitivity(
                    opened, self.id, result, trace=trace_name(opened.graph(self.id), trace), **ran
                )
        return result

    def percolation(
        self,
        order: str = "weight",
        *,
        trace: str | int | None = None,
        options: "PercolationOptions | None" = None,
        save: bool = True,
    ) -> "PercolationResult":
        """Add the edges one by one and follow the components (percolation, arXiv 2408.12578).

        Args:
            order: weight, random, degree or activity; or an SQL expression over the columns of `edges`,
                whose largest value comes first, such as "l2".
            trace: For activity: name or id of the activation trace; default: the newest.
            options: Kinds of edges, seeds, null models.
            save: Keep the result in the store.

        Raises:
            UsageError: The expression is wrong, the trace is missing, or no edge has parameters.
            LimitError: A limit of time or memory was hit.
        """
        from emergraph.analysis.percolation.options import OrderOptions, PercolationOptions

        asked = OrderOptions(order=order, trace=trace)
        found: PercolationResult = self.analyse(
            "percolate", asked, options or PercolationOptions(), save=save
        )
        return found


def _told_apart(files: "ModelFiles | ModuleData | None") -> "tuple[ModelFiles | None, ModuleData | None]":
    """What pruned models are run on, and what criteria are computed on: one of them, or none."""
    if files is None:
        return None, None
    from emergraph.analysis.pruning.gradients import ModuleData

    return (None, files) if isinstance(files, ModuleData) else (files, None)
