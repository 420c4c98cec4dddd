"""The options of `emergraph emergence`: whose activity, and what counts as a path."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emergraph.cli.files import FileRole
from emergraph.cli.links import Links
from emergraph.cli.parsing import parse_numbers
from emergraph.cli.storeargs import name_or_id
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.emergence.fullreport import ReportOptions
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.paths.options import EmergenceOptions


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Which units are active."""

    trace: Annotated[
        str | None,
        typer.Option(metavar="NAME|ID", help="The activation trace.  [default: the graph's newest]"),
    ] = None
    rule: Annotated[
        str,
        typer.Option(help="mean, mean_abs, any, majority, per_sample, contribution or weight_change."),
    ] = "mean"
    before: Annotated[
        str | None,
        typer.Option(metavar="NAME|ID", help="The earlier snapshot, for weight_change."),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(help="A unit is active above it.  [default: 0.05, for contribution 1]"),
    ] = None
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="T,T,...|N|all",
            help="Sweep: these thresholds, N chosen ones, or all values where a unit changes.",
        ),
    ] = None
    draws: Annotated[
        int, typer.Option(help="Bootstrap draws over samples, for an interval; per_sample needs some.")
    ] = 0
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0

    def common(self) -> dict[str, Any]:
        """What every question about the activity needs."""
        return {"rule": self.rule, "trace": name_or_id(self.trace), "before": name_or_id(self.before)}

    def grid(self) -> "tuple[float, ...] | int | Literal['all']":
        """The thresholds of a sweep, how many to choose, or "all"."""
        text = self.thresholds or "all"
        if text == "all":
            return "all"
        return int(text) if text.isdecimal() and int(text) > 1 else parse_numbers(text, "--thresholds")


@dataclass(frozen=True, kw_only=True)
class Fullness:
    """What is said beside E."""

    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Sweep, interval, null models and baselines too; with --model nulls of weights."
        ),
    ] = False
    nulls: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,...",
            help="Null models of --full: activity_in_layers, activity_over_net, weights_in_blocks, rewired, "
            "weight_noise.  [default: those of activity; all with --model]",
        ),
    ] = None
    null_draws: Annotated[int, typer.Option(help="Draws of each null model of activity.")] = 100
    weight_draws: Annotated[int, typer.Option(help="Draws of each null model of weights.")] = 10
    noise: Annotated[
        float, typer.Option(help="Size of weight_noise, relative to each tensor's root mean square.")
    ] = 0.1
    positions: Annotated[
        bool,
        typer.Option(
            "--positions", help="Count between all positions of a convolutional network; needs --model."
        ),
    ] = False
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The model of the graph, for --positions and nulls of weights."),
        FileRole.MODEL,
    ] = None
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="The inputs of the trace, unless they were random."),
    ] = None
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|ID|full",
            help="Also the edge form: the paths behind the edges that this graph has and the other has not; "
            "full: behind all zeros of its matrices.",
        ),
    ] = None

    def options(self, activity: Activity) -> "ReportOptions":
        """The library's options; unknown words are refused with the known ones."""
        from emergraph.analysis.emergence.fullreport import ReportOptions
        from emergraph.analysis.emergence.nulls import ACTIVITY_NULLS, NullKind, null_kind

        if self.nulls is not None:
            kinds = tuple(null_kind(name) for name in self.nulls.split(","))
        else:
            kinds = tuple(kind for kind in NullKind if self.model or kind in ACTIVITY_NULLS)
        return ReportOptions(
            thresholds=100 if activity.thresholds is None else activity.grid(),
            draws=activity.draws or 200,
            nulls=kinds,
            null_draws=self.null_draws,
            weight_draws=self.weight_draws,
            noise=self.noise,
            seed=activity.seed,
        )

    def files(self, links: Links) -> "ModelFiles | None":
        """The model and its inputs; None without a model.

        Raises:
            UsageError: There are inputs without a model.
        """
        from emergraph.analysis.modelruns.files import ModelFiles
        from emergraph.exporters.runtime.inputfile import read_input_file

        if self.model is None:
            if self.inputs is not None:
                raise UsageError("--inputs needs --model FILE, the file that the graph was exported from")
            return None
        inputs = None if self.inputs is None else read_input_file(self.inputs).arrays
        return ModelFiles(model=self.model, inputs=inputs, root=links.root)


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What counts as a path."""

    paths: Annotated[
        str, typer.Option(help="An edge counts once (units) or once per parameter (weights).")
    ] = "units"
    endpoints: Annotated[str, typer.Option(help="Paths start and end at neurons, or at all units.")] = (
        "neurons"
    )
    layers: Annotated[
        str, typer.Option(help="Inputs and outputs count (all), or hidden units only (hidden).")
    ] = "all"
    unmeasured: Annotated[
        str, typer.Option(help="Units without a measured activity are transparent, inactive or active.")
    ] = "transparent"
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,...",
            help="Kinds of edges that paths follow.  [default: weight,identity,gate,attention]",
        ),
    ] = None
    unroll: Annotated[int, typer.Option(help="Time steps, for recurrent edges.")] = 1
    exact: Annotated[bool, typer.Option("--exact", help="Exact integers beyond 2**53, too.")] = False

    def options(self) -> "EmergenceOptions":
        """The library's options; unknown words are refused with the known ones."""
        from emergraph.analysis.paths.options import EmergenceOptions

        choices: dict[str, Any] = asdict(self)
        kinds = choices.pop("kinds")
        if kinds is not None:
            choices["kinds"] = tuple(kinds.split(","))
        return EmergenceOptions(**choices)
