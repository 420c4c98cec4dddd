"""Conventions of a percolation run."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from emergraph.errors import UsageError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind


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


@dataclass(frozen=True, kw_only=True)
class PercolationOptions:
    """What is added, in which order, and how often."""

    kinds: Sequence[EdgeKind | str] = PATH_KINDS
    """Kinds of edges; those with parameters are added one by one."""
    structure: str = "given"
    """Edges without parameters are there from the start ("given") or left out ("absent")."""
    seeds: int = 5
    """Repetitions with other random orders of equal keys; one when there are no equal keys."""
    nulls: int = 5
    """Repetitions of each null model; 0 for none."""
    seed: int = 0
    """First seed of random numbers."""
    points: int = 100
    """Numbers of edges at which the curve is kept, spaced evenly in the logarithm."""

    def __post_init__(self) -> None:
        """Refuse counts that make no sense.

        Raises:
            UsageError: A count is too small.
        """
        if self.seeds < 1 or self.nulls < 0 or self.points < 2 or self.seed < 0:
            raise UsageError(
                f"percolation: expected at least 1 seeds, 0 nulls, 2 points and seed 0, got {self.seeds}, "
                f"{self.nulls}, {self.points} and {self.seed}"
            )

    def to_dict(self) -> dict[str, object]:
        """Return the options by name."""
        return {
            "kinds": [str(kind) for kind in self.kinds],
            "structure": self.structure,
            "seeds": self.seeds,
            "nulls": self.nulls,
            "points": self.points,
        }
