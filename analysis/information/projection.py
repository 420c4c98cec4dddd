"""Fewer dimensions, where the samples do not suffice for all: principal components or random directions."""

from dataclasses import dataclass

import numpy as np

from emergraph.analysis.information.estimate import Floats
from emergraph.analysis.information.options import Projection
from emergraph.errors import UsageError


@dataclass(frozen=True, eq=False)
class Projected:
    """Vectors with fewer dimensions."""

    values: Floats
    """(n, dimensions)."""
    share: float
    """Share of the variance that is left, in [0, 1]."""


def project(values: Floats, dimensions: int, *, how: Projection = Projection.PCA, seed: int = 0) -> Projected:
    """Project samples of vectors to fewer dimensions; those that have no more stay as they are.

    A projection can only lose information: what is estimated afterwards is about less than the whole state.

    Args:
        values: (n, d) samples.
        dimensions: To keep, at least 1.
        how: Principal components of these samples, or random directions.
        seed: Of random directions.

    Raises:
        UsageError: No dimension would be left.
    """
    if dimensions < 1:
        raise UsageError(f"projection: {dimensions} dimensions; expected at least 1")
    if dimensions >= values.shape[1]:
        return Projected(values, 1.0)
    centred = values - values.mean(axis=0)
    if how == Projection.PCA:
        covariance = centred.T @ centred
        directions = np.linalg.eigh(covariance)[1][:, ::-1][:, :dimensions]
    else:
        normal = np.random.default_rng(seed).standard_normal((values.shape[1], dimensions))
        directions = np.linalg.qr(normal)[0]
    kept = centred @ directions
    total = float((centred**2).sum())
    return Projected(kept, float((kept**2).sum()) / total if total > 0 else 1.0)
