"""The plane of a recorded training run: its principal components, the losses on it, and the null."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.landscape.evaluator import Evaluator, Weights
from emergraph.errors import UsageError

# Principal components of a recorded training trajectory, beside what a random walk would show.


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


Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RunPlane:
    """A run in the plane of its first two principal components."""

    names: tuple[str, ...]
    """Files of the points, in order."""
    pca: TrajectoryPca
    path_losses: Array
    """(n,) losses at the points themselves."""
    plane_losses: Array
    """(n,) losses at their projections: what a picture of the plane shows at the path."""
    rows: Array
    """(points,) positions along the first component."""
    columns: Array
    """(points,) along the second; one 0 where the run has a single component."""
    losses: Array
    """(rows, columns)."""

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain values; the losses of the plane are left out."""
        return {
            "names": list(self.names),
            **self.pca.to_dict(),
            "path_losses": self.path_losses.tolist(),
            "plane_losses": self.plane_losses.tolist(),
        }


def _axis(coordinates: Array, n: int) -> Array:
    """Positions that hold all coordinates, with a fifth of their reach on both sides."""
    low, high = float(coordinates.min()), float(coordinates.max())
    margin = 0.2 * (high - low)
    return np.linspace(low - margin, high + margin, n) if high > low else np.zeros(1)


def trajectory_plane(
    evaluator: Evaluator, points: Sequence[Weights], names: Sequence[str], *, n: int = 21
) -> RunPlane:
    """Evaluate the plane of a run's first two principal components, and the run itself.

    Args:
        evaluator: Gives the losses.
        points: Weights of the checkpoints, (n_params,) each, at least 3.
        names: Of the checkpoints.
        n: Points per axis.

    Returns:
        The plane with explained variance, its random-walk null, and the distance of the path from the plane.

    Raises:
        UsageError: Too few points, or they are all the same.
    """
    pca = trajectory_pca(np.array(points, dtype=np.float64), k=2)
    rows, columns = (_axis(pca.coordinates[:, k], n) for k in (0, 1))
    first, second = (pca.directions[k].astype(np.float32) for k in (0, 1))
    centre = pca.mean.astype(np.float32)
    projected = pca.mean + pca.coordinates @ pca.directions
    return RunPlane(
        names=tuple(names),
        pca=pca,
        path_losses=np.array([evaluator.loss(np.asarray(p, dtype=np.float32)) for p in points]),
        plane_losses=np.array([evaluator.loss(p.astype(np.float32)) for p in projected]),
        rows=rows,
        columns=columns,
        losses=np.array(
            [evaluator.losses_along(centre + np.float32(a) * first, second, columns) for a in rows]
        ),
    )
