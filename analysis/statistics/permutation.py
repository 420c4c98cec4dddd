"""p values by permutation, by Student's t, and their correction for many of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import UsageError

Floats = NDArray[np.float64]

SIGNIFICANT = 0.05
"""Level of verdicts."""
ROUNDING = 1e-12
"""Draws that only rounding keeps below the observed value count as equal."""
FEWEST_MORE = 3
"""Values that a correlation needs beside one for each given variable."""
EXACT_FLIPS = 14
"""Values up to which all sign flips are looked at."""
FLIPS = 20_000
"""Random sign flips for more values."""


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
    value permutes the residuals of y and regresses again (Freedman and Lane 1983): the pairs must be
    independent of each other, as networks and seeds are and steps of one run are not.

    Args:
        x: (n,) for example E or relative E, over seeds or networks.
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
    if n_permutations < 1:
        raise UsageError("A rank correlation needs at least one permutation")
    left, right, basis = _residual_ranks(x, y, given)
    n = len(left)
    rho, p = _correlation(left, right), None
    if rho is not None:
        rng = np.random.default_rng(seed)
        shuffled = rng.permuted(np.broadcast_to(right, (n_permutations, n)), axis=1).T
        again = shuffled - basis @ (basis.T @ shuffled)
        sizes = np.linalg.norm(left) * np.maximum(np.linalg.norm(again, axis=0), _tiny(n))
        p = share_as_extreme(np.abs(left @ again / sizes), abs(rho))
    return RankCorrelation(
        rho=rho,
        p=p,
        n=n,
        n_given=len(given),
        n_permutations=n_permutations,
        seed=seed,
        degenerate=rho is None,
    )


def partial_spearman(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    given: Sequence[Sequence[float] | Floats] = (),
) -> float:
    """The correlation of `rank_correlation` without its test; NaN where it is degenerate or has few values.

    Example:
        >>> round(partial_spearman([1, 2, 3, 4], [4, 3, 2, 1]), 6)
        -1.0
    """
    if len(x) < FEWEST_MORE + len(given):
        return float("nan")
    left, right, _ = _residual_ranks(x, y, given)
    rho = _correlation(left, right)
    return float("nan") if rho is None else rho


def share_as_extreme(drawn: Floats, observed: float) -> float:
    """`(1 + draws >= observed) / (1 + draws)`: the observed value is one of the draws under the null.

    Example:
        >>> share_as_extreme(np.array([0.1, 0.5, 0.9]), 0.5)
        0.75
    """
    return float((1 + np.count_nonzero(drawn >= observed - ROUNDING)) / (1 + len(drawn)))


def least_p(n_draws: int, *, two_sided: bool = False) -> float:
    """The smallest p value that a number of draws can give.

    Example:
        >>> round(least_p(10, two_sided=True), 2), least_p(99, two_sided=True)
        (0.18, 0.02)
    """
    return min(1.0, (2 if two_sided else 1) / (1 + n_draws))


def _tiny(n: int) -> float:
    return 1e-9 * n


def _correlation(left: Floats, right: Floats) -> float | None:
    sizes = [float(np.linalg.norm(side)) for side in (left, right)]
    if min(sizes) < _tiny(len(left)):
        return None
    return float(np.clip(left @ right / (sizes[0] * sizes[1]), -1.0, 1.0))


def _residual_ranks(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    given: Sequence[Sequence[float] | Floats],
) -> tuple[Floats, Floats, Floats]:
    """Ranks of x and y less what those of the given variables explain, and a basis of the latter."""
    columns = _checked(x, y, given)
    from scipy import stats

    ranked = [np.asarray(stats.rankdata(column), dtype=np.float64) for column in columns]
    n = len(columns[0])
    design = np.column_stack([np.ones(n), *ranked[2:]])
    columns_of, strengths, _ = np.linalg.svd(design, full_matrices=False)
    basis = columns_of[:, strengths > strengths[0] * n * np.finfo(float).eps]
    left, right = (np.asarray(one - basis @ (basis.T @ one)) for one in ranked[:2])
    return left, right, basis


def _checked(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    given: Sequence[Sequence[float] | Floats],
) -> list[Floats]:
    columns = [np.asarray(values, dtype=np.float64) for values in (x, y, *given)]
    n = len(columns[0])
    if any(column.shape != (n,) for column in columns):
        raise UsageError(f"Expected lists of one length, got shapes {[column.shape for column in columns]}")
    least = FEWEST_MORE + len(given)
    if n < least:
        raise UsageError(f"A rank correlation given {len(given)} variables needs {least} values, got {n}")
    if not all(np.all(np.isfinite(column)) for column in columns):
        raise UsageError("A rank correlation needs finite values")
    return columns


def sign_flip_p(values: Floats, *, seed: int = 0) -> float:
    """Two-sided p value of mean 0: the share of sign flips whose mean is as far from 0.

    Exact over all flips for up to 14 values, else over 20 000 random ones with the observed one counted.

    Example:
        >>> sign_flip_p(np.array([1.0, 2.0, 3.0]))
        0.25
    """
    observed = float(abs(values.mean()))
    if len(values) <= EXACT_FLIPS:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
        return float(np.mean(np.abs(signs @ values) / len(values) >= observed - ROUNDING))
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(FLIPS, len(values)))
    return share_as_extreme(np.abs(signs @ values) / len(values), observed)


def student_p(values: Floats) -> float:
    """Two-sided p value of mean 0 by Student's t test; 0 or 1 for equal values.

    Example:
        >>> round(student_p(np.array([1.0, 2.0, 3.0])), 4)
        0.0742
    """
    sd = float(values.std(ddof=1))
    if sd == 0:
        return float(values.mean() == 0)
    from scipy.special import stdtr

    return float(2 * stdtr(len(values) - 1, -abs(values.mean()) / sd * np.sqrt(len(values))))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over the p values that there are.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    known = sorted((value, i) for i, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[i] = largest
    return corrected
