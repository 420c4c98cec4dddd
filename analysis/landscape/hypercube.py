"""Exact landscape of pruning masks: the loss of all 2^m ways to remove m groups of weights.

A landscape on {0,1}^m has no sampling error: its Walsh spectrum gives the autocorrelation of a random walk
exactly, rho(s) = sum_p B_p (1 - 2 p/m)^s (Stadler 1996, Journal of Mathematical Chemistry 20:1), epistasis
is read off the coefficients, and the local-optima network is complete. Bit i of a state is 1 where group i
is removed; state 0 is the unpruned model.
"""

from dataclasses import dataclass
from itertools import combinations

import igraph
import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.landscape.autocorrelation import correlation_length
from emergraph.analysis.landscape.lon import build_lon
from emergraph.analysis.statistics.estimate import plain
from emergraph.errors import UsageError

MAX_GROUPS = 14
"""Most groups whose masks are enumerated: 16 384 evaluations."""


@dataclass(frozen=True, kw_only=True)
class Epistasis:
    """How the effect of one removal depends on others, over all pairs and backgrounds; shares sum to 1."""

    none: float
    """|f11 - f10 - f01 + f00| <= eps."""
    magnitude: float
    """The effects differ in size, not in sign."""
    sign: float
    """One removal changes from harmful to helpful, or back."""
    reciprocal_sign: float
    """Both do: necessary for more than one optimum."""
    eps: float
    """In units of the loss."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


@dataclass(frozen=True, kw_only=True)
class HypercubeSummary:
    """Exact ruggedness of a mask landscape; nothing is sampled, so there are no intervals."""

    m: int
    spectrum: tuple[float, ...]
    """B_p, share of the variance in interactions of p groups, p = 1 .. m; sums to 1 (all 0 when flat)."""
    rho_1: float
    """Exact autocorrelation at lag 1; NaN when flat. Null (no interactions): 1 - 2/m."""
    correlation_length: float
    """-1/ln rho(1) steps; NaN when flat."""
    additive_share: float
    """B_1: variance explained by each group on its own."""
    epistasis: Epistasis
    n_minima: int
    """Masks without a strictly better neighbour."""
    n_strict_minima: int
    """Masks all of whose neighbours are worse."""
    global_minimum: int
    """State with the lowest loss (the first of equals)."""
    unpruned_is_minimum: bool
    """No single removal lowers the loss."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


def _bits(values: ArrayLike) -> tuple[NDArray[np.float64], int]:
    f = np.asarray(values, dtype=np.float64)
    m = int(f.size).bit_length() - 1
    if f.ndim != 1 or f.size != 2**m or m < 1:
        raise UsageError(f"mask landscape: expected 2^m losses with m >= 1, found shape {f.shape}")
    if not np.all(np.isfinite(f)):
        raise UsageError(f"mask landscape: {int(np.sum(~np.isfinite(f)))} of {f.size} losses are not finite")
    return f, m


def walsh_coefficients(values: ArrayLike) -> NDArray[np.float64]:
    """Fast Walsh-Hadamard transform, w_S = 2^-m sum_x f(x) (-1)^|x & S|, in O(m 2^m).

    Args:
        values: (2^m,).

    Returns:
        (2^m,) coefficients; index S is the set of interacting groups.

    Example:
        >>> walsh_coefficients([0.0, 1.0]).tolist()
        [0.5, -0.5]
    """
    f, m = _bits(values)
    w = f.copy()
    for i in range(m):
        pairs = w.reshape(-1, 2, 2**i)
        w = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).ravel()
    return w / f.size


def walsh_spectrum(values: ArrayLike) -> NDArray[np.float64]:
    """Return B_p, p = 1 .. m: shares of the variance by order of interaction; zeros for a flat landscape.

    Example:
        >>> walsh_spectrum([0.0, 1.0, 1.0, 2.0]).tolist()
        [1.0, 0.0]
    """
    w = walsh_coefficients(values)
    m = w.size.bit_length() - 1
    order = np.bitwise_count(np.arange(w.size, dtype=np.uint64)).astype(np.int64)
    power = np.bincount(order, weights=w**2, minlength=m + 1)[1:]
    total = float(power.sum())
    floor = (4 * np.finfo(np.float64).eps * float(np.abs(w).max(initial=0.0))) ** 2
    return power / total if total > floor else np.zeros(m)


def exact_autocorrelation(values: ArrayLike, *, max_lag: int) -> NDArray[np.float64]:
    """Return rho(0) .. rho(max_lag) of a simple random walk on the hypercube, exactly; NaN when flat.

    Example:
        >>> exact_autocorrelation([0.0, 1.0, 1.0, 2.0], max_lag=1).tolist()
        [1.0, 0.0]
    """
    spectrum = walsh_spectrum(values)
    m = spectrum.size
    if not spectrum.any():
        return np.full(max_lag + 1, np.nan)
    eigenvalues = 1 - 2 * np.arange(1, m + 1) / m
    return np.array([float(spectrum @ eigenvalues**s) for s in range(max_lag + 1)])


def epistasis(values: ArrayLike, *, eps: float = 0.0) -> Epistasis:
    """Classify all two-dimensional faces of the hypercube (Weinreich et al. 2005; Poelwijk et al. 2007).

    Args:
        values: (2^m,), m >= 2.
        eps: Differences at most this count as none.

    Returns:
        Shares of faces.

    Example:
        >>> epistasis([0.0, 1.0, 1.0, 0.0]).reciprocal_sign
        1.0
    """
    f, m = _bits(values)
    counts = np.zeros(4)
    cube = f.reshape((2,) * m)
    for i, j in combinations(range(m), 2):
        face = np.moveaxis(cube, (i, j), (0, 1)).reshape(2, 2, -1)
        first = (face[1, 0] - face[0, 0], face[1, 1] - face[0, 1])
        second = (face[0, 1] - face[0, 0], face[1, 1] - face[1, 0])
        flips = np.zeros(face.shape[2], dtype=np.int64)
        for a, b in (first, second):
            flips += ((a > eps) & (b < -eps)) | ((a < -eps) & (b > eps))
        interacting = np.abs(first[1] - first[0]) > eps
        counts += np.bincount(np.where(interacting, flips + 1, 0), minlength=4)
    shares = counts / max(counts.sum(), 1)
    return Epistasis(
        none=float(shares[0]),
        magnitude=float(shares[1]),
        sign=float(shares[2]),
        reciprocal_sign=float(shares[3]),
        eps=eps,
    )


def main_effects(values: ArrayLike) -> NDArray[np.float64]:
    """Return the mean change of the loss by removing each group, over all backgrounds, (m,): -2 w_i."""
    w = walsh_coefficients(values)
    return -2 * w[2 ** np.arange(w.size.bit_length() - 1)]


def pair_effects(values: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of f11 - f10 - f01 + f00 for every pair, 4 w_ij, as (m, m) with zero diagonal."""
    w = walsh_coefficients(values)
    bits = 2 ** np.arange(w.size.bit_length() - 1)
    pairs: NDArray[np.float64] = 4 * w[bits[:, None] | bits]
    np.fill_diagonal(pairs, 0.0)
    return pairs


def neighbour_values(values: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """Return the losses of all one-bit neighbours, (2^m, m)."""
    return np.asarray(values[np.arange(values.size)[:, None] ^ (1 << np.arange(m))])


def attractors(values: ArrayLike) -> NDArray[np.int64]:
    """Return the minimum that best-improvement descent reaches from every state; ties to the lower bit.

    Example:
        >>> attractors([0.0, 1.0, 2.0, 3.0]).tolist()
        [0, 0, 0, 0]
    """
    f, m = _bits(values)
    around = neighbour_values(f, m)
    best = np.argmin(around, axis=1)
    states = np.arange(f.size)
    target = np.where(around[states, best] < f, states ^ (1 << best), states)
    while True:
        further = target[target]
        if np.array_equal(further, target):
            return target.astype(np.int64)
        target = further


def hypercube_lon(values: ArrayLike, *, flips: int = 2) -> igraph.Graph:
    """Complete local-optima network: every escape of 1 .. `flips` flips from every minimum, then descent.

    Args:
        values: (2^m,).
        flips: Largest number of groups that a kick toggles at once.

    Returns:
        As `lon.build_lon`, with vertex attributes `state`, and `basin` (states that descend to it).

    Example:
        >>> hypercube_lon([0.0, 1.0, 1.0, 2.0]).vcount()
        1
    """
    f, m = _bits(values)
    attractor = attractors(f)
    minima, basin = np.unique(attractor, return_counts=True)
    number = np.full(f.size, -1)
    number[minima] = np.arange(minima.size)
    kicks = np.array(
        [sum(1 << i for i in chosen) for d in range(1, flips + 1) for chosen in combinations(range(m), d)]
    )
    targets = number[attractor[minima[:, None] ^ kicks]]
    graph = build_lon(f[minima], np.repeat(np.arange(minima.size), kicks.size), targets.ravel())
    graph.vs["state"] = minima.tolist()
    graph.vs["basin"] = basin.tolist()
    return graph


def summarise_hypercube(values: ArrayLike, *, eps: float = 0.0) -> HypercubeSummary:
    """Sum up a mask landscape.

    Args:
        values: (2^m,) losses, m >= 1.
        eps: Loss difference that counts as none in epistasis.

    Returns:
        The exact statistics.

    Example:
        >>> summarise_hypercube([0.0, 1.0, 1.0, 2.0]).additive_share
        1.0
    """
    f, m = _bits(values)
    spectrum = walsh_spectrum(f)
    rho_1 = float(exact_autocorrelation(f, max_lag=1)[1])
    around = neighbour_values(f, m)
    return HypercubeSummary(
        m=m,
        spectrum=tuple(float(b) for b in spectrum),
        rho_1=rho_1,
        correlation_length=correlation_length(rho_1),
        additive_share=float(spectrum[0]),
        epistasis=epistasis(f, eps=eps),
        n_minima=int(np.sum(np.all(around >= f[:, None], axis=1))),
        n_strict_minima=int(np.sum(np.all(around > f[:, None], axis=1))),
        global_minimum=int(np.argmin(f)),
        unpruned_is_minimum=bool(np.all(around[0] >= f[0])),
    )
