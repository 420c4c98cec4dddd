"""Mutual information from distances to nearest neighbours, for one or two dimensions."""

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma

from emergraph.analysis.information.estimate import BITS, Floats
from emergraph.analysis.information.options import MAX_DIMENSIONS
from emergraph.errors import UsageError

NEIGHBOURS = 3


def ksg_information(x: Floats, y: Floats, *, neighbours: int = NEIGHBOURS, force: bool = False) -> float:
    """Return the mutual information of two continuous or discrete variables, in bits.

    Kraskov, Stögbauer and Grassberger (arXiv cond-mat/0305641, eq. 8) in the maximum norm:
    `psi(k) + psi(n) - <psi(n_x + 1) + psi(n_y + 1)>`, with n_x and n_y the neighbours strictly within the
    distance of the k-th joint one. Where that distance is 0 (discrete values) k, n_x and n_y count what is at
    distance 0 (Gao and others, arXiv 1709.06212). Each column is scaled to standard deviation 1 first.

    Args:
        x: (n, p) samples.
        y: (n, q) samples of the same draws.
        neighbours: k; more means less variance and more bias.
        force: Go on with more than two dimensions; the estimate is then far too low.

    Raises:
        UsageError: More than two dimensions, or fewer than k + 2 samples.

    Example:
        >>> codes = np.repeat(np.arange(8.0), 50)[:, None]
        >>> round(ksg_information(codes, codes**2), 1)
        3.0
    """
    widest = max(x.shape[1], y.shape[1])
    if widest > MAX_DIMENSIONS and not force:
        raise UsageError(
            f"ksg: expected at most {MAX_DIMENSIONS} dimensions each, found {x.shape[1]} and {y.shape[1]}; "
            "its estimates are far too low beyond that: project, or use the estimator gaussian or mine"
        )
    n = len(x)
    if n < neighbours + 2:
        raise UsageError(f"ksg: {n} samples; expected at least {neighbours + 2}")
    x, y = _scaled(x), _scaled(y)
    both = np.concatenate([x, y], axis=1)
    distance = cKDTree(both).query(both, k=neighbours + 1, p=np.inf)[0][:, -1]
    tied = distance == 0
    inside = np.where(tied, 0.0, np.nextafter(distance, 0.0))
    n_x, n_y = (_within(values, inside) for values in (x, y))
    k = np.where(tied, _within(both, inside), neighbours)
    total = digamma(k) + digamma(n) - digamma(n_x + 1) - digamma(n_y + 1)
    # at distance 0 all counts include the same ties, the sample itself left out as in the formula
    total[tied] = np.log(k[tied] + 1) + np.log(n) - np.log(n_x[tied] + 1) - np.log(n_y[tied] + 1)
    return float(total.mean() * BITS)


def _scaled(values: Floats) -> Floats:
    scale = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(scale > 0, scale, 1.0))


def _within(values: Floats, radius: Floats) -> Floats:
    """How many other samples lie within the radius."""
    counts = cKDTree(values).query_ball_point(values, radius, p=np.inf, return_length=True)
    return np.asarray(counts - 1, np.float64)
