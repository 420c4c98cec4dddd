"""What knock-outs found, as values: the influence of units, and circuits."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from emergraph.analysis.influence.options import Method
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.statistics.estimate import Estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitEdges:
    """Which of the edges among a circuit, the inputs and the outputs go on."""

    n_candidates: int
    """Edges that could be ablated."""
    kept: Estimate
    """Share of the behaviour with the circuit and these edges alone."""
    without: Estimate
    """Share with everything but these edges."""
    minimal: bool | None
    """Whether leaving out any of them falls below the share; None where they are too many to try."""
    frame: pl.DataFrame
    """src, dst, without: the edges that go on, and the share that is kept without each."""
    left_out: pl.DataFrame
    """src, dst: candidates that do not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitResult(ShownInNotebooks):
    """A set of units from which no single one can be left out, and what it keeps."""

    graph: str
    output: str
    measure: str
    """target, or the divergence that is kept small."""
    baseline: str
    share: float
    n_samples: int
    n_candidates: int
    kept: Estimate
    """Share of the behaviour with the circuit alone. Its ends are a spread: the samples chose the circuit."""
    without: Estimate
    """Share of the behaviour with everything but the circuit."""
    minimal: bool
    """Whether each unit was tried, and leaving it out falls below the share."""
    units: pl.DataFrame
    """layer, unit, rank, effect, without: the share that is kept when this unit is left out, too."""
    candidates: pl.DataFrame
    """layer, unit, effect: of every candidate, what knocking out it alone does."""
    edges: pl.DataFrame
    """src, dst, kind, weight, without: edges that go on among the circuit, the inputs and the outputs."""
    searched: CircuitEdges | None
    """How they were found; None where all go on: none were left out, or the circuit falls short."""
    curve: pl.DataFrame
    """ranking, size, kept, spread_low, spread_high."""
    areas: dict[str, float]
    """By ranking: mean kept share over the logarithm of sizes."""
    n_runs: int
    layer_names: dict[int, str]
    first_units: dict[int, int]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        names = ("graph", "output", "measure", "baseline", "share", "n_samples", "n_candidates", "minimal")
        plain: dict[str, object] = {name: getattr(self, name) for name in (*names, "areas", "n_runs")}
        low, high = _ends(self.kept)
        plain |= {"kept": self.kept.mean, "spread_low": low, "spread_high": high}
        plain["without"] = self.without.mean
        plain |= {"units": self.units.to_dicts(), "curve": self.curve.to_dicts()}
        plain["edges"] = self.edges.to_dicts()
        if self.searched is not None:
            plain |= {"edge_candidates": self.searched.n_candidates, "edges_minimal": self.searched.minimal}
            plain["kept_by_edges"] = self.searched.kept.mean
            plain["without_edges"] = self.searched.without.mean
        return plain


def _ends(found: Estimate) -> tuple[float | None, float | None]:
    low, high = found.low, found.high
    return (low if np.isfinite(low) else None, high if np.isfinite(high) else None)


@dataclass(frozen=True, kw_only=True, eq=False)
class InfluenceResult(ShownInNotebooks):
    """What knock-outs did to one output."""

    frame: pl.DataFrame
    """As in the table `unit_influence`."""
    graph: str
    output: str
    measure: str
    baseline: str
    n_samples: int
    runs: dict[str, str]
    """By layer: how knock-outs were put into runs."""
    left_out: dict[str, str]
    """Layers that cannot be knocked out, and why."""
    layer_names: dict[int, str]
    first_units: dict[int, int]
    method: Method = Method.KNOCKOUT
    converter: str | None = None
    """Package that wrote the model for torch; None without gradients."""
    gap: float | None = None
    """Of integrated gradients: how far a layer's units are from adding up to what knocking it out changes,
    in the worst sample, over the output's largest value."""
    attributions: pl.DataFrame | None = None
    """As in the table `unit_attributions`."""
    agreement: pl.DataFrame | None = None
    """As in the table `attribution_agreement`."""

    @property
    def structure_only(self) -> pl.DataFrame:
        """Units that no knock-out showed to move the output, with the number of samples tried."""
        rows = (pl.col("what") == "unit") & ~pl.col("moved") & (pl.col("n") > 0)
        return self.frame.filter(rows).select("layer", "unit", "n")

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        plain: dict[str, object] = {
            name: getattr(self, name)
            for name in ("graph", "output", "measure", "baseline", "n_samples", "runs", "left_out")
        }
        plain["structure_only"] = self.structure_only["unit"].to_list()
        plain["knockouts"] = self.frame.to_dicts()
        plain["method"] = self.method.value
        if self.attributions is not None and self.agreement is not None:
            plain |= {"converter": self.converter, "gap": self.gap}
            plain["agreement"] = self.agreement.to_dicts()
            plain["attributions"] = self.attributions.to_dicts()
        return plain
