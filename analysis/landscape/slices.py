"""Losses along lines and planes through the base weights: range, rise, convexity.

One plane is an anecdote: over 30 random planes of one model the range of the loss varies by a quarter. So
slices are measured along ten or more directions and reported with their spread. Plots of a slice as in Li
et al. (arXiv 1712.09913, eqs. 1-2): f(a) = L(theta* + a d), f(a, b) = L(theta* + a d1 + b d2).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emergraph.analysis.statistics.estimate import Estimate, plain
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SliceSummary:
    """Shape of the loss along lines; every estimate is over directions."""

    loss_range: Estimate
    """Largest less smallest finite loss."""
    rise: Estimate
    """Mean loss at both ends less the loss at the base weights."""
    convexity: Estimate
    """Share of interior points whose second difference is at least -floor, 0 .. 1; null (a bowl): 1."""
    curvature: Estimate
    """Second difference at the base weights, (f(h) - 2 f(0) + f(-h))/h^2; null None."""
    asymmetry: Estimate
    """|f(r) - f(-r)| over the range; null (a bowl centred at the base weights): 0."""
    nonfinite: int
    """Points with NaN or infinite loss; left out of every figure."""
    radius: float
    """Reach of a slice in units of the normalised direction."""
    floor: float
    """Loss difference below which a dent does not count against convexity."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


@dataclass(frozen=True, kw_only=True)
class PlaneConvexity:
    """Shape of the loss on one plane."""

    loss_range: float
    rise: float
    """Mean loss on the rim less the loss at the centre."""
    convex_share: float
    """Share of interior cells whose discrete Hessian is positive semi-definite beyond the floor, 0 .. 1."""
    nonfinite: int

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


def axis_positions(radius: float, n: int) -> NDArray[np.float64]:
    """Return n positions from -radius to radius that contain an exact 0.

    Args:
        radius: Positive.
        n: Odd, at least 3.

    Raises:
        UsageError: n is even or too small: the base weights would not be on the axis.

    Example:
        >>> axis_positions(1.0, 5).tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    if n < 3 or n % 2 == 0 or not radius > 0:
        raise UsageError(
            f"axis: expected an odd number of steps, 3 or more, and radius > 0; found {n}, {radius}"
        )
    half = n // 2
    return radius * np.arange(-half, half + 1) / half


def summarise_slices(
    losses: ArrayLike,
    positions: ArrayLike,
    *,
    floor: float = 0.0,
    seed: int | None = None,
    level: float = 0.95,
) -> SliceSummary:
    """Range, rise, convexity, curvature and asymmetry of slices.

    Args:
        losses: (n_directions, n_positions).
        positions: (n_positions,) from `axis_positions`.
        floor: Dents up to this loss difference do not count.
        seed: Recorded.
        level: Coverage of the intervals.

    Returns:
        The statistics over directions.

    Example:
        >>> x = axis_positions(1.0, 11)
        >>> s = summarise_slices([x**2, 2 * x**2], x)
        >>> s.convexity.mean, s.rise.mean
        (1.0, 1.5)
    """
    f, x = np.atleast_2d(np.asarray(losses, dtype=np.float64)), np.asarray(positions, dtype=np.float64)
    if f.shape[1] != x.size or x.size % 2 == 0:
        raise UsageError(f"slices: expected an odd number of positions, {x.size}, per row, found {f.shape}")
    f = np.where(np.isfinite(f), f, np.nan)
    centre, h = x.size // 2, float(x[1] - x[0])
    second = f[:, :-2] - 2 * f[:, 1:-1] + f[:, 2:]
    defined = np.isfinite(second)
    spread = np.array([np.ptp(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in f])
    with np.errstate(invalid="ignore", divide="ignore"):
        convex = ((second >= -floor) & defined).sum(axis=1) / defined.sum(axis=1)
        asymmetry = np.where(spread > 0, np.abs(f[:, 0] - f[:, -1]) / spread, 0.0)
    return SliceSummary(
        loss_range=student(spread, support=Support.POSITIVE, seed=seed, level=level),
        rise=student((f[:, 0] + f[:, -1]) / 2 - f[:, centre], seed=seed, level=level),
        convexity=student(convex, support=Support.SHARE, seed=seed, level=level, null=1.0),
        curvature=student(second[:, centre - 1] / h**2, seed=seed, level=level),
        asymmetry=student(asymmetry, support=Support.SHARE, seed=seed, level=level, null=0.0),
        nonfinite=int(np.isnan(f).sum()),
        radius=float(x[-1]),
        floor=floor,
    )


def plane_convexity(losses: ArrayLike, *, floor: float = 0.0) -> PlaneConvexity:
    """Range, rise and convexity of a plane with equal steps along both axes.

    The discrete Hessian of a cell is positive semi-definite when its second differences a, b and mixed
    difference c (from the four diagonal neighbours, divided by 4) satisfy a, b >= -floor and a b - c^2 >=
    -floor max(a, b, floor).

    Args:
        losses: (rows, columns), both odd and at least 3.
        floor: Loss difference that counts as none.

    Returns:
        The figures; cells next to a non-finite one are left out.

    Example:
        >>> x = axis_positions(1.0, 11)
        >>> plane_convexity(x[:, None] ** 2 + x**2).convex_share
        1.0
    """
    f = np.asarray(losses, dtype=np.float64)
    if f.ndim != 2 or min(f.shape) < 3 or f.shape[0] % 2 == 0 or f.shape[1] % 2 == 0:
        raise UsageError(f"plane: expected odd numbers of at least 3 rows and columns, found {f.shape}")
    f = np.where(np.isfinite(f), f, np.nan)
    a = f[:-2, 1:-1] - 2 * f[1:-1, 1:-1] + f[2:, 1:-1]
    b = f[1:-1, :-2] - 2 * f[1:-1, 1:-1] + f[1:-1, 2:]
    c = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / 4
    defined = np.isfinite(a + b + c)
    slack = floor * np.maximum(np.maximum(a, b), floor)
    convex = (a >= -floor) & (b >= -floor) & (a * b - c * c >= -slack)
    rim = np.concatenate([f[0], f[-1], f[1:-1, 0], f[1:-1, -1]])
    finite = f[np.isfinite(f)]
    known_rim = rim[np.isfinite(rim)]
    return PlaneConvexity(
        loss_range=float(np.ptp(finite)) if finite.size else float("nan"),
        rise=float(known_rim.mean() - f[f.shape[0] // 2, f.shape[1] // 2])
        if known_rim.size
        else float("nan"),
        convex_share=float(convex[defined].mean()) if defined.any() else float("nan"),
        nonfinite=int(np.isnan(f).sum()),
    )
