"""What a percolation run finds."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.percolation.curve import MergeCurve
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.reach import NEVER
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.analysis.statistics.intervals import Support, student

SPREAD = (2.5, 97.5)
"""Percentiles over seeds that bound a band."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One order of edges, over several seeds."""

    name: str
    """"observed", "shuffled within blocks" or "random"."""
    curves: tuple[MergeCurve, ...]
    """One per seed; a single one where nothing is random."""
    reach: NDArray[np.int64]
    """(n_inputs,) edges at which each input first reaches an output, for the first seed, or `NEVER`."""

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """(n_seeds,) edges at the peak of the susceptibility."""
        return np.array([curve.threshold for curve in self.curves], dtype=np.float64)

    @property
    def estimate(self) -> Estimate:
        """Their mean, in edges, with Student's interval over seeds; none for a single order."""
        return student(self.thresholds, support=Support.POSITIVE)

    @property
    def threshold(self) -> float:
        """The mean alone."""
        return self.estimate.mean

    @property
    def half_reach(self) -> int | None:
        """Edges at which half of the inputs reach an output; None when that never happens."""
        if len(self.reach) == 0:
            return None
        edges = int(np.sort(self.reach)[(len(self.reach) - 1) // 2])
        return None if edges == NEVER else edges

    def to_dict(self, n_edges: int) -> dict[str, object]:
        """Return the summary; shares are of all `n_edges` edges."""
        found = self.estimate
        first = self.curves[0]
        peak = int(np.argmax(first.susceptibility))
        return {
            "series": self.name,
            "threshold": self.threshold,
            "low": finite_or_none(found.low),
            "high": finite_or_none(found.high),
            "share": self.threshold / n_edges,
            "giant": float(first.giant[peak]) / first.n_units,
            "susceptibility": float(first.susceptibility[peak]),
            "half_reach": self.half_reach,
            "n_seeds": len(self.curves),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PercolationResult(ShownInNotebooks):
    """Thresholds, curves and predictions of one graph and one order."""

    graph: str
    order: str
    options: PercolationOptions
    n_units: int
    n_edges: int
    """Edges that are added one by one."""
    n_given: int
    """Structural edges that are there from the start."""
    has_ties: bool
    """Whether equal keys made a random choice necessary."""
    n_without_key: int
    """Edges whose key is not a number, such as those of units without a recorded activity: they come last."""
    series: tuple[Series, ...]
    """The observed order first, then the null models."""
    degree_threshold: float
    """Edges at which a random graph with the same degrees on each side of each block percolates; infinite for
    never."""
    layered_threshold: float
    """Edges at which a random graph with as many edges between layers percolates."""
    layers: pl.DataFrame
    """One row per block by itself: block, name, layer, n_src, n_dst, n_edges, threshold, predicted
    (sqrt(n_src n_dst)), degree_threshold."""

    @property
    def observed(self) -> Series:
        """The order that was asked for."""
        return self.series[0]

    def comparisons(self) -> list[dict[str, object]]:
        """Return, per null model, the ratio of thresholds and the z-score, or "degenerate"."""
        rows: list[dict[str, object]] = []
        for null in self.series[1:]:
            sd = float(null.thresholds.std(ddof=1)) if len(null.curves) > 1 else 0.0
            z = (self.observed.threshold - null.threshold) / sd if sd > 0 else None
            rows.append(
                {
                    "null": null.name,
                    "ratio": self.observed.threshold / null.threshold if null.threshold else None,
                    "z": z,
                    "state": "degenerate" if z is None else "ok",
                }
            )
        return rows

    def curve(self) -> pl.DataFrame:
        """Return the curves of all series: one row per series and number of edges.

        Columns series, edges, share (of edges), giant (share of units, mean over seeds), giant_spread_low,
        giant_spread_high, susceptibility, components (means), reach (share of inputs, first seed).
        """
        return pl.concat(self._series_curve(series) for series in self.series)

    def _series_curve(self, series: Series) -> pl.DataFrame:
        marks = [curve.threshold for each in self.series for curve in each.curves]
        spaced = np.geomspace(1, self.n_edges, self.options.points).round()
        edges = np.unique(np.concatenate([[0.0], spaced, marks])).astype(np.int64)
        at = [curve.at(edges) for curve in series.curves]
        pairs = list(zip(series.curves, at, strict=True))
        giant = np.array([curve.giant[i] / curve.n_units for curve, i in pairs])
        low, high = np.percentile(giant, SPREAD, axis=0)
        reach = np.searchsorted(np.sort(series.reach), edges, side="right") / max(len(series.reach), 1)
        return pl.DataFrame(
            {
                "series": [series.name] * len(edges),
                "edges": edges,
                "share": edges / self.n_edges,
                "giant": giant.mean(axis=0),
                "giant_spread_low": low,
                "giant_spread_high": high,
                "susceptibility": np.mean([curve.susceptibility[i] for curve, i in pairs], axis=0),
                "components": np.mean([curve.components[i] for curve, i in pairs], axis=0, dtype=np.float64),
                "reach": reach,
            }
        )

    def summary(self) -> pl.DataFrame:
        """Return one row per series."""
        return pl.DataFrame([each.to_dict(self.n_edges) for each in self.series], infer_schema_length=None)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {
            "graph": self.graph,
            "order": self.order,
            "seed": self.options.seed,
            **self.options.to_dict(),
            "n_units": self.n_units,
            "n_edges": self.n_edges,
            "n_given": self.n_given,
            "has_ties": self.has_ties,
            "n_without_key": self.n_without_key,
            "degree_threshold": self.degree_threshold,
            "layered_threshold": self.layered_threshold,
            "thresholds": [each.to_dict(self.n_edges) for each in self.series],
            "comparisons": self.comparisons(),
            "layers": self.layers.to_dicts(),
            "curve": self.curve().to_dicts(),
        }
