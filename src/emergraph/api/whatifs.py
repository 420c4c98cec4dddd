"""What would happen to a graph if it were pruned."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.analysis.pruning.options import ActivityChoice, Keeping, PruningOptions, RunOptions
from emergraph.api.handle import GraphHandle, weights_of
from emergraph.api.keywords import with_options
from emergraph.commandfiles import one_command
from emergraph.errors import UsageError
from emergraph.graphstore.store import Mode
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.pruning.gradients import ModuleData
    from emergraph.analysis.pruning.sensitivity import SensitivityResult
    from emergraph.analysis.pruning.whatif import PruningResult


@dataclass(frozen=True)
class GraphWhatIfs(GraphHandle):
    """What would happen to a graph if it were pruned."""

    @with_options(PruningOptions, ActivityChoice, RunOptions, Keeping)
    def prune(
        self,
        *,
        options: tuple[PruningOptions, ActivityChoice, RunOptions, Keeping],
        files: "ModelFiles | ModuleData | None" = None,
        verify: bool = False,
        root: str | Path | None = None,
        save: bool = True,
        before_commit: "Callable[[PruningResult], None] | None" = None,
    ) -> Any:  # noqa: ANN401 - one of two results
        """Say what pruning the model would do, at many levels; the graph stays as it is.

        Args:
            files: The model and inputs to run the pruned models on, with labels, where arrays are at hand; or
                a `gradients.ModuleData` for criteria snip, taylor and gate, which then is not run.
            verify: Check all tensors of the model first, not each when it is read.
            root: Folder inside which files of the model may be symbolic links.
            save: Keep the table in the store.
            before_commit: Called with the result before the store is changed; what it raises takes everything
                back, so that results written there come together with the others.

        Returns:
            A PruningResult; with `sensitivity`, a SensitivityResult.

        Raises:
            UsageError: An option does not make sense for the graph, a trace is missing, or a predicate is
                wrong or matches nothing.
            InvalidInputError: The model is not the graph's, or the inputs do not fit it.
        """
        asked, choice, runs, keeping = options
        place = None if root is None else Path(root)
        if files is None:
            _check_together(runs, keeping)
            files = _given_files(runs, place)
        with weights_of(*filter(None, [runs.model]), root=root, verify=verify):
            if runs.sensitivity:
                return self._sensitivity(asked.for_layers(), choice.trace, files, save=save)
            return self._pruned(asked, choice, keeping, files, save=save, before_commit=before_commit)

    def _pruned(
        self,
        options: PruningOptions,
        choice: ActivityChoice,
        keeping: Keeping,
        given: "ModelFiles | ModuleData | None",
        *,
        save: bool,
        before_commit: "Callable[[PruningResult], None] | None",
    ) -> "PruningResult":
        from emergraph.analysis.pruning.saving import save_pruning
        from emergraph.analysis.pruning.storedwhatif import (
            check_keeping,
            pick,
            prune_stored,
            trace_id,
            trace_name,
        )
        from emergraph.atomic import joined

        ran = {} if given is None else given.kept()
        files, gradients = _told_apart(given)
        check_keeping(keeping, options, files)
        picked = None
        if options.where is not None:
            with self._reader() as reader:
                number = trace_id(reader, choice.trace)
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
                    about["trace"] = trace_name(opened.graph(self.id), choice.trace)
                    save_pruning(opened, self.id, result, **about)
                if before_commit is not None:
                    before_commit(result)
                outputs.sync()
        return result

    def _sensitivity(
        self,
        options: PruningOptions,
        trace: str | int | None,
        given: "ModelFiles | ModuleData | None",
        *,
        save: bool,
    ) -> "SensitivityResult":
        """Prune each layer alone, at every level."""
        from emergraph.analysis.pruning.saving import save_sensitivity
        from emergraph.analysis.pruning.storedwhatif import sensitivity_stored, trace_name

        ran = {} if given is None else given.kept()
        files, gradients = _told_apart(given)
        with open_file(self.path, mode="write" if save else "read") as opened:
            result = sensitivity_stored(
                opened.graph(self.id), options, trace=trace, files=files, gradients=gradients
            )
            if save:
                save_sensitivity(
                    opened, self.id, result, trace=trace_name(opened.graph(self.id), trace), **ran
                )
        return result


# What pruned models are run on, from the options.


def _check_together(runs: RunOptions, keeping: Keeping) -> None:
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


def _runs_onnx(runs: RunOptions) -> bool:
    """Whether the model can be run: an ONNX file. Others are for weights that stayed in them."""
    from emergraph.exporters.sourcekinds import SourceKind, source_kind

    return runs.inputs is not None or (runs.model is not None and source_kind(runs.model) is SourceKind.ONNX)


def _given_files(runs: RunOptions, root: Path | None) -> "ModelFiles | ModuleData | None":
    """What is run; None without a model."""
    samples: dict[str, Any] = {"inputs": runs.inputs, "labels": runs.labels, "root": root}
    samples["ignore_label"] = runs.ignore_label
    if runs.module is not None:
        from emergraph.analysis.pruning.gradients import ModuleData

        return ModuleData(module=runs.module, weights=runs.weights, **samples)
    if runs.model is None or not _runs_onnx(runs):
        return None
    from emergraph.analysis.modelruns.files import ModelFiles

    return ModelFiles(model=runs.model, **samples)


def _told_apart(files: "ModelFiles | ModuleData | None") -> "tuple[ModelFiles | None, ModuleData | None]":
    """What pruned models are run on, and what criteria are computed on: one of them, or none."""
    if files is None:
        return None, None
    from emergraph.analysis.pruning.gradients import ModuleData

    return (None, files) if isinstance(files, ModuleData) else (files, None)
