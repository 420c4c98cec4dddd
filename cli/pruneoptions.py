"""Options of `emergraph prune` beside those of the library: whose activity counts, and the model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.files import FileRole
from emergraph.cli.links import Links
from emergraph.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.pruning.gradients import ModuleData
    from emergraph.analysis.pruning.variants import Keeping


@dataclass(frozen=True, kw_only=True)
class PruneActivity:
    """Whose activity counts."""

    trace: Annotated[
        str | None,
        typer.Option(metavar="NAME|ID", help="The activation trace.  [default: the newest, if there is one]"),
    ] = None
    rule: Annotated[
        str, typer.Option(help="Activity rule of E: mean, mean_abs, any, majority, contribution.")
    ] = "mean"
    threshold: Annotated[
        float | None, typer.Option(help="A unit is active above it.  [default: 0.05, for contribution 1]")
    ] = None


@dataclass(frozen=True, kw_only=True)
class PruneRuns:
    """What is run and written: layers one by one, or models pruned as wholes."""

    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Prune each layer alone instead: a heat map, layers by levels."),
    ] = False
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The model that the graph was exported from."),
        FileRole.MODEL,
    ] = None
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Run the pruned models on these samples; needs --model."),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="One array: the class of each sample; needs --inputs."),
    ] = None
    ignore_label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Label that stands for no class, such as 255 or -100."),
    ] = None
    module: Annotated[
        str | None,
        typer.Option(
            metavar="PKG.MODULE:FACTORY",
            help="The module behind the graph, for snip, taylor and gate; its code runs.",
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights for the factory's module."),
        FileRole.MODEL,
    ] = None
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE.onnx", help="Write the pruned model; needs --model and one level."),
        FileRole.WRITES,
    ] = None
    save_graph: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Store the pruned model's graph, too; needs the same."),
    ] = None
    smaller: Annotated[
        bool | None,
        typer.Option(
            "--smaller/--masked",
            help="Write a model without the channels that nothing needs any more, or one with zeros. "
            " [default: smaller for --unit unit]",
        ),
    ] = None

    def check_sensitivity(self) -> None:
        """Refuse to write a model where many layers are pruned one by one.

        Raises:
            UsageError: One is to be written.
        """
        if self.write is not None or self.save_graph is not None:
            raise UsageError("--sensitivity prunes each layer alone: leave out --write and --save-graph")

    def keeping(self) -> "Keeping":
        """The library's description of what to keep of the pruned model."""
        from emergraph.analysis.pruning.variants import Keeping

        return Keeping(write=self.write, graph=self.save_graph, smaller=self.smaller)

    def files(self, links: Links) -> "ModelFiles | ModuleData | None":
        """The library's description of them; None without a model.

        Raises:
            UsageError: An option is there without the one that it needs.
        """
        from emergraph.analysis.modelruns.files import ModelFiles
        from emergraph.exporters.runtime.inputfile import read_input_file

        if self.module is not None:
            return self._module_data(links)
        if self.weights is not None:
            raise UsageError("--weights needs --module PKG.MODULE:FACTORY, the module that they are for")
        if self.model is None:
            for option in ("inputs", "labels", "write", "save_graph"):
                if getattr(self, option) is not None:
                    said = option.replace("_", "-")
                    raise UsageError(
                        f"--{said} needs --model FILE, the file that the graph was exported from"
                    )
            return None
        if self.labels is not None and self.inputs is None:
            raise UsageError("--labels needs --inputs FILE.npz, the samples that they are for")
        inputs = None if self.inputs is None else read_input_file(self.inputs).arrays
        return ModelFiles(
            model=self.model,
            inputs=inputs,
            labels=self._labels(),
            ignore_label=self.ignore_label,
            root=links.root,
        )

    def _module_data(self, links: Links) -> "ModuleData":
        from emergraph.analysis.pruning.gradients import ModuleData
        from emergraph.exporters.runtime.inputfile import read_input_file

        for option in ("model", "write", "save_graph"):
            if getattr(self, option) is not None:
                said = option.replace("_", "-")
                raise UsageError(f"--module gives scores only: leave out --{said}, or run once for each")
        if self.inputs is None or self.labels is None:
            raise UsageError("--module needs --inputs and --labels: scores of gradients come from a loss")
        return ModuleData(
            module=str(self.module),
            inputs=read_input_file(self.inputs).arrays,
            labels=self._labels(),
            ignore_label=self.ignore_label,
            weights=self.weights,
            root=links.root,
        )

    def _labels(self) -> "NDArray[np.generic] | None":
        from emergraph.exporters.runtime.inputfile import read_input_file

        if self.labels is None:
            return None
        arrays = list(read_input_file(self.labels).arrays.values())
        if len(arrays) != 1:
            raise UsageError(f"--labels: expected a file with one array, found {len(arrays)}")
        return arrays[0]
