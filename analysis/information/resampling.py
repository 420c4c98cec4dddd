"""Intervals by random halves of the samples.

A bootstrap with replacement repeats samples, which estimators of mutual information take for dependence (a
repeated sample is at distance zero of itself, and lowers the rank of a covariance). A random half without
replacement repeats nothing, and its estimate deviates from the mean over halves as much as the estimate of
all samples deviates from the truth: the factor (n - m) / m of the delete-d jackknife is 1 for m = n / 2
(Politis and Romano 1994, doi:10.1214/aos/1176325770; McCarthy 1969, balanced half-samples).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.estimate import Floats

Estimator = Callable[[NDArray[np.int64]], float]
"""Gives the estimate, in bits, of the samples of these numbers."""


def half_sample_deviations(estimator: Estimator, n: int, *, repeats: int, seed: int) -> Floats:
    """Return how estimates of random halves deviate from their mean.

    Halves come in complementary pairs, and depend on `n` and the seed only, so that two estimates of the same
    samples can be subtracted repeat by repeat.

    Args:
        estimator: Is called with the numbers of about half of the samples.
        n: Samples in all.
        repeats: Halves; 0 for none.
        seed: Of the draw.

    Returns:
        (repeats,) bits; infinite estimates give NaN.
    """
    rng = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < repeats:
        order = rng.permutation(n)
        halves = (order[: n // 2], order[n // 2 :])[: repeats - len(values)]
        values.extend(estimator(np.sort(half)) for half in halves)
    found = np.array(values, np.float64)
    found[~np.isfinite(found)] = np.nan
    if not np.isfinite(found).any():
        return found
    return np.asarray(found - np.nanmean(found))
