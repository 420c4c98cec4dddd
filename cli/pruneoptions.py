"""The options of `emergraph prune`: what goes, how much of it, and whose activity counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.parsing import parse_numbers
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.pruning.options import PruningOptions


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What goes, and how much of it."""

    criterion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="magnitude, random, l2, activation, wanda, synflow, synflow-iterative, or N:M such as 2:4. "
            " [default: magnitude]",
        ),
    ] = None
    level: Annotated[
        str | None,
        typer.Option(metavar="S,S,...", help="Shares to remove, in [0, 1).  [default: 0,0.05,...,0.95,0.99]"),
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

    def options(self) -> "PruningOptions":
        """The library's options; unknown words are refused with the known ones."""
        from emergraph.analysis.pruning.options import DEFAULT_LEVELS, PruningOptions

        if self.where is not None and (self.criterion or self.level or self.scope):
            raise UsageError("--where picks what goes: leave out --criterion, --level and --scope")
        return PruningOptions(
            criterion=self.criterion or "magnitude",
            levels=DEFAULT_LEVELS if self.level is None else parse_numbers(self.level, "--level"),
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
