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
    CONTRIBUTION = "contribution"
    """What the edge carries: its mean absolute contribution, in the newest run of `contributions`."""


class Structure(StrEnum):
    """Where edges without parameters are while the others are added."""

    GIVEN = "given"
    """There from the start."""
    ABSENT = "absent"


class OrderOptions(Options):
    """By what edges are ordered."""

    order: str = option(
        default=OrderName.WEIGHT.value,
        help="weight, random, degree, activity, contribution, or SQL over edges; the largest first.",
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


class PairColumns(Options):
    """Which columns of a table of pairs hold what."""

    entity: str = option(default="entity", help="Column of the entity.", metavar="COLUMN")
    property: str = option(default="property", help="Column of the property.", metavar="COLUMN")
    time: str | None = option(
        default=None,
        help="Numbers or dates that order the rows.",
        metavar="COLUMN",
        default_text="as they stand",
    )
    of_class: str | None = option(
        default=None,
        help="Class of both; pairs across classes are impossible.",
        flag="--class",
        metavar="COLUMN",
    )


class ConceptOptions(Options):
    """Sizes that the data alone do not tell, and draws of the null models."""

    n_entities: int | None = option(
        default=None,
        help="|E|, with those never seen.",
        flag="--entities",
        metavar="N",
        default_text="those seen",
        least=1,
    )
    n_properties: int | None = option(
        default=None,
        help="|K|, with those never seen.",
        flag="--properties",
        metavar="N",
        default_text="those seen",
        least=1,
    )
    nulls: int = option(default=20, help="Draws of each null model; 0 for none.", least=0)
    seed: int = option(default=0, help="First seed of the draws.", least=0)
    points: int = option(
        default=60, help="Points of the curve that are kept, evenly in the logarithm of the pairs.", least=2
    )


class LogColumns(Options):
    """Which columns of a training log hold what."""

    metric: str = option(default="metric", help="Column of the metric.", metavar="COLUMN")
    step: str = option(default="step", help="Column of the training step.", metavar="COLUMN")
    n_entities: str = option(default="n_entities", help="Column of |E|.", flag="--entities", metavar="COLUMN")
    n_properties: str = option(
        default="n_properties", help="Column of |K|.", flag="--properties", metavar="COLUMN"
    )
    run: tuple[str, ...] | None = option(
        default=None,
        help="Columns that tell runs of one size apart.",
        metavar="COLUMN,...",
        default_text="run and seed, if there",
    )


class CollapseOptions(Options):
    """How an exponent is judged."""

    draws: int = option(default=500, help="Bootstrap draws of the collapse.", least=2)
    seed: int = option(default=0, help="Seed of the draws.", least=0)
    margin: float = option(
        default=0.1, help="Exponents this close to the prediction count as the same.", above=0
    )
