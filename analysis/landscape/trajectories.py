"""The plane of a recorded training run: its principal components, the losses on it, and the null."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.evaluator import Evaluator, Weights
from emergraph.analysis.landscape.trajectory_pca import TrajectoryPca, trajectory_pca

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
