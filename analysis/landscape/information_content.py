"""Information content of a walk: how unpredictable its ups and downs are, at every resolution.

Vassilev et al. 2000 (Evolutionary Computation 8:31) and Munoz et al. 2015 (IEEE Transactions on Evolutionary
Computation 19:74, eqs. 4-9). Slopes s_i = (f_{i+1} - f_i)/|x_{i+1} - x_i| become symbols psi_i(eps) = -1,
0, +1, 0 where |s_i| <= eps. H(eps) = -sum over pairs a != b of p_ab log_6 p_ab; M(eps) = sign changes left
when the zeros are deleted, divided by the number of slopes less one.

Slopes are measured in units of the standard deviation of f per mean step, so that eps compares between
models. H and M change only where eps passes one of the |s_i|: they are evaluated there, exactly, and on no
fixed grid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.statistics.estimate import Estimate, plain
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.errors import UsageError

SETTLED = 0.05
"""H below which a walk counts as settled."""


@dataclass(frozen=True, kw_only=True)
class InformationContent:
    """Information content of one walk."""

    h_max: float
    """Largest H(eps), 0 .. 1."""
    eps_max: float | None
    """Smallest eps at which H is largest; None where H is 0 at every eps (a constant slope)."""
    h_0: float
    """H(0)."""
    m_0: float
    """Partial information M(0), 0 .. 1."""
    eps_s: float | None
    """log10 of the smallest eps with H < 0.05; None where that holds at eps = 0 already."""
    eps_ratio: float | None
    """log10 of the supremum of eps with M(eps) > M(0)/2; None where M(0) = 0."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


@dataclass(frozen=True, kw_only=True)
class InformationSummary:
    """Information content over several walks.

    The nulls of h_0 and m_0 depend on the spectrum of the bowl, see `bowlnull`.
    """

    h_max: Estimate
    eps_max: Estimate
    h_0: Estimate
    m_0: Estimate
    eps_s: Estimate
    eps_ratio: Estimate

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


@dataclass(frozen=True)
class InformationCurve:
    """H and M as step functions of eps: value k holds for breakpoints[k] <= eps < breakpoints[k + 1]."""

    breakpoints: NDArray[np.float64]
    """(k,) 0 and the distinct |s_i|, ascending."""
    h: NDArray[np.float64]
    """(k,)."""
    m: NDArray[np.float64]
    """(k,)."""

    def at(self, eps: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return H and M at any non-negative eps."""
        index = np.searchsorted(self.breakpoints, np.asarray(eps, dtype=np.float64), side="right") - 1
        return self.h[index], self.m[index]


def slopes(values: ArrayLike, steps: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return (f_{i+1} - f_i)/(step_i / mean step) in units of sd(f); zeros if f is flat.

    Args:
        values: (L,) along the walk.
        steps: (L - 1,) positive step lengths; None for constant steps.

    Returns:
        (L - 1,) dimensionless slopes.
    """
    f = np.asarray(values, dtype=np.float64)
    if f.ndim != 1 or f.size < 3:
        raise UsageError(f"walk: expected at least 3 values in one dimension, found shape {f.shape}")
    lengths = np.ones(f.size - 1) if steps is None else np.asarray(steps, dtype=np.float64)
    if lengths.shape != (f.size - 1,) or not np.all(lengths > 0):
        raise UsageError(f"steps: expected {f.size - 1} positive lengths, found shape {lengths.shape}")
    spread = float(f.std())
    if spread <= 4 * np.finfo(np.float64).eps * float(np.max(np.abs(f))):
        return np.zeros(f.size - 1)
    return np.asarray(np.diff(f) / spread / (lengths / lengths.mean()))


def _entropy_curve(
    signs: NDArray[np.int64], magnitudes: NDArray[np.float64], breakpoints: NDArray[np.float64]
) -> NDArray[np.float64]:
    """H at every breakpoint, from where each consecutive pair enters and leaves each pair of symbols."""
    n_pairs = signs.size - 1
    rank = np.searchsorted(breakpoints, magnitudes)
    first, second = rank[:-1], rank[1:]
    left, right = signs[:-1], signs[1:]
    early, late = np.minimum(first, second), np.maximum(first, second)
    # A pair shows both signs before `early`, one sign from `early` to `late`, and two zeros from there on.
    surviving_left = np.where(first > second, left, 0)
    surviving_right = np.where(second > first, right, 0)
    counts = np.zeros((9, breakpoints.size + 1), dtype=np.int64)
    both = 3 * (left + 1) + right + 1
    single = 3 * (surviving_left + 1) + surviving_right + 1
    np.add.at(counts, (both, np.zeros_like(both)), 1)
    np.add.at(counts, (both, early), -1)
    np.add.at(counts, (single, early), 1)
    np.add.at(counts, (single, late), -1)
    different = [a * 3 + b for a in range(3) for b in range(3) if a != b]
    p = np.cumsum(counts, axis=1)[different, : breakpoints.size] / n_pairs
    logs = np.log(p, out=np.zeros_like(p), where=p > 0) / np.log(6)
    return np.asarray(np.abs((p * logs).sum(axis=0)))


def _sign_change_curve(
    signs: NDArray[np.int64], magnitudes: NDArray[np.float64], breakpoints: NDArray[np.float64]
) -> NDArray[np.float64]:
    """M at every breakpoint, by deleting symbols from a linked list in the order of their magnitude."""
    alive = np.flatnonzero(magnitudes > 0)
    sign = signs[alive].tolist()
    n = len(sign)
    changes = sum(1 for i in range(1, n) if sign[i] != sign[i - 1])
    after, before = list(range(1, n + 1)), list(range(-1, n - 1))
    rank = np.searchsorted(breakpoints, magnitudes[alive])
    lost = [0] * breakpoints.size
    for i in np.argsort(magnitudes[alive], kind="stable").tolist():
        left, right = before[i], after[i]
        drop = (left >= 0 and sign[left] != sign[i]) + (right < n and sign[right] != sign[i])
        if left >= 0:
            after[left] = right
        if right < n:
            before[right] = left
        if left >= 0 and right < n:
            drop -= sign[left] != sign[right]
        lost[rank[i]] += drop
    return (changes - np.cumsum(lost)) / (signs.size - 1)


def information_curve(slope: ArrayLike) -> InformationCurve:
    """Compute H(eps) and M(eps) exactly as step functions, in O(L log L).

    Args:
        slope: (n,) slopes of a walk, n >= 2, see `slopes`.

    Returns:
        The step functions.

    Example:
        >>> information_curve([1.0, -1.0, 1.0]).h.round(4).tolist()
        [0.3869, 0.0]
    """
    s = np.asarray(slope, dtype=np.float64)
    magnitudes = np.abs(s)
    breakpoints = np.unique(np.concatenate([[0.0], magnitudes]))
    signs = np.sign(s).astype(np.int64)
    return InformationCurve(
        breakpoints,
        _entropy_curve(signs, magnitudes, breakpoints),
        _sign_change_curve(signs, magnitudes, breakpoints),
    )


def information_content(values: ArrayLike, steps: ArrayLike | None = None) -> InformationContent:
    """Information content of one walk.

    Args:
        values: (L,) along the walk, L >= 3.
        steps: (L - 1,) step lengths; None for constant steps.

    Returns:
        The statistics; those that a flat or monotone walk does not have are None.

    Example:
        >>> walk = np.tile([0.0, 1.0], 50)
        >>> information_content(walk).m_0
        1.0
    """
    curve = information_curve(slopes(values, steps))
    peak = int(np.argmax(curve.h))
    settled = int(np.argmax(curve.h < SETTLED))
    m_0 = float(curve.m[0])
    half = np.flatnonzero(curve.m > m_0 / 2)
    return InformationContent(
        h_max=float(curve.h[peak]),
        eps_max=float(curve.breakpoints[peak]) if curve.h[peak] > 0 else None,
        h_0=float(curve.h[0]),
        m_0=m_0,
        eps_s=float(np.log10(curve.breakpoints[settled])) if settled > 0 else None,
        eps_ratio=float(np.log10(curve.breakpoints[half[-1] + 1])) if half.size else None,
    )


def summarise_information(
    walks: ArrayLike, *, seed: int | None = None, level: float = 0.95
) -> InformationSummary:
    """Information content of every walk, then mean and interval over walks.

    Args:
        walks: (n, L).
        seed: Recorded.
        level: Coverage of the intervals.

    Returns:
        One estimate per statistic; walks without a value count as undefined.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> round(summarise_information(rng.normal(size=(10, 2000))).m_0.mean, 2)
        0.67
    """
    rows = [information_content(walk) for walk in np.asarray(walks, dtype=np.float64)]

    def over(name: str, support: Support = Support.SHARE) -> Estimate:
        values = [getattr(row, name) for row in rows]
        known = [np.nan if value is None else value for value in values]
        return student(known, support=support, seed=seed, level=level)

    return InformationSummary(
        h_max=over("h_max"),
        eps_max=over("eps_max", support=Support.POSITIVE),
        h_0=over("h_0"),
        m_0=over("m_0"),
        eps_s=over("eps_s", support=Support.REAL),
        eps_ratio=over("eps_ratio", support=Support.REAL),
    )
