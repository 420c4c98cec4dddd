"""The options of `emergraph prune`: what goes, how much of it, and whose activity counts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.files import FileRole
from emergraph.cli.links import Links
from emergraph.cli.parsing import parse_numbers
from emergraph.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emergraph.analysis.pruning.gradients import ModuleData
    from emergraph.analysis.pruning.modelruns import ModelFiles
    from emergraph.analysis.pruning.options import PruningOptions
    from emergraph.analysis.pruning.variants import Keeping


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What goes, and how much of it."""

    criterion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="magnitude, random, l2, activation, wanda, synflow, synflow-iterative, snip, taylor, gate, "
            "or N:M such as 2:4. "
            " [default: magnitude]",
        ),
    ] = None
    level: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,...",
            help="Shares to remove, in [0, 1).  [default: 0,0.05,...,0.95,0.99; "
            "with --sensitivity 0.1,0.3,...,0.9]",
        ),
    ] = None
    scope: Annotated[
        str | None,
        typer.Option(
            help="Compare within global, layer, block or unit.  [default: global, for wanda unit]",
        ),
    ] = None
    unit: Annotated[
        str | None,
        typer.Option(
            help="Remove edges (kernels as wholes), parameters or units.  [default: by the criterion]"
        ),
    ] = None
    seeds: Annotated[int, typer.Option(help="Repetitions of criterion random.")] = 1
    rounds: Annotated[int, typer.Option(help="Rounds of synflow-iterative.")] = 100
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Remove what this condition picks, instead of a criterion and levels."
        ),
    ] = None

    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Prune each layer alone instead: a heat map, layers by levels."),
    ] = False

    def options(self) -> "PruningOptions":
        """The library's options; unknown words are refused with the known ones."""
        from emergraph.analysis.pruning.options import DEFAULT_LEVELS, PruningOptions
        from emergraph.analysis.pruning.sensitivity import SENSITIVITY_LEVELS

        if self.where is not None and (self.criterion or self.level or self.scope):
            raise UsageError("--where picks what goes: leave out --criterion, --level and --scope")
        if self.where is not None and self.sensitivity:
            raise UsageError("--sensitivity prunes by a criterion: leave out --where")
        default = SENSITIVITY_LEVELS if self.sensitivity else DEFAULT_LEVELS
        return PruningOptions(
            criterion=self.criterion or "magnitude",
            levels=default if self.level is None else parse_numbers(self.level, "--level"),
            scope=self.scope,
            unit=self.unit,
            seeds=self.seeds,
            rounds=self.rounds,
            where=self.where,
        )


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
    """The model behind the graph, for running and writing pruned models."""

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
        from emergraph.analysis.pruning.modelruns import ModelFiles
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
        return ModelFiles(model=self.model, inputs=inputs, labels=self._labels(), root=links.root)

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
