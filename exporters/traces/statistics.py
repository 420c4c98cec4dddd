"""Statistics per unit over samples and positions that arrive in batches, and what the first samples do."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.exporters.runtime.pooling import Pooled

Floats = NDArray[np.float64]
Kept = NDArray[np.float32]


class UnitStatistics:
    """Mean, spread, extremes and share of positive values of every unit of one layer, in one pass.

    All are over samples and positions: a channel has a value in each pixel, and all of them count. Batches
    are merged by the rule of Chan, Golub and LeVeque for sums of squared deviations (Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances, 1979, eq. 2.1), which does not lose digits where the
    mean is large against the spread:

        mean = mean_a + d n_b / n,   M2 = M2_a + M2_b + d^2 n_a n_b / n,   d = mean_b - mean_a.

    The first samples also keep one number each, made of their positions in three ways (`KEPT`). A NaN in a
    unit's values makes all its numbers NaN, except `share_positive`, which counts it as not positive.

    Example:
        >>> statistics = UnitStatistics(n_units=1, n_values=2)
        >>> statistics.add(pooled(np.array([[[1.0, -1.0]], [[3.0, 1.0]]]), (1,), SampleAxis(0), 2))
        >>> {name: statistics.columns()[name].tolist() for name in ("mean", "mean_abs", "max")}
        {'mean': [1.0], 'mean_abs': [1.5], 'max': [3.0]}
    """

    def __init__(self, n_units: int, n_values: int) -> None:
        """Start with no samples.

        Args:
            n_units: Units of the layer.
            n_values: How many samples to keep numbers of, the first ones.
        """
        self.n = 0
        self.n_positions = 0
        """Positions of a sample, the most of any."""
        self._counted = 0
        self._mean = np.zeros(n_units)
        self._m2 = np.zeros(n_units)
        self._mean_abs = np.zeros(n_units)
        self._min = np.full(n_units, np.inf)
        self._max = np.full(n_units, -np.inf)
        self._positive = np.zeros(n_units)
        self._n_values = n_values
        self._kept: dict[str, Kept] = {name: np.empty((n_values, n_units), np.float32) for name in KEPT[:1]}

    def add(self, batch: Pooled) -> None:
        """Take in a batch of samples."""
        samples = len(batch.mean)
        if samples == 0:
            return
        self._keep(batch)
        self.n += samples
        self.n_positions = max(self.n_positions, batch.n_positions)
        count = samples * max(batch.n_positions, 1)
        total = self._counted + count
        share = count / total
        with np.errstate(invalid="ignore", over="ignore"):
            mean = batch.mean.mean(axis=0)
            difference = mean - self._mean
            spread = (batch.variance + np.square(batch.mean - mean)).mean(axis=0)
            self._m2 += spread * count + difference**2 * (self._counted * share)
            self._mean += difference * share
            self._mean_abs += (batch.mean_abs.mean(axis=0) - self._mean_abs) * share
        self._min = np.minimum(self._min, batch.min.min(axis=0))
        self._max = np.maximum(self._max, batch.max.max(axis=0))
        self._positive += batch.share_positive.mean(axis=0) * count
        self._counted = total

    def _keep(self, batch: Pooled) -> None:
        kept = min(len(batch.mean), self._n_values - self.n)
        if kept <= 0:
            return
        if batch.n_positions != 1 and len(self._kept) == 1:
            # so far, each sample had one position
            values = self._kept["values"]
            self._kept |= {"values_abs": np.abs(values), "values_max": values.copy()}
        for name, numbers in zip(KEPT, (batch.mean, batch.mean_abs, batch.max), strict=True):
            if name in self._kept:
                with np.errstate(over="ignore"):
                    self._kept[name][self.n : self.n + kept] = numbers[:kept]

    def columns(self) -> dict[str, Floats]:
        """The statistics by name, each (units,) float64; NaN where there are no samples."""
        if self.n == 0:
            return dict.fromkeys(STATISTICS, np.full(len(self._mean), np.nan))
        with np.errstate(invalid="ignore"):
            std = np.sqrt(self._m2 / self._counted)
            return {
                "mean": self._mean,
                "mean_abs": self._mean_abs,
                "rms": np.hypot(self._mean, std),
                "std": std,
                "min": self._min,
                "max": self._max,
                "share_positive": self._positive / self._counted,
            }

    def frame(self, first_unit: int) -> pl.DataFrame:
        """The statistics as rows of the table `activations`, one per unit.

        Args:
            first_unit: Id of the layer's first unit.
        """
        n_units = len(self._mean)
        return pl.DataFrame(
            {
                "unit": np.arange(first_unit, first_unit + n_units, dtype=np.int64),
                **self.columns(),
                "n": np.full(n_units, self.n, np.int64),
                "n_positions": np.full(n_units, self.n_positions, np.int64),
                **{name: self._lists(name) for name in KEPT},
            }
        )

    def _lists(self, name: str) -> pl.Series:
        """One list per unit, NULL where it would say nothing new: with one position, and without samples."""
        kept = self._kept[name][: self.n].T if name in self._kept else np.empty((len(self._mean), 0))
        if kept.shape[1] == 0:
            return pl.Series(name, [None] * len(kept), dtype=pl.List(pl.Float32))
        values = np.ascontiguousarray(kept, np.float32)
        return pl.Series(name, values, dtype=pl.Array(pl.Float32, kept.shape[1])).arr.to_list()


STATISTICS = ("mean", "mean_abs", "rms", "std", "min", "max", "share_positive")
"""Names of the columns."""

KEPT = ("values", "values_abs", "values_max")
"""Numbers of a sample: the mean of its positions, the mean of their absolute values, and the largest."""

MAX_KEPT = 1 << 28
"""Values kept in memory for one trace, 4 bytes each; with more units fewer samples are kept."""


def kept_samples(n_samples: int, n_units: int, cap: int) -> int:
    """How many samples to keep numbers of: at most `cap`, and at most `MAX_KEPT` numbers in all."""
    return max(0, min(n_samples, cap, MAX_KEPT // (len(KEPT) * max(n_units, 1))))
