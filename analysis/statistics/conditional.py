"""Correlation of two variables given a third, with a p value that holds its level where that one confounds.

Ranks less what the ranks of a confounder explain are no independent numbers: two variables that follow the
confounder monotonically, and have nothing else in common, correlate in such residuals (up to 0.87 of tests at
0.05 reject). Here values are compared with neighbours only, among which the confounder hardly differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.statistics.intervals import Support, jackknife
from emergraph.analysis.statistics.permutation import (
    checked_columns,
    group_numbers,
    known_ends,
    normal_scores,
    student_p,
)

Floats = NDArray[np.float64]

CELL = 6
"""Neighbours that are compared with each other."""
WIDENED = 1.15
"""Factor of the interval's half-width: contrasts of one cell share the ranks that make their scores."""
FEWEST_CONTRASTS = 3
"""Contrasts that a correlation needs."""


@dataclass(frozen=True, kw_only=True)
class ConditionalCorrelation:
    """Correlation of normal scores among neighbours in a given variable."""

    rho: float | None
    """In [-1, 1]; None when degenerate."""
    low: float | None
    """Conservative jackknife interval of 95 % over contrasts, on Fisher's scale; None where there is none."""
    high: float | None
    p: float | None
    """Two-sided, Student's t of the products of contrasts; None when degenerate."""
    n: int
    n_contrasts: int
    """What is left of n once a line in the given variable is taken off each cell of neighbours."""
    degenerate: bool
    """One of the two does not vary among neighbours, or there are fewer than three contrasts."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def conditional_correlation(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    *,
    given: Sequence[float] | Floats,
    within: Sequence[object] | None = None,
) -> ConditionalCorrelation:
    """Correlation of x and y given a variable, whatever the shape in which they depend on it.

    x and y become normal scores. In the order of the given variable, observations are divided into cells of
    about 6 neighbours (at least two cells). The contrasts of a cell are orthonormal combinations of its
    members that neither a constant nor a line in the given variable changes: a dependence that hardly bends
    within a cell does not show in them. rho is their correlation about 0. If x and y are independent given
    the variable, products of their contrasts have mean 0, whatever the variances; p is Student's for that.

    One given variable only: with two or more, cells are too wide for a monotone confounder (rejecting up to
    0.2 of tests at 0.05). What takes few values is held constant exactly by `within`.

    Args:
        x: (n,) for example E over networks.
        y: (n,) for example sharpness.
        given: (n,) to hold constant, for example the loss.
        within: (n,) group of each observation, for example its architecture; no cell holds two groups.

    Raises:
        UsageError: Different lengths, values that are not finite, or fewer than four.

    Example:
        >>> z = np.arange(60.0)
        >>> noise = np.random.default_rng(0).standard_normal((2, 60))
        >>> conditional_correlation(z + noise[0], z + noise[1], given=z).p > 0.05
        True
    """
    *two, held = checked_columns(x, y, given, least=4)
    n = len(held)
    scores = np.stack([normal_scores(column) for column in two], axis=1)
    cells = _cells(held, group_numbers(within, n))
    pairs = np.concatenate([_free_of_lines(held[cell]).T @ scores[cell] for cell in cells])
    rho = _about_zero(pairs)
    degenerate = len(pairs) < FEWEST_CONTRASTS or not np.isfinite(rho)
    low, high = (
        (None, None)
        if degenerate
        else known_ends(jackknife(_about_zero, pairs, support=Support.CORRELATION, widen=WIDENED))
    )
    return ConditionalCorrelation(
        rho=None if degenerate else rho,
        low=low,
        high=high,
        p=None if degenerate else student_p(pairs[:, 0] * pairs[:, 1]),
        n=n,
        n_contrasts=len(pairs),
        degenerate=degenerate,
    )


def _cells(held: Floats, groups: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Members of each cell, in the order of the given variable."""
    n_groups = int(groups.max()) + 1
    for group in range(n_groups):
        members = np.flatnonzero(groups == group)
        ordered = members[np.argsort(held[members], kind="stable")]
        fewest = 2 if n_groups == 1 else 1
        yield from np.array_split(ordered, max(fewest, len(members) // CELL))


def _free_of_lines(held: Floats) -> Floats:
    """(n, m) orthonormal combinations of the members of a cell that no line in the given variable changes.

    A constant and the line are completed by polynomials of the place in the cell, lowest degree first.
    """
    n = len(held)
    lines, strengths, _ = np.linalg.svd(np.column_stack([np.ones(n), held - held.mean()]))
    fixed = int(np.sum(strengths > strengths[0] * n * np.finfo(float).eps))
    polynomials = np.linalg.qr(np.vander(np.linspace(-1, 1, n), increasing=True))[0]
    basis = np.linalg.qr(np.column_stack([lines[:, :fixed], polynomials[:, fixed:]]))[0]
    return np.asarray(basis[:, fixed:], dtype=np.float64)


def _about_zero(pairs: Floats) -> float:
    """Correlation of two columns about 0, which their mean is."""
    sizes = np.linalg.norm(pairs, axis=0)
    if min(sizes) < 1e-9 * max(len(pairs), 1):
        return float("nan")
    return float(np.clip(pairs[:, 0] @ pairs[:, 1] / (sizes[0] * sizes[1]), -1.0, 1.0))
