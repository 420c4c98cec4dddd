"""Mutual information of two jointly Gaussian vectors, with the exact bias of the plug-in taken off."""

import numpy as np
from scipy.special import digamma

from emergraph.analysis.information.estimate import BITS, Floats
from emergraph.errors import UsageError

SINGULAR = 1e-12
"""A squared canonical correlation this close to 1 is a deterministic relation: infinite information."""
RANK_TOLERANCE = 1e-10
"""Directions whose standard deviation is below this share of the largest are not directions."""


def log_det_bias(dimensions: int, n: int) -> float:
    """Return E[log det S] - log det Sigma of a sample covariance S with divisor n - 1, in nats.

    `sum_{i<d} digamma((n - 1 - i) / 2) + d log(2 / (n - 1))`: the determinant of a Wishart matrix is a
    product of independent chi-squared variables (Misra, Singh and Demchuk 2005,
    doi:10.1016/j.jmva.2003.11.005).
    """
    return float(digamma((n - 1 - np.arange(dimensions)) / 2).sum() + dimensions * np.log(2 / (n - 1)))


def canonical_correlations(x: Floats, y: Floats) -> tuple[Floats, int, int]:
    """Return the canonical correlations of two samples of vectors, largest first, and both ranks.

    Args:
        x: (n, p).
        y: (n, q).

    Returns:
        (min(rank x, rank y),) in [0, 1]; rank of x; rank of y.
    """
    bases = [_basis(values) for values in (x, y)]
    ranks = [basis.shape[1] for basis in bases]
    if 0 in ranks:
        return np.zeros(0), ranks[0], ranks[1]
    found = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return np.minimum(found, 1.0), ranks[0], ranks[1]


def _basis(values: Floats) -> Floats:
    """Orthonormal columns that span the centred columns."""
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    there = scale > RANK_TOLERANCE * max(float(np.abs(values).max(initial=0.0)), 1e-300)
    if not there.any():
        return np.zeros((len(values), 0))
    left, sizes, _ = np.linalg.svd(centred[:, there] / scale[there], full_matrices=False)
    return np.asarray(left[:, sizes > RANK_TOLERANCE * sizes[0]])


def whitened(values: Floats) -> Floats:
    """Return (n, rank) coordinates of the samples that are uncorrelated with variance 1.

    Information is invariant under this; covariances of parts of the samples are then well conditioned.
    """
    return np.asarray(_basis(values) * np.sqrt(len(values) - 1))


def whitened_information(x: Floats, y: Floats) -> float:
    """`gaussian_information` of part of a sample that is `whitened` as a whole, from determinants: faster.

    Args:
        x: (n, p) samples, the covariance close to the identity.
        y: (n, q) samples.
    """
    n, p, q = len(x), x.shape[1], y.shape[1]
    if p == 0 or q == 0:
        return 0.0
    both = np.concatenate([x, y], axis=1)
    both = both - both.mean(axis=0)
    covariance = both.T @ both / (n - 1)
    parts = (covariance[:p, :p], covariance[p:, p:], covariance)
    log_x, log_y, log_both = (float(np.linalg.slogdet(part)[1]) for part in parts)
    bias = 0.5 * (log_det_bias(p, n) + log_det_bias(q, n) - log_det_bias(p + q, n))
    return (0.5 * (log_x + log_y - log_both) - bias) * BITS


def gaussian_information(x: Floats, y: Floats) -> float:
    """Return the mutual information of two Gaussian vectors from samples, in bits.

    `I = -1/2 sum_i log(1 - r_i^2)` over the canonical correlations r_i, which is
    `1/2 [log det Sx + log det Sy - log det Sxy]`, less its exact bias
    `1/2 [w(p) + w(q) - w(p + q)]` (see `log_det_bias`). Unbiased for Gaussian samples; for others it is what
    a Gaussian with the same covariance would have. Invariant under invertible linear maps of x and of y.

    Args:
        x: (n, p) samples.
        y: (n, q) samples of the same draws.

    Returns:
        Bits; may be negative near zero; infinite where a direction of y is a linear function of x; 0 where
        one of them is constant.

    Raises:
        UsageError: There are not more samples than dimensions.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, noise = rng.standard_normal((2, 20000, 1))
        >>> round(gaussian_information(x, 0.8 * x + 0.6 * noise), 1)
        0.7
    """
    correlations, p, q = canonical_correlations(x, y)
    n = len(x)
    if p == 0 or q == 0:
        return 0.0
    if n - 1 <= p + q:
        raise UsageError(
            f"{n} samples do not suffice for {p} + {q} dimensions: expected more than {p + q + 1}; use more "
            "samples or project to fewer dimensions"
        )
    rest = 1 - correlations**2
    if rest.min() < SINGULAR:
        return float("inf")
    bias = 0.5 * (log_det_bias(p, n) + log_det_bias(q, n) - log_det_bias(p + q, n))
    return float((-0.5 * np.log(rest).sum() - bias) * BITS)
