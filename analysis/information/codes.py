"""Mutual information of discrete codes by counting, and how many distinct states there are."""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.estimate import BITS, Floats
from emergraph.errors import UsageError

DIGITS = 5
"""Significant digits, of the largest value of a sample of vectors, by which its rows are told apart."""


LARGEST = 1e100
"""Magnitude of the values of samples: far beyond it, squares and their sums leave the range of floats."""


def real_states(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Samples that can be computed with: real, finite, within range; truth values as 0 and 1."""
    if values.dtype.kind == "c":
        raise UsageError("samples of complex numbers: mutual information needs real states")
    if not np.isfinite(values).all():
        raise UsageError("samples that are not finite: mutual information needs finite states")
    if float(np.abs(values).max(initial=0)) > LARGEST:
        raise UsageError(f"samples with values beyond {LARGEST:g}: mutual information needs smaller states")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def distinct_states(values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the number of the distinct row that each row is, counted from 0.

    Floats are rounded to `DIGITS` significant digits of their largest value: states that one input gives in
    two runs differ in the last bits.

    Raises:
        UsageError: They are complex, not finite, or too large.
    """
    rows = real_states(values).reshape(len(values), -1)
    if rows.dtype.kind == "f":
        scale = float(np.abs(rows).max(initial=0.0)) or 1.0
        rounded = np.asarray(rows, np.float64) / scale
        rows = np.round(rounded, DIGITS) + 0.0  # no negative zeros
    _, inverse = np.unique(rows, axis=0, return_inverse=True)
    return np.asarray(inverse.reshape(-1), np.int64)


def code_information(x: NDArray[np.int64], y: NDArray[np.int64]) -> float:
    """Return the mutual information of two discrete variables, in bits, by counting.

    `sum p(x, y) log2 [p(x, y) / (p(x) p(y))]` less the Miller-Madow bias
    `(m_xy - m_x - m_y + 1) / (2 n)` nats, where m counts the values that occur. For `y = f(x)` one to one
    this is the entropy of x.

    Args:
        x: (n,) codes.
        y: (n,) codes of the same draws.

    Example:
        >>> code_information(np.array([0, 1, 2, 3] * 100), np.array([5, 6, 7, 8] * 100)) > 1.99
        True
    """
    n = len(x)
    counts = [np.unique(values, axis=0, return_counts=True)[1] for values in (x, y, np.stack([x, y], axis=1))]
    h_x, h_y, h_xy = (_entropy(count / n) for count in counts)
    m_x, m_y, m_xy = (len(count) for count in counts)
    return float((h_x + h_y - h_xy - (m_xy - m_x - m_y + 1) / (2 * n)) * BITS)


def _entropy(shares: Floats) -> float:
    return float(-(shares * np.log(shares)).sum())
