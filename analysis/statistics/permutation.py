"""Rank correlations, p values by permutation and by Student's t, and their correction for many of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.statistics.estimate import Estimate
from emergraph.analysis.statistics.intervals import Support, all_equal, jackknife
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
    """Spearman correlation, within groups where there are some."""

    rho: float | None
    """In [-1, 1]; None when degenerate."""
    low: float | None
    """Jackknife interval of 95 % over the pairs, on Fisher's scale; None where there is none."""
    high: float | None
    p: float | None
    """Two-sided permutation p value, (1 + draws at least as extreme) / (1 + draws); None when degenerate."""
    n: int
    n_groups: int
    """Groups that hold at least two pairs."""
    n_permutations: int
    seed: int
    degenerate: bool
    """One of the two does not vary within a group."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def rank_correlation(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    *,
    within: Sequence[object] | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman rank correlation of x and y; with groups, that of the ranks less the mean of their group.

    The p value permutes y among all pairs, or among those of a group: whatever differs between groups is held
    constant, exactly, and whatever x and y have to do with it. Pairs must be independent of each other, as
    networks and seeds are and steps of one run are not. For a variable that differs from pair to pair see
    `conditional_correlation`.

    Args:
        x: (n,) for example E or relative E, over seeds or networks.
        y: (n,) for example accuracy.
        within: (n,) the group of each pair, for example its architecture; all are one group without.
        n_permutations: Draws, at least 1.
        seed: Seed of the draws.

    Raises:
        UsageError: Different lengths, values that are not finite, or fewer than three.

    Example:
        >>> round(rank_correlation([1, 2, 3, 4], [1, 8, 27, 64], n_permutations=99).rho, 6)
        1.0
    """
    if n_permutations < 1:
        raise UsageError("A rank correlation needs at least one permutation")
    columns = checked_columns(x, y)
    n = len(columns[0])
    groups = group_numbers(within, n)
    left, right = (_less_group_means(_ranks(column), groups) for column in columns)
    rho, p = _correlation(left, right), None
    ends: tuple[float | None, float | None] = (None, None)
    if rho is not None:
        # random keys sort the members of each group anew, and leave the groups in order
        keys = np.random.default_rng(seed).random((n_permutations, n)) + np.sort(groups)
        members = np.argsort(groups, kind="stable")
        drawn = right[members][np.argsort(keys, axis=1)] @ left[members]
        p = share_as_extreme(np.abs(drawn) / (np.linalg.norm(left) * np.linalg.norm(right)), abs(rho))
        ends = known_ends(
            jackknife(
                _pooled_rank_correlation, np.column_stack([*columns, groups]), support=Support.CORRELATION
            )
        )
    return RankCorrelation(
        rho=rho,
        low=ends[0],
        high=ends[1],
        p=p,
        n=n,
        n_groups=int(np.sum(np.bincount(groups) > 1)),
        n_permutations=n_permutations,
        seed=seed,
        degenerate=rho is None,
    )


def partial_spearman(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    given: Sequence[Sequence[float] | Floats] = (),
) -> float:
    """Spearman's correlation with the ranks of the given variables regressed out of both, an effect.

    With one given variable z this is `(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2))` on ranks; NaN
    where it is degenerate or has few values. It has no p value: two variables that each follow z, and have
    nothing else in common, correlate in such residuals (see `conditional_correlation`).

    Example:
        >>> round(partial_spearman([1, 2, 3, 4], [4, 3, 2, 1]), 6)
        -1.0
    """
    if len(x) < FEWEST_MORE + len(given):
        return float("nan")
    left, right = _residual_ranks(checked_columns(x, y, *given, least=FEWEST_MORE + len(given)))
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


def group_numbers(labels: Sequence[object] | None, n: int) -> NDArray[np.int64]:
    """(n,) number of each observation's group, in the order of their first members; 0 without groups.

    Raises:
        UsageError: Another number of labels.
    """
    if labels is None:
        return np.zeros(n, dtype=np.int64)
    if len(labels) != n:
        raise UsageError(f"Expected a group for each of {n} values, got {len(labels)}")
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def known_ends(found: Estimate) -> tuple[float | None, float | None]:
    """Ends of an interval; None for none."""
    return (found.low, found.high) if np.isfinite(found.low) else (None, None)


def checked_columns(*lists: Sequence[float] | Floats, least: int = FEWEST_MORE) -> list[Floats]:
    """Lists as columns of one length, finite and at least so long.

    Raises:
        UsageError: They are not.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in lists]
    n = len(columns[0])
    if any(column.shape != (n,) for column in columns):
        raise UsageError(f"Expected lists of one length, got shapes {[column.shape for column in columns]}")
    if n < least:
        raise UsageError(f"A correlation of {len(lists)} variables needs {least} values, got {n}")
    if not all(np.all(np.isfinite(column)) for column in columns):
        raise UsageError("A correlation needs finite values")
    return columns


def _ranks(values: Floats) -> Floats:
    from scipy import stats

    return np.asarray(stats.rankdata(values), dtype=np.float64)


def normal_scores(values: Floats) -> Floats:
    """Ranks as quantiles of the normal distribution; ties share the mean of their ranks.

    Example:
        >>> normal_scores(np.array([3.0, 1.0, 2.0])).round(3).tolist()
        [0.967, -0.967, 0.0]
    """
    from scipy.special import ndtri

    return np.asarray(ndtri((_ranks(values) - 0.5) / len(values)), dtype=np.float64)


def _less_group_means(values: Floats, groups: NDArray[np.int64]) -> Floats:
    return values - (np.bincount(groups, values) / np.maximum(np.bincount(groups), 1))[groups]


def _pooled_rank_correlation(rows: Floats) -> float:
    """Of rows x, y, group; NaN where it is degenerate."""
    groups = rows[:, 2].astype(np.int64)
    rho = _correlation(*(_less_group_means(_ranks(rows[:, i]), groups) for i in (0, 1)))
    return float("nan") if rho is None else rho


def _correlation(left: Floats, right: Floats) -> float | None:
    sizes = [float(np.linalg.norm(side)) for side in (left, right)]
    if min(sizes) < 1e-9 * len(left):
        return None
    return float(np.clip(left @ right / (sizes[0] * sizes[1]), -1.0, 1.0))


def _residual_ranks(columns: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Ranks of the first two columns less what those of the others explain."""
    ranked = [_ranks(column) for column in columns]
    n = len(columns[0])
    design = np.column_stack([np.ones(n), *ranked[2:]])
    columns_of, strengths, _ = np.linalg.svd(design, full_matrices=False)
    basis = columns_of[:, strengths > strengths[0] * n * np.finfo(float).eps]
    left, right = (np.asarray(one - basis @ (basis.T @ one)) for one in ranked[:2])
    return left, right


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
    """Two-sided p value of mean 0 by Student's t test; that of sign flips for equal values, which have no t.

    Example:
        >>> round(student_p(np.array([1.0, 2.0, 3.0])), 4)
        0.0742
    """
    if all_equal(values):
        return sign_flip_p(values)
    sd = float(values.std(ddof=1))
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
