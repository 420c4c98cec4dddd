"""A number with its interval: what every repeated measurement of the house is reported as."""

from dataclasses import asdict, dataclass, is_dataclass, replace
from enum import Enum, StrEnum

import numpy as np

from emergraph.errors import UsageError


class Method(StrEnum):
    """How the ends of an interval were found."""

    NONE = "none"
    """There is no interval: one repetition, or repetitions that cannot tell."""
    STUDENT = "student"
    """`mean +- t(n - 1) sd / sqrt(n)`, on the scale of the statistic's support."""
    JACKKNIFE = "jackknife"
    """Student's t with the standard error from leaving out one replicate at a time."""
    CONSERVATIVE = "conservative"
    """Student's or the jackknife's, widened because the statistic is skewed, see docs/calibration.md."""
    EXACT = "exact"
    """All repetitions are at the end of the range: what their number excludes."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over replicates (seeds, directions, walks, probes, samples) with a two-sided interval."""

    mean: float
    low: float
    """Lower end of the interval; NaN when there is none."""
    high: float
    sd: float
    """Standard deviation over replicates (ddof 1); NaN for fewer than two."""
    n: int
    """Replicates that gave a finite value."""
    n_undefined: int = 0
    """Replicates for which the statistic does not exist (a flat walk has no correlation)."""
    level: float = 0.95
    """Coverage of the interval."""
    method: Method = Method.NONE
    """Where the interval comes from."""
    seed: int | None = None
    """Seed of the random draws behind the replicates; None for deterministic ones."""
    null: float | None = None
    """Value under the null model that the statistic's docstring names; None where there is none."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)

    def with_null(self, null: float | None) -> "Estimate":
        """The same estimate beside another null value."""
        return replace(self, null=null)


def plain(result: object) -> dict[str, object]:
    """Return a result dataclass as nested plain values for JSON; None for what JSON cannot hold.

    Example:
        >>> plain(Estimate(mean=2.0, low=float("nan"), high=3.0, sd=1.0, n=1))["low"] is None
        True
    """
    if not is_dataclass(result) or isinstance(result, type):
        raise TypeError(f"expected an instance of a dataclass, found {type(result).__name__}")
    return {name: _plain_value(value) for name, value in asdict(result).items()}


def _plain_value(value: object) -> object:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(name): _plain_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def check_level(level: float) -> None:
    """Raise `UsageError` unless `level` is a coverage strictly between 0 and 1."""
    if not 0 < level < 1:
        raise UsageError(f"level: expected a coverage between 0 and 1, found {level}; use for example 0.95")
