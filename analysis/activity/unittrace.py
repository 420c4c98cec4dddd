"""Activations of a graph's units over samples, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, UsageError

Floats = NDArray[np.float64]

RANDOM_SAMPLES = "random samples"
"""What the samples of a trace on random inputs are called, wherever activity is described."""
STATISTICS = ("mean", "mean_abs", "min", "max")


class PositionPooling(StrEnum):
    """What one number of a sample is made of, where it has several positions."""

    MEAN = "mean"
    """The mean over positions."""
    ABS = "abs"
    """The mean of the absolute values."""
    MAX = "max"
    """The largest."""


KEPT_COLUMNS = {
    PositionPooling.MEAN: "values",
    PositionPooling.ABS: "values_abs",
    PositionPooling.MAX: "values_max",
}


@dataclass(frozen=True, kw_only=True)
class UnitTrace:
    """Activations of a graph's units over samples; NaN where a unit was not measured."""

    statistics: Mapping[str, Floats] = field(default_factory=dict)
    """mean, mean_abs, min, max over all samples and positions, (n_units,) each; those that are known."""
    samples: NDArray[np.floating] | None = None
    """(n_kept, n_units) values of the samples that were kept: means over their positions."""
    n_samples: int = 0
    """Samples behind the statistics; at least n_kept."""
    name: str = ""
    random: bool = False
    """Whether the inputs were drawn at random: what units do on them says little about real ones."""
    n_positions: int | None = 1
    """The most positions of a sample in any unit; None where each sample was one value to begin with, its
    mean over positions: in traces from before statistics were taken over positions."""
    pooled_samples: Mapping[PositionPooling, NDArray[np.floating]] = field(default_factory=dict)
    """The same as `samples` in other words, where samples have several positions."""

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
            frame: One row per measured unit: unit, mean, mean_abs, min, max, n, n_positions, and optionally
                values, values_abs and values_max, lists of per-sample values (of equal length for all units
                that have one).
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
        samples = _kept_samples(frame, units, n_units, name)
        positions = frame["n_positions"]
        several = positions.null_count() == 0 and (positions > 1).any()
        return cls(
            statistics=statistics,
            samples=samples,
            n_samples=int(frame["n"].to_numpy().max(initial=0)),
            name=name,
            n_positions=None if positions.null_count() else int(positions.to_numpy().max(initial=1)),
            pooled_samples=_pooled_samples(frame, units, samples, name) if several else {},
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

    def kept(self, rule: str, pooling: PositionPooling = PositionPooling.MEAN) -> NDArray[np.floating]:
        """The per-sample values, (n_kept, n_units).

        Args:
            rule: What needs them, for the message.
            pooling: What a sample's value is made of, where it has several positions.

        Raises:
            UsageError: The trace holds statistics only.
        """
        if self.samples is None or not len(self.samples):
            raise UsageError(
                f"Rule '{rule}' needs per-sample values and trace '{self.name}' has none: "
                "trace again with a higher cap on kept samples, or choose mean, mean_abs or any"
            )
        if pooling in self.pooled_samples:
            return self.pooled_samples[pooling]
        return np.abs(self.samples) if pooling is PositionPooling.ABS else self.samples

    @property
    def text(self) -> str:
        """What the statistics are over, as text."""
        return f"{self.n_samples} {self._samples}{self._positions}"

    @property
    def kept_text(self) -> str:
        """How many samples the per-sample values cover, and what they are, as text."""
        kept = 0 if self.samples is None else len(self.samples)
        found = f"the first {kept} of {self.n_samples}" if kept < self.n_samples else str(kept)
        return f"{found} {self._samples}{'' if self.n_positions == 1 else ' (means over positions)'}"

    @property
    def _samples(self) -> str:
        return RANDOM_SAMPLES if self.random else "samples"

    @property
    def _positions(self) -> str:
        if self.n_positions is None:
            return " (each its mean over positions: traced before schema version 3)"
        return " and their positions" if self.n_positions > 1 else ""


def _pooled_samples(
    frame: pl.DataFrame, units: NDArray[np.integer], samples: NDArray[np.float32] | None, name: str
) -> dict[PositionPooling, NDArray[np.floating]]:
    """Absolute values and maxima; of a unit with one position per sample they follow from its values."""
    if samples is None:
        return {}
    found: dict[PositionPooling, NDArray[np.floating]] = {}
    for pooling in (PositionPooling.ABS, PositionPooling.MAX):
        kept = _kept_samples(frame, units, samples.shape[1], name, KEPT_COLUMNS[pooling])
        single = np.abs(samples) if pooling is PositionPooling.ABS else samples
        found[pooling] = single if kept is None else np.where(np.isnan(kept), single, kept)
    return found


def _kept_samples(
    frame: pl.DataFrame, units: NDArray[np.integer], n_units: int, name: str, column: str = "values"
) -> NDArray[np.float32] | None:
    if column not in frame.columns:
        return None
    lists = frame[column]
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
