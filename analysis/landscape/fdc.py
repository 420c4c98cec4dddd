"""Fitness-distance correlation: does the loss fall towards the base weights?

r = Cov(f, d)/(sd f sd d) (Jones and Forrest 1995, ICGA, eq. 1), with d the distance to the known base
weights in the metric of the sampler, not to the best sampled point. A Gaussian cloud in many dimensions is
a thin shell without spread in d, so points are drawn with a uniform radius along random directions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from emergraph.analysis.statistics.estimate import Estimate, check_level, plain
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class FitnessDistance:
    """Correlation of loss and distance; null 0 (no relation), whose spread is 1/sqrt(n)."""

    pearson: Estimate
    """-1 .. 1; 1: the loss falls straight towards the base weights."""
    spearman: Estimate
    """The same of ranks."""
    null_sd: float
    """Standard deviation of either under no relation, 1/sqrt(n - 1)."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip((x @ y) / norm, -1, 1)) if norm > 0 else float("nan")


def _fisher(r: float, n: int, seed: int | None, level: float, factor: float) -> Estimate:
    """Interval tanh(artanh r +- z sqrt(factor/(n - 3)))."""
    if np.isnan(r) or n < 4:
        low = high = float("nan")
    elif abs(r) == 1:
        low = high = r
    else:
        half = float(ndtri((1 + level) / 2)) * np.sqrt(factor / (n - 3))
        low, high = (float(np.tanh(np.arctanh(r) + sign * half)) for sign in (-1, 1))
    defined = not np.isnan(r)
    return Estimate(
        mean=r,
        low=low,
        high=high,
        sd=float("nan"),
        n=n if defined else 0,
        n_undefined=0 if defined else n,
        level=level,
        seed=seed,
        null=0.0,
    )


def fitness_distance(
    losses: ArrayLike, distances: ArrayLike, *, seed: int | None = None, level: float = 0.95
) -> FitnessDistance:
    """Correlate losses with distances to the base weights; intervals by Fisher's transformation.

    Args:
        losses: (n,) at the sampled points; points with a non-finite loss are left out.
        distances: (n,) to the base weights in the sampler's metric.
        seed: Recorded.
        level: Coverage of the intervals.

    Returns:
        Pearson's and Spearman's correlation (variance factor 1 + r^2/2 for the latter).

    Raises:
        UsageError: Shapes differ or fewer than 3 points.

    Example:
        >>> round(fitness_distance([0.0, 1.0, 4.0, 9.0], [0, 1, 2, 3]).pearson.mean, 4)
        0.9583
    """
    check_level(level)
    f, d = np.asarray(losses, dtype=np.float64).ravel(), np.asarray(distances, dtype=np.float64).ravel()
    if f.shape != d.shape or f.size < 3:
        raise UsageError(
            f"fitness-distance: expected two arrays of at least 3 values, found {f.shape}, {d.shape}"
        )
    kept = np.isfinite(f)
    f, d = f[kept], d[kept]
    n = int(f.size)
    pearson = _correlation(f, d) if n > 1 else float("nan")
    spearman = _correlation(rankdata(f), rankdata(d)) if n > 1 else float("nan")
    return FitnessDistance(
        pearson=_fisher(pearson, n, seed, level, 1.0),
        spearman=_fisher(spearman, n, seed, level, 1 + spearman**2 / 2),
        null_sd=float(1 / np.sqrt(n - 1)) if n > 1 else float("nan"),
    )


def uniform_radii(n_directions: int, n_points: int, *, radius: float, seed: int) -> NDArray[np.float64]:
    """Draw radii U(0, radius), as (n_directions, n_points): the coefficients along normalised directions.

    Example:
        >>> uniform_radii(1, 2, radius=1.0, seed=0).round(2).tolist()
        [[0.64, 0.27]]
    """
    return np.random.default_rng(seed).uniform(0.0, radius, size=(n_directions, n_points))
