"""Fitness-distance correlation: does the loss fall towards the base weights?

r = Cov(f, d)/(sd f sd d) (Jones and Forrest 1995, ICGA, eq. 1), with d the distance to the known base
weights in the metric of the sampler, not to the best sampled point. A Gaussian cloud in many dimensions is
a thin shell without spread in d, so points are drawn with a uniform radius along random directions.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from emergraph.analysis.statistics.estimate import Estimate, plain
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class FitnessDistance:
    """Correlation of loss and distance along a direction, mean over directions; null 0 (no relation)."""

    pearson: Estimate
    """-1 .. 1; 1: the loss falls straight towards the base weights."""
    spearman: Estimate
    """The same of ranks."""
    null_sd: float
    """Standard deviation of either under no relation, `1/sqrt(points - 1)` of a direction."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


WIDENED = 1.25
"""Correlations near 1 are skewed: over ten directions Student's interval covers 92 %."""
FEWEST_POINTS = 3
"""Of a direction: two points always lie on a line."""


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if x.size < FEWEST_POINTS:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip((x @ y) / norm, -1, 1)) if norm > 0 else float("nan")


def fitness_distance(
    losses: ArrayLike, distances: ArrayLike, *, seed: int | None = None, level: float = 0.95
) -> FitnessDistance:
    """Correlate losses with distances to the base weights along each direction; mean over directions.

    Directions are the replicates: points of one direction share its curvature, and Fisher's formula over all
    points covers 34 to 60 % instead of 95 %. All points pooled give a ratio of moments that few directions
    cannot tell (leaving out one at a time covers 65 to 89 %), so each direction has its own correlation and
    their mean has Student's interval on the scale of Fisher's transformation.

    Args:
        losses: (directions, points) at the sampled points; points with a non-finite loss are left out. One
            dimension is a single direction, which has no interval.
        distances: (directions, points) to the base weights in the sampler's metric.
        seed: Recorded.
        level: Coverage of the intervals.

    Returns:
        Pearson's and Spearman's correlation; directions with fewer than 3 points have none.

    Raises:
        UsageError: Shapes differ.

    Example:
        >>> round(fitness_distance([0.0, 1.0, 4.0, 9.0], [0, 1, 2, 3]).pearson.mean, 4)
        0.9583
    """
    f = np.atleast_2d(np.asarray(losses, dtype=np.float64))
    d = np.atleast_2d(np.asarray(distances, dtype=np.float64))
    if f.shape != d.shape or f.ndim != 2:
        raise UsageError(
            f"fitness-distance: expected two arrays (directions, points), found {f.shape}, {d.shape}"
        )
    known = np.isfinite(f)
    rows = [(loss[keep], at[keep]) for loss, at, keep in zip(f, d, known, strict=True)]
    over = partial(student, support=Support.CORRELATION, widen=WIDENED, seed=seed, null=0.0, level=level)
    return FitnessDistance(
        pearson=over([_correlation(loss, at) for loss, at in rows]),
        spearman=over([_correlation(rankdata(loss), rankdata(at)) for loss, at in rows]),
        null_sd=_null_sd(known.sum(axis=1)),
    )


def _null_sd(points: NDArray[np.integer]) -> float:
    """Of the mean of correlations of so many unrelated points each."""
    usable = points[points > 1]
    return float(np.sqrt((1 / (usable - 1)).sum()) / usable.size) if usable.size else float("nan")


def uniform_radii(n_directions: int, n_points: int, *, radius: float, seed: int) -> NDArray[np.float64]:
    """Draw radii U(0, radius), as (n_directions, n_points): the coefficients along normalised directions.

    Example:
        >>> uniform_radii(1, 2, radius=1.0, seed=0).round(2).tolist()
        [[0.64, 0.27]]
    """
    return np.random.default_rng(seed).uniform(0.0, radius, size=(n_directions, n_points))
