"""The options of `emergraph emergence`: whose activity, and what counts as a path."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emergraph.cli.parsing import parse_numbers

if TYPE_CHECKING:
    from emergraph.analysis.emergence.options import EmergenceOptions


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Which units are active."""

    trace: Annotated[
        str | None,
        typer.Option(metavar="NAME|ID", help="The activation trace.  [default: the graph's newest]"),
    ] = None
    rule: Annotated[str, typer.Option(help="mean, mean_abs, any, majority, per_sample or contribution.")] = (
        "mean"
    )
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

    def grid(self) -> "tuple[float, ...] | int | Literal['all']":
        """The thresholds of a sweep, how many to choose, or "all"."""
        text = self.thresholds or "all"
        if text == "all":
            return "all"
        return int(text) if text.isdecimal() and int(text) > 1 else parse_numbers(text, "--thresholds")


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
        from emergraph.analysis.emergence.options import EmergenceOptions

        choices: dict[str, Any] = asdict(self)
        kinds = choices.pop("kinds")
        if kinds is not None:
            choices["kinds"] = tuple(kinds.split(","))
        return EmergenceOptions(**choices)
