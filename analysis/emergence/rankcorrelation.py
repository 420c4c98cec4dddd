"""Rank correlation of emergence with performance, given what else could explain it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Spearman correlation, partial where something is given."""

    rho: float | None
    """In [-1, 1]; None when degenerate."""
    p: float | None
    """Two-sided permutation p value, (1 + draws at least as extreme) / (1 + draws); None when degenerate."""
    n: int
    n_given: int
    """Variables that were held constant."""
    n_permutations: int
    seed: int
    degenerate: bool
    """One of the two is constant, or the given variables explain all of it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def rank_correlation(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    *,
    given: Sequence[Sequence[float] | Floats] = (),
    n_permutations: int = 9999,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman rank correlation of x and y, with the ranks of the given variables regressed out of both.

    With one given variable z this is `(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2))` on ranks. The p
    value permutes the residuals of y and regresses again (Freedman and Lane 1983).

    Args:
        x: (n,) for example E or relative E, over seeds or steps.
        y: (n,) for example accuracy.
        given: Variables of the same length to hold constant, for example sparsity.
        n_permutations: Draws, at least 1.
        seed: Seed of the draws.

    Raises:
        UsageError: Different lengths, values that are not finite, or fewer values than 3 more than the given
            variables.

    Example:
        >>> round(rank_correlation([1, 2, 3, 4], [1, 8, 27, 64], n_permutations=99).rho, 6)
        1.0
    """
    columns = _checked(x, y, given, n_permutations)
    n = len(columns[0])
    ranked = [ranks(column) for column in columns]
    design = np.column_stack([np.ones(n), *ranked[2:]])
    columns_of, strengths, _ = np.linalg.svd(design, full_matrices=False)
    basis = columns_of[:, strengths > strengths[0] * n * np.finfo(float).eps]

    def residual(values: Floats) -> Floats:
        return np.asarray(values - basis @ (basis.T @ values))

    left, right = residual(ranked[0]), residual(ranked[1])
    tiny = 1e-9 * n
    degenerate = bool(np.linalg.norm(left) < tiny or np.linalg.norm(right) < tiny)
    if degenerate:
        rho = p = None
    else:
        rho = float(np.clip(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)), -1.0, 1.0))
        rng = np.random.default_rng(seed)
        shuffled = rng.permuted(np.broadcast_to(right, (n_permutations, n)), axis=1).T
        again = residual(shuffled)
        drawn = left @ again / (np.linalg.norm(left) * np.maximum(np.linalg.norm(again, axis=0), tiny))
        # Draws that only rounding keeps below the observed value count as equal.
        p = float((1 + np.count_nonzero(np.abs(drawn) >= abs(rho) - 1e-12)) / (1 + n_permutations))
    return RankCorrelation(
        rho=rho,
        p=p,
        n=n,
        n_given=len(given),
        n_permutations=n_permutations,
        seed=seed,
        degenerate=degenerate,
    )


def _checked(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    given: Sequence[Sequence[float] | Floats],
    n_permutations: int,
) -> list[Floats]:
    columns = [np.asarray(values, dtype=np.float64) for values in (x, y, *given)]
    n = len(columns[0])
    if any(column.shape != (n,) for column in columns):
        raise UsageError(f"Expected lists of one length, got shapes {[column.shape for column in columns]}")
    if n < 3 + len(given):
        raise UsageError(
            f"A rank correlation given {len(given)} variables needs {3 + len(given)} values, got {n}"
        )
    if not all(np.all(np.isfinite(column)) for column in columns) or n_permutations < 1:
        raise UsageError("A rank correlation needs finite values and at least one permutation")
    return columns


def ranks(values: Floats) -> Floats:
    """Ranks from 1, ties get their mean: (n,) -> (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])
