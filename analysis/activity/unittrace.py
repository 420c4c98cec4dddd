"""Activations of a graph's units over samples, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, UsageError

Floats = NDArray[np.float64]

STATISTICS = ("mean", "mean_abs", "min", "max")


@dataclass(frozen=True, kw_only=True)
class UnitTrace:
    """Activations of a graph's units over samples; NaN where a unit was not measured."""

    statistics: Mapping[str, Floats] = field(default_factory=dict)
    """mean, mean_abs, min, max over all samples, (n_units,) each; those that are known."""
    samples: NDArray[np.floating] | None = None
    """(n_kept, n_units) values of the samples that were kept."""
    n_samples: int = 0
    """Samples behind the statistics; at least n_kept."""
    name: str = ""

    @classmethod
    def from_samples(cls, samples: NDArray[np.floating], *, name: str = "") -> "UnitTrace":
        """A trace whose statistics are those of the given samples.

        Args:
            samples: (n_samples, n_units), n_samples at least 1; NaN in all samples of a unit: not measured.
            name: Name of the trace.

        Raises:
            InvalidInputError: No samples, or not two axes.
        """
        if samples.ndim != 2 or not len(samples):
            raise InvalidInputError(
                f"A trace needs an array (samples, units) with samples, got shape {samples.shape}"
            )
        values = samples.astype(np.float64, copy=False)
        return cls(
            statistics={
                "mean": values.mean(axis=0),
                "mean_abs": np.abs(values).mean(axis=0),
                "min": values.min(axis=0),
                "max": values.max(axis=0),
            },
            samples=samples,
            n_samples=len(samples),
            name=name,
        )

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, n_units: int, *, name: str = "") -> "UnitTrace":
        """A trace from a store's activations.

        Args:
            frame: One row per measured unit: unit, mean, mean_abs, min, max, n, and optionally values, the
                list of per-sample values (of equal length for all units that have one).
            n_units: Units of the graph.
            name: Name of the trace.

        Raises:
            InvalidInputError: Units outside the graph, or lists of different lengths.
        """
        units = frame["unit"].to_numpy()
        if len(units) and (units.min() < 0 or units.max() >= n_units):
            raise InvalidInputError(f"Trace '{name}' has unit {units.max()}, the graph has {n_units} units")
        statistics = {}
        for column in STATISTICS:
            statistics[column] = np.full(n_units, np.nan)
            statistics[column][units] = frame[column].to_numpy()
        return cls(
            statistics=statistics,
            samples=_kept_samples(frame, units, n_units, name),
            n_samples=int(frame["n"].to_numpy().max(initial=0)),
            name=name,
        )

    def statistic(self, name: str) -> Floats:
        """A statistic over all samples, (n_units,).

        Raises:
            UsageError: The trace does not hold it.
        """
        if name not in self.statistics:
            raise UsageError(
                f"Trace '{self.name}' has no '{name}': it holds {', '.join(self.statistics) or 'none'}"
            )
        return self.statistics[name]

    def kept(self, rule: str) -> NDArray[np.floating]:
        """The per-sample values, (n_kept, n_units).

        Raises:
            UsageError: The trace holds statistics only.
        """
        if self.samples is None or not len(self.samples):
            raise UsageError(
                f"Rule '{rule}' needs per-sample values and trace '{self.name}' has none: "
                "trace again with a higher cap on kept samples, or choose mean, mean_abs or any"
            )
        return self.samples

    @property
    def kept_text(self) -> str:
        """How many samples the per-sample values cover, as text."""
        kept = 0 if self.samples is None else len(self.samples)
        return (
            f"{kept} samples" if kept >= self.n_samples else f"the first {kept} of {self.n_samples} samples"
        )


def _kept_samples(
    frame: pl.DataFrame, units: NDArray[np.integer], n_units: int, name: str
) -> NDArray[np.float32] | None:
    if "values" not in frame.columns:
        return None
    lists = frame["values"]
    lengths = lists.list.len().fill_null(0).to_numpy()
    n_kept = int(lengths.max(initial=0))
    if n_kept == 0:
        return None
    full = lengths == n_kept
    if np.any(lengths[~full] > 0):
        raise InvalidInputError(
            f"Trace '{name}' keeps between {lengths[lengths > 0].min()} and {n_kept} values per unit: "
            "expected the same number for all"
        )
    samples = np.full((n_kept, n_units), np.nan, dtype=np.float32)
    flat = lists.filter(pl.Series(full)).explode().to_numpy()
    samples[:, units[full]] = flat.reshape(-1, n_kept).T
    return samples
