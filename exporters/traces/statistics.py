"""Statistics per unit over samples that arrive in batches, and the values of the first samples."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class UnitStatistics:
    """Mean, spread, extremes and share of positive values of every unit of one layer, in one pass.

    Batches are merged by the rule of Chan, Golub and LeVeque for sums of squared deviations
    (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979, eq. 2.1), which does not
    lose digits where the mean is large against the spread:

        mean = mean_a + d n_b / n,   M2 = M2_a + M2_b + d^2 n_a n_b / n,   d = mean_b - mean_a.

    A NaN in a unit's values makes all its numbers NaN, except `share_positive`, which counts it as not
    positive.

    Example:
        >>> statistics = UnitStatistics(n_units=1, n_values=2)
        >>> statistics.add(np.array([[1.0], [-3.0]]))
        >>> statistics.add(np.array([[2.0]]))
        >>> statistics.columns()["mean"].tolist(), statistics.columns()["min"].tolist()
        ([0.0], [-3.0])
    """

    def __init__(self, n_units: int, n_values: int) -> None:
        """Start with no samples.

        Args:
            n_units: Units of the layer.
            n_values: How many samples' values to keep, the first ones.
        """
        self.n = 0
        self._mean = np.zeros(n_units)
        self._m2 = np.zeros(n_units)
        self._mean_abs = np.zeros(n_units)
        self._mean_square = np.zeros(n_units)
        self._min = np.full(n_units, np.inf)
        self._max = np.full(n_units, -np.inf)
        self._positive = np.zeros(n_units, np.int64)
        self._values = np.empty((n_values, n_units), np.float32)

    def add(self, batch: Floats) -> None:
        """Take in a batch of values.

        Args:
            batch: (samples, units) float64.
        """
        count = len(batch)
        if count == 0:
            return
        kept = min(count, len(self._values) - self.n)
        if kept > 0:
            with np.errstate(over="ignore"):
                self._values[self.n : self.n + kept] = batch[:kept]
        total = self.n + count
        with np.errstate(invalid="ignore", over="ignore"):
            mean = batch.mean(axis=0)
            difference = mean - self._mean
            self._m2 += np.square(batch - mean).sum(axis=0) + difference**2 * (self.n * count / total)
            self._mean += difference * (count / total)
            self._mean_abs += (np.abs(batch).mean(axis=0) - self._mean_abs) * (count / total)
            self._mean_square += (np.square(batch).mean(axis=0) - self._mean_square) * (count / total)
        self._min = np.minimum(self._min, batch.min(axis=0))
        self._max = np.maximum(self._max, batch.max(axis=0))
        self._positive += (batch > 0).sum(axis=0)
        self.n = total

    def columns(self) -> dict[str, Floats]:
        """The statistics by name, each (units,) float64; NaN where there are no samples."""
        if self.n == 0:
            return dict.fromkeys(STATISTICS, np.full(len(self._mean), np.nan))
        with np.errstate(invalid="ignore"):
            return {
                "mean": self._mean,
                "mean_abs": self._mean_abs,
                "rms": np.sqrt(self._mean_square),
                "std": np.sqrt(self._m2 / self.n),
                "min": self._min,
                "max": self._max,
                "share_positive": self._positive / self.n,
            }

    def frame(self, first_unit: int) -> pl.DataFrame:
        """The statistics as rows of the table `activations`, one per unit.

        Args:
            first_unit: Id of the layer's first unit.
        """
        n_units = len(self._mean)
        kept = np.ascontiguousarray(self._values[: min(self.n, len(self._values))].T)
        frame = pl.DataFrame(
            {
                "unit": np.arange(first_unit, first_unit + n_units, dtype=np.int64),
                **self.columns(),
                "n": np.full(n_units, self.n, np.int64),
            }
        )
        if kept.shape[1] == 0:
            return frame
        values = pl.Series("values", kept, dtype=pl.Array(pl.Float32, kept.shape[1]))
        return frame.with_columns(values.arr.to_list())


STATISTICS = ("mean", "mean_abs", "rms", "std", "min", "max", "share_positive")
"""Names of the columns."""

MAX_KEPT = 1 << 28
"""Values kept in memory for one trace, 4 bytes each; with more units fewer samples are kept."""


def kept_samples(n_samples: int, n_units: int, cap: int) -> int:
    """How many samples' values to keep: at most `cap`, and at most `MAX_KEPT` values in all."""
    return max(0, min(n_samples, cap, MAX_KEPT // max(n_units, 1)))
