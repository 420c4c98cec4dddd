"""Spectral diagnostics of a weight matrix: power-law tail, norms, stable rank, entropy.

Definitions as in C. H. Martin and M. W. Mahoney (arXiv 1810.01075; 2002.06716), with the fit of A. Clauset,
C. R. Shalizi and M. E. J. Newman (arXiv 0706.1062): the x_min whose tail has the least Kolmogorov-Smirnov
distance D to the fitted power law. A number without its D and its number of tail values says little. Values
are those of WeightWatcher 0.7 (`tests/analysis/topology/weightwatcher_reference.py`), which fits spectra of
fewer than 20 eigenvalues in another way.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError

Floats = NDArray[np.float64]

SMALLEST = 1e-5
"""Eigenvalues up to this take no part in the fit of the tail, as in WeightWatcher."""
MIN_TAIL = 10
"""Fewer eigenvalues in the tail, and the fit's status says so."""


@dataclass(frozen=True, kw_only=True)
class SpectralFit:
    """Diagnostics of one spectrum of squared singular values."""

    n_eigenvalues: int
    alpha: float | None
    """Exponent of the tail's density, > 1; None where nothing can be fitted."""
    d: float | None
    """Kolmogorov-Smirnov distance of the tail to the fit, in [0, 1]."""
    x_min: float | None
    """Smallest eigenvalue of the tail."""
    n_tail: int
    alpha_hat: float | None
    """alpha * log10(largest eigenvalue)."""
    stable_rank: float
    """Sum of the eigenvalues over the largest one."""
    log_norm: float
    """log10 of the sum of the eigenvalues (squared Frobenius norm)."""
    log_spectral_norm: float
    """log10 of the largest eigenvalue (squared spectral norm)."""
    log_alpha_norm: float | None
    """log10 of the sum of eigenvalues to the power alpha."""
    entropy: float
    """Entropy of the eigenvalues as shares, over the log of the rank; in [0, 1]."""
    status: str
    """"ok", "short tail" or "no fit"."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


def squared_singular_values(matrix: NDArray[np.floating]) -> Floats:
    """Squared singular values, ascending; of the smaller Gram matrix where one side is much longer."""
    a = np.asarray(matrix, dtype=np.float64)
    if min(a.shape) * max(a.shape) <= 1 << 20:
        return np.asarray(np.sort(np.linalg.svd(a, compute_uv=False) ** 2))
    gram = a @ a.T if a.shape[0] < a.shape[1] else a.T @ a
    return np.asarray(np.maximum(np.linalg.eigvalsh(gram), 0.0))


def power_law_tail(values: Floats) -> tuple[float, float, float, int] | None:
    """Fit a power law to the tail of positive values.

    For every candidate x_min, `alpha = 1 + n / sum log(x / x_min)` and
    `D = max |1 - (x / x_min)^(1 - alpha) - rank / n|`, rank from 0 to n - 1 (arXiv 0706.1062, eqs. 3.1, 3.9).

    Returns:
        alpha, D, x_min, n of the candidate with the least D; None for fewer than two distinct values.
    """
    x = np.sort(values[values > 0])
    best: tuple[float, float, float, int] | None = None
    logs = np.log(x)
    tails = np.cumsum(logs[::-1])[::-1]
    for i in range(len(x) - 1):
        n = len(x) - i
        spread = tails[i] - n * logs[i]
        if spread <= 0:
            continue
        alpha = 1 + n / spread
        d = float(np.abs(1 - np.exp((logs[i:] - logs[i]) * (1 - alpha)) - np.arange(n) / n).max())
        if best is None or d < best[1]:
            best = (float(alpha), d, float(x[i]), n)
    return best


def spectral_fit(eigenvalues: Floats) -> SpectralFit:
    """Diagnose a spectrum.

    Args:
        eigenvalues: Squared singular values, at least one of them positive.

    Raises:
        InvalidInputError: No positive eigenvalue, or one that is not finite.

    Example:
        >>> planted = (1 - (np.arange(200) + 0.5) / 200) ** -0.5
        >>> fit = spectral_fit(planted)
        >>> round(fit.alpha, 6), round(fit.d, 5), round(fit.stable_rank, 6)
        (3.008506, 0.00336, 19.572277)
    """
    if not np.isfinite(eigenvalues).all() or not (eigenvalues > 0).any():
        raise InvalidInputError("spectrum: expected finite eigenvalues, at least one above zero")
    largest, total = float(eigenvalues.max()), float(eigenvalues.sum())
    eps = float(np.finfo(np.float32).eps)
    rank = int((np.sqrt(eigenvalues) > np.sqrt(largest) * len(eigenvalues) * eps).sum())
    shares = eigenvalues[eigenvalues > 0] / total
    entropy = -float((shares * np.log(shares)).sum()) / np.log(rank) if rank > 1 else 0.0
    fit = power_law_tail(eigenvalues[eigenvalues > SMALLEST])
    alpha, d, x_min, n_tail = fit or (None, None, None, 0)
    log_alpha = None
    if alpha is not None:
        log_alpha = alpha * np.log10(largest) + float(np.log10(((eigenvalues / largest) ** alpha).sum()))
    return SpectralFit(
        n_eigenvalues=len(eigenvalues),
        alpha=alpha,
        d=d,
        x_min=x_min,
        n_tail=n_tail,
        alpha_hat=None if alpha is None else float(alpha * np.log10(largest)),
        stable_rank=total / largest,
        log_norm=float(np.log10(total)),
        log_spectral_norm=float(np.log10(largest)),
        log_alpha_norm=None if log_alpha is None else float(log_alpha),
        entropy=float(entropy),
        status="no fit" if fit is None else "ok" if n_tail >= MIN_TAIL else "short tail",
    )
