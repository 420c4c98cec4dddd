"""Conventions of a percolation run."""

from enum import StrEnum

from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.optionforms import NAME_OR_ID
from emergraph.options import Options, option


class OrderName(StrEnum):
    """Orders with a name; any other word is an SQL expression over the columns of `edges`."""

    WEIGHT = "weight"
    """Absolute weight, largest first (of a kernel: absolute value of its sum)."""
    RANDOM = "random"
    """Every order is as likely."""
    DEGREE = "degree"
    """Product of the degrees of both ends, largest first."""
    ACTIVITY = "activity"
    """Absolute weight times mean absolute activation of the source, largest first."""


class Structure(StrEnum):
    """Where edges without parameters are while the others are added."""

    GIVEN = "given"
    """There from the start."""
    ABSENT = "absent"


class OrderOptions(Options):
    """By what edges are ordered."""

    order: str = option(
        default=OrderName.WEIGHT.value,
        help="weight, random, degree, activity, or an SQL expression over edges; the largest first.",
        metavar="ORDER",
    )
    trace: str | int | None = option(
        default=None,
        help="The trace, for --order activity.",
        metavar="NAME|ID",
        default_text="the newest",
        form=NAME_OR_ID,
    )


class PercolationOptions(Options):
    """What is added, in which order, and how often."""

    kinds: tuple[EdgeKind, ...] = option(
        default=PATH_KINDS,
        help="Kinds of edges; those with parameters are added one by one.",
        metavar="KIND,...",
    )
    structure: Structure = option(
        default=Structure.GIVEN, help="Edges without parameters are there from the start (given) or absent."
    )
    seeds: int = option(default=5, help="Random orders of equal keys; one where no keys are equal.", least=1)
    nulls: int = option(default=5, help="Draws of each null model; 0 for none.", least=0)
    seed: int = option(default=0, help="First seed.", least=0)
    points: int = option(
        default=100, help="Points of the curve that are kept, evenly in the logarithm of the edges.", least=2
    )
