"""Principal components of a recorded training trajectory, beside what a random walk would show.

A high-dimensional random walk already puts 6/(pi k)^2 of its variance into component k: 60.8 %, 15.2 %, 6.8 %
(Antognini and Sohl-Dickstein, arXiv 1806.08805, eq. 5). The plane of the first two components of any
trajectory therefore looks convincing; what lies outside it is in `residual`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrajectoryPca:
    """Principal components of the points of a trajectory, centred by their mean."""

    directions: NDArray[np.float64]
    """(k, n_params) orthonormal."""
    mean: NDArray[np.float64]
    """(n_params,) centre of the trajectory."""
    coordinates: NDArray[np.float64]
    """(n, k) of the points."""
    explained: tuple[float, ...]
    """Share of the variance in each component."""
    random_walk: tuple[float, ...]
    """The same for a high-dimensional random walk: the null."""
    residual: NDArray[np.float64]
    """(n,) distance of each point from the k-dimensional plane, in units of the weights."""

    def to_dict(self) -> dict[str, object]:
        """Return shares and residuals as plain lists (the directions are left out)."""
        kept = ("coordinates", "explained", "random_walk", "residual")
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in ((name, getattr(self, name)) for name in kept)
        }


def random_walk_share(component: int, n: int | None = None) -> float:
    """Share of variance of a random walk in its k-th principal component.

    Infinitely many steps: 6/(pi k)^2. For n points in infinitely many dimensions the eigenvalues of the
    centred Gram matrix are 1/(4 sin^2(pi k/(2 n))), k = 1 .. n - 1.

    Args:
        component: k, from 1.
        n: Points of the walk; None for the limit.

    Returns:
        0 .. 1.

    Example:
        >>> round(random_walk_share(1), 4), round(random_walk_share(1, 2), 4)
        (0.6079, 1.0)
    """
    if n is None:
        return float(6 / (np.pi * component) ** 2)
    if not 1 <= component < n:
        return 0.0
    weights = 1 / np.sin(np.pi * np.arange(1, n) / (2 * n)) ** 2
    return float(weights[component - 1] / weights.sum())


def trajectory_pca(points: ArrayLike, *, k: int = 2) -> TrajectoryPca:
    """Principal components by the (n, n) Gram matrix, so that n_params may be large.

    Args:
        points: (n, n_params) weights along the trajectory, n > k.
        k: Components.

    Returns:
        Directions, coordinates, explained variance with its random-walk null, residual distances.

    Raises:
        UsageError: Too few points, or a trajectory that does not move.

    Example:
        >>> line = np.outer(np.arange(4.0), [3.0, 4.0])
        >>> round(trajectory_pca(line, k=1).explained[0], 12)
        1.0
    """
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or not 1 <= k < len(x):
        raise UsageError(f"trajectory: expected more than {k} points (n, n_params), found shape {x.shape}")
    mean = x.mean(axis=0)
    centred = x - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    total = float(values.sum())
    if not total > 0:
        raise UsageError("trajectory: all points are the same; expected weights that change")
    top = values[:k] > 1e-12 * values[0]
    directions = np.zeros((k, x.shape[1]))
    directions[top] = (vectors[:, :k].T @ centred)[top] / np.sqrt(values[:k][top])[:, None]
    coordinates = centred @ directions.T
    return TrajectoryPca(
        directions=directions,
        mean=mean,
        coordinates=coordinates,
        explained=tuple(float(v) for v in values[:k] / total),
        random_walk=tuple(random_walk_share(i + 1, len(x)) for i in range(k)),
        residual=np.linalg.norm(centred - coordinates @ directions, axis=1),
    )
