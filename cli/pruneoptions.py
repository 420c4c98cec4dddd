"""What `emergraph prune` runs on, from its options."""

from typing import TYPE_CHECKING, Any

from emergraph.analysis.pruning.options import Keeping, RunOptions
from emergraph.cli.links import Links
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.pruning.gradients import ModuleData


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
    if runs.model is None:
        return None
    from emergraph.analysis.modelruns.files import ModelFiles

    return ModelFiles(model=runs.model, ignore_label=runs.ignore_label, root=links.root, **samples)
