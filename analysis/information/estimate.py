"""What every estimator of mutual information gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.statistics.intervals import student_reach

Floats = NDArray[np.float64]

BITS = float(1 / np.log(2))
"""Bits per nat."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MutualInformation:
    """An estimate of mutual information, in bits."""

    raw: float
    """What the estimator gave; it may be negative, above the ceiling, or infinite."""
    deviations: Floats
    """(repeats,) deviations of resampled estimates from their mean; empty for none. Those of two estimates
    with the same samples and seed belong together, so that differences have intervals, too."""
    ceiling: float
    """What mutual information cannot exceed: log2 of the number of distinct inputs; infinite if unknown."""
    estimator: str
    n_samples: int
    seed: int
    diagnostics: Mapping[str, object] = field(default_factory=dict)
    """What an estimator has to say about itself; names and numbers."""

    @property
    def value(self) -> float:
        """The estimate, capped at the ceiling."""
        return min(self.raw, self.ceiling)

    @property
    def at_ceiling(self) -> bool:
        """Whether the cap was needed: the value is then a statement about the data, not about the model."""
        return bool(self.raw >= self.ceiling)

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of 95 % over halves, within 0 and the ceiling; NaN without repeats, and at the ceiling.

        A corrected estimate may be below 0; the truth is not. A capped estimate says what the data cannot
        exceed, and nothing of how near it is known.
        """
        if self.at_ceiling:
            return float("nan"), float("nan")
        return spread(self.raw, self.deviations, within=(0.0, self.ceiling))

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        low, high = self.interval
        return {
            "value": self.value,
            "low": low,
            "high": high,
            "raw": self.raw,
            "ceiling": self.ceiling,
            "at_ceiling": self.at_ceiling,
            "estimator": self.estimator,
            "n_samples": self.n_samples,
            "seed": self.seed,
            "diagnostics": dict(self.diagnostics),
        }


def spread(value: float, deviations: Floats, *, within: tuple[float, float]) -> tuple[float, float]:
    """Return Student's interval around a value whose error resampled values show; NaN for none.

    What lies outside of the possible range is cut off, as the truth is not there; nothing is left of an
    interval that lies outside.

    Percentiles of a hundred deviations are their third largest and smallest, and cover 92 %.
    """
    finite = deviations[np.isfinite(deviations)]
    if finite.size < 2:
        return float("nan"), float("nan")
    reach = student_reach(finite.size, 0.95) * float(finite.std(ddof=1))
    low, high = max(value - reach, within[0]), min(value + reach, within[1])
    return (low, high) if low <= high else (float("nan"), float("nan"))
