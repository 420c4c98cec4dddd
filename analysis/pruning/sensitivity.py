"""Each layer pruned alone, at every level: which layers a model can least do without.

Without runs of the model the measure is the share of path flow that goes with the removed items,
`flow_lost = sum over removed items of |w dR/d|w|| / R`, R the sum over input-output paths of products of
absolute weights (arXiv 2006.05467, eq. 3). Paths cross a layer once, so for one layer this is exactly
`1 - R(pruned) / R`. With runs it is what the outputs say: accuracy, KL divergence or relative error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import Floats, Levels
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.pruning.criteria import scores, synflow_scores
from emergraph.analysis.pruning.flow import backward_flow, forward_flow
from emergraph.analysis.pruning.items import Items
from emergraph.analysis.pruning.options import Criterion, PruningOptions, PruningUnit
from emergraph.analysis.pruning.removal import Removal, nested_removal
from emergraph.analysis.pruning.selection import removal_levels
from emergraph.analysis.unitgraph import ROLES
from emergraph.errors import UsageError
from emergraph.graphstore.records import PATH_KINDS, Role

N_FRAGILE = 3
MEASURES = ("accuracy_lost", "divergence_kl", "relative_mse", "flow_lost")
"""What the heat map shows: the first one that is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SensitivityResult(ShownInNotebooks):
    """A row per layer and level; all other layers are whole."""

    graph: str
    options: PruningOptions
    frame: pl.DataFrame
    """layer, position, level, items, removed_items, flow_lost, and the columns of model runs."""
    measure: str
    """The column that the heat map shows: one of `MEASURES`."""
    notes: tuple[str, ...]

    @property
    def heat_map(self) -> pl.DataFrame:
        """One row per layer in order, one column per level."""
        wide = self.frame.pivot("level", index=["position", "layer", "items"], values=self.measure)
        names = {str(level): f"{level:.0%}" for level in self.frame["level"].unique().to_list()}
        return wide.sort("position").drop("position").rename(names)

    @property
    def fragile(self) -> list[str]:
        """Names of the most fragile layers, the most fragile first: by the measure's mean over levels."""
        mean = self.frame.group_by("layer", maintain_order=True).agg(pl.col(self.measure).mean())
        ranked = mean.drop_nulls().sort(self.measure, descending=True, maintain_order=True)
        return [str(name) for name in ranked["layer"].head(N_FRAGILE)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "graph": self.graph,
            "options": self.options.to_dict(),
            "measure": self.measure,
            "fragile": self.fragile,
            "layers": self.frame.drop("position").to_dicts(),
            "notes": list(self.notes),
        }


def check_sensitivity(options: PruningOptions) -> None:
    """Refuse criteria that do not rank the items of a layer.

    Raises:
        UsageError: The criterion is one of them.
    """
    if options.kind in (Criterion.NM, Criterion.WHERE, Criterion.SYNFLOW_ITERATIVE):
        raise UsageError(
            f"the sensitivity of layers needs a criterion that ranks what is in a layer, not {options.kind}: "
            "choose magnitude, random, l2, activation, wanda or synflow"
        )


@dataclass(frozen=True, eq=False)
class LayerSweep:
    """The sweep of one layer."""

    position: int
    name: str
    removal: Removal
    flow_lost: Floats
    """(n_levels,)."""


def layer_sweeps(
    items: Items,
    options: PruningOptions,
    *,
    scored: NDArray[np.floating] | None = None,
) -> list[LayerSweep]:
    """A sweep for every layer with something to prune.

    Args:
        items: What can be removed.
        options: Criterion and levels. Scopes `block` and `unit` are kept, wider ones become the layer.
        scored: (n_items,) scores; None: those of the criterion.
    """
    check_sensitivity(options)
    if scored is None:
        scored = scores(options.kind, items)
    scope = options.pruning_scope if options.pruning_scope in ("block", "unit") else "layer"
    gone = removal_levels(scored, items.group[scope], options.levels)
    share = flow_shares(items)
    layer = items.group["layer"]
    found = []
    for position in np.unique(layer).tolist():
        mine = layer == position
        alone: Levels = np.where(mine, gone, len(options.levels)).astype(np.uint8)
        lost = np.bincount(alone, weights=share, minlength=len(options.levels) + 1)[: len(options.levels)]
        found.append(
            LayerSweep(
                position,
                items.table.graph.layers[position].name,
                nested_removal(items, alone, options.levels),
                np.cumsum(lost),
            )
        )
    return found


def flow_shares(items: Items) -> Floats:
    """(n_items,) share of the flow R through each item; the items of a layer add up to at most 1.

    Recurrent weights carry no paths and have 0. A tensor that several operations use counts for all of them.
    """
    table = items.table
    flow = forward_flow(table, lambda block: block.l1)
    outputs = table.graph.role == ROLES.index(Role.OUTPUT)
    with np.errstate(divide="ignore"):
        logs = flow.log_scale[table.graph.unit_layer[outputs]]
    top = logs.max(initial=-np.inf)
    if not np.isfinite(top):
        return np.zeros(items.n)
    total = float((flow.value[outputs] * np.exp(logs - top)).sum())
    if items.unit is PruningUnit.UNIT:
        back = backward_flow(table, lambda block: block.l1, flow)
        return np.asarray(flow.value[items.edge] * back[items.edge] / total)
    share = synflow_scores(items, None) / total
    start = 0
    for block in items.blocks:
        taps = items.taps.get(block.block.id)
        stop = start + (len(block.src) if taps is None else len(taps.edge))
        if block.block.kind not in PATH_KINDS:
            share[start:stop] = 0.0
        start = stop
    return share


def sensitivity_frame(
    sweeps: Sequence[LayerSweep], ran: Sequence[pl.DataFrame] | None = None
) -> pl.DataFrame:
    """The rows of all sweeps, with the columns of model runs where there are any."""
    frames = []
    for number, sweep in enumerate(sweeps):
        removal = sweep.removal
        here = removal.items.group["layer"] == sweep.position
        frame = pl.DataFrame(
            {
                "layer": [sweep.name] * removal.n_levels,
                "position": [sweep.position] * removal.n_levels,
                "level": list(removal.levels),
                "items": [int(here.sum())] * removal.n_levels,
                "removed_items": removal.removed(),
                "flow_lost": sweep.flow_lost,
            }
        )
        if ran is not None:
            more = ran[number].with_columns(accuracy_lost=pl.col("base_accuracy") - pl.col("accuracy"))
            frame = frame.with_columns(more.get_columns())
        frames.append(frame)
    return pl.concat(frames)


def shown_measure(frame: pl.DataFrame) -> str:
    """The most telling measure that is known."""
    known = (name for name in MEASURES if name in frame.columns and frame[name].null_count() < frame.height)
    return next(known)
