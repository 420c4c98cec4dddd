"""Stationary random walks around the base weights (Ornstein-Uhlenbeck, preconditioned Crank-Nicolson).

z_0 ~ N(0, I), z_{t+1} = a z_t + sqrt(1 - a^2) xi_t, theta_t = theta* + sigma N z_t (arXiv 1202.0709,
section 4).
Every theta_t has the same law N(theta*, sigma^2 N^2), so autocorrelations measure the landscape; along a
Brownian walk, whose variance grows, they measure the length of the walk.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class WalkPlan:
    """How to walk."""

    n_walks: int = 10
    length: int = 200
    """Points per walk, the first one included."""
    a: float = 0.9
    """Correlation of successive positions, 0 < a < 1."""
    sigma: float = 0.1
    """Standard deviation of the stationary law in units of the perturbation scale N."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A field is out of range.
        """
        if not 0 < self.a < 1:
            raise UsageError(f"a: expected a correlation strictly between 0 and 1, found {self.a}")
        if self.length < 3 or self.n_walks < 1:
            raise UsageError(
                f"walks: expected at least 1 walk of 3 points, found {self.n_walks} of {self.length}"
            )
        if not self.sigma > 0:
            raise UsageError(f"sigma: expected a positive number, found {self.sigma}")


def ou_walk(dimension: int, plan: WalkPlan, walk: int) -> Iterator[NDArray[np.float32]]:
    """Yield the positions z_t of one walk, one at a time; the yielded array is overwritten by the next step.

    Args:
        dimension: Length of z.
        plan: Correlation, length and seed.
        walk: Which walk of the plan; walks are independent and reproducible on their own.

    Yields:
        (dimension,) float32 positions, `plan.length` of them.

    Example:
        >>> walk = [float(z[0]) for z in ou_walk(1, WalkPlan(length=3, seed=1), 0)]
        >>> len(walk)
        3
    """
    rng = np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(walk,)))
    position = rng.standard_normal(dimension, dtype=np.float32)
    noise = np.empty_like(position)
    spread = np.float32(np.sqrt(1 - plan.a**2))
    yield position
    for _ in range(plan.length - 1):
        rng.standard_normal(out=noise, dtype=np.float32)
        noise *= spread
        position *= np.float32(plan.a)
        position += noise
        yield position
