"""How much a weight tensor changed, as a whole and unit by unit."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.comparison.weights import Matrix


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The change of one tensor from A to B."""

    rms: float
    """Root mean square of B - A."""
    relative: float | None
    """The same over the root mean square of A; None where A is zero."""
    max_abs: float
    sign_flips: int
    """Entries that are positive in one and negative in the other."""
    cosine: float | None
    """Of A and B as vectors, in [-1, 1]; None where one of them is zero."""

    @property
    def is_equal(self) -> bool:
        """Whether no entry changed at all."""
        return self.max_abs == 0.0


def finite_values(values: Matrix) -> Matrix:
    """Return the values with 0 for NaN and the infinities, which no sum takes.

    Example:
        >>> finite_values(np.array([[1.0, np.nan, np.inf]]))
        array([[1., 0., 0.]])
    """
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, 0.0)


def finite_pair(a: Matrix, b: Matrix) -> tuple[Matrix, Matrix, bool]:
    """Return both with 0 where either is not finite, and whether they differ in such an entry.

    Example:
        >>> finite_pair(np.array([[1.0, np.inf]]), np.array([[1.0, 2.0]]))
        (array([[1., 0.]]), array([[1., 0.]]), True)
    """
    finite = np.isfinite(a) & np.isfinite(b)
    if finite.all():
        return a, b, False
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    differ = bool(np.any(~finite & ~same))
    return np.where(finite, a, 0.0), np.where(finite, b, 0.0), differ


def oriented(a: Matrix | None, b: Matrix | None) -> tuple[Matrix | None, Matrix | None]:
    """Return both in the shape of A; None where the shapes do not fit."""
    if a is None or b is None:
        return None, None
    if a.shape == b.shape:
        x, y = finite_values(a), finite_values(b)
        if a.shape[0] == a.shape[1] and np.sum(x * y.T) > np.sum(x * y):
            return a, b.T
        return a, b
    if a.shape == b.T.shape:
        return a, b.T
    return (a, b.reshape(a.shape)) if a.size == b.size else (None, None)


def delta(a: Matrix, b: Matrix) -> Delta:
    """Return the change from `a` to `b`, of one shape.

    Example:
        >>> delta(np.array([[3.0, 4.0]]), np.array([[3.0, -4.0]])).sign_flips
        1
    """
    moved = b - a
    base = float(np.sqrt(np.mean(a * a)))
    rms = float(np.sqrt(np.mean(moved * moved)))
    return Delta(
        rms=rms,
        relative=rms / base if base else None,
        max_abs=float(np.abs(moved).max(initial=0.0)),
        sign_flips=int(np.count_nonzero(a * b < 0)),
        cosine=_cosine(a, b),
    )


def _cosine(a: Matrix, b: Matrix) -> float | None:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return min(1.0, max(-1.0, float(np.sum(a * b)) / norms)) if norms else None


def unit_deltas(a: Matrix, b: Matrix) -> pl.DataFrame:
    """Return one row per target unit: unit, l2_a, l2_delta, relative, sign_flips, cosine (null for zeros)."""
    l2_a, l2_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    l2_delta = np.linalg.norm(b - a, axis=1)
    dots = np.einsum("ij,ij->i", a, b)
    return pl.DataFrame(
        {
            "unit": np.arange(len(a)),
            "l2_a": l2_a,
            "l2_delta": l2_delta,
            "relative": _ratio(l2_delta, l2_a),
            "sign_flips": np.count_nonzero(a * b < 0, axis=1),
            "cosine": _ratio(dots, l2_a * l2_b),
        }
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> pl.Series:
    with np.errstate(divide="ignore", invalid="ignore"):
        return pl.Series(np.where(whole > 0, part / whole, np.nan)).fill_nan(None)
