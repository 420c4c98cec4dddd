"""What the graph alone says about each level of a sweep; definitions in docs/pruning.md."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, EdgeTable, Floats, Levels, Side
from emergraph.analysis.edgesets.forest import spanning_forest
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.pruning.analysis import COST_COLUMNS, REMEASURED, RUN_COLUMNS
from emergraph.analysis.pruning.emergencelevels import EmergenceLevels
from emergraph.analysis.pruning.flow import forward_flow
from emergraph.analysis.pruning.items import Items
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.pruning.removal import Removal
from emergraph.analysis.unitgraph import ROLES
from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind, Role

Counts = NDArray[np.int64]

# Which edges and units lie on a path from an input to an output, at every level of a nested removal.

REACH_KINDS = (*PATH_KINDS, EdgeKind.RECURRENT, EdgeKind.OPAQUE)
"""Kinds that carry influence from unit to unit; `norm` would keep every unit of a group alive."""


@dataclass(frozen=True, eq=False)
class Reach:
    """Levels up to which units are on paths; at level index l a unit is on one where its entry is above l."""

    forward: Levels
    """(n_units,) reached from an input."""
    backward: Levels
    """(n_units,) reaches an output."""

    @property
    def units(self) -> Levels:
        """(n_units,) on an input-output path."""
        return np.minimum(self.forward, self.backward)

    def edges(self, block: BlockTable, gone: Levels) -> Levels:
        """(n_edges,) levels below which the block's edges lie on an input-output path."""
        return np.minimum(np.minimum(self.forward[block.src], gone), self.backward[block.dst])


def reach(table: EdgeTable, gone: Levels, *, n_levels: int, gone_units: Levels | None = None) -> Reach:
    """Forward and backward reach of all units at all levels.

    Paths start at input units and embeddings and end at output units, and run over all kinds of edges but
    `norm`. Without recurrent edges two passes over the edges, with them as many as it takes to settle.

    Args:
        table: The edges.
        gone: (n_edges,) first level index at which an edge is gone; n_levels for never.
        n_levels: Number of levels, at most 254.
        gone_units: (n_units,) the same for units; None: none is removed.
    """
    graph = table.graph
    cap = np.full(graph.n_units, n_levels, dtype=np.uint8) if gone_units is None else gone_units
    followed = table.of_kinds(REACH_KINDS)
    embedding = np.array([layer.kind == LayerKind.EMBEDDING for layer in graph.layers], dtype=bool)
    starts = (graph.role == ROLES.index(Role.INPUT)) | embedding[graph.unit_layer]
    ends = graph.role == ROLES.index(Role.OUTPUT)
    return Reach(
        forward=_settle(followed, gone, cap, np.where(starts, cap, 0).astype(np.uint8), "dst"),
        backward=_settle(followed, gone, cap, np.where(ends, cap, 0).astype(np.uint8), "src"),
    )


def _settle(table: EdgeTable, gone: Levels, cap: Levels, values: Levels, to: Side) -> Levels:
    blocks = table.blocks if to == "dst" else table.blocks[::-1]
    cyclic = any(block.block.kind is EdgeKind.RECURRENT for block in blocks)
    while True:
        changed = False
        for block in blocks:
            units = block.units(to)
            wide = np.minimum(block.widest(gone[block.edges], values, to), cap[units])
            if cyclic and not changed:
                changed = bool((wide > values[units]).any())
            values[units] = np.maximum(values[units], wide)
        if not cyclic or not changed:
            return values


def whole_levels(removal: Removal) -> int:
    """Count the levels, from the first one on, at which an input reaches every output."""
    graph = removal.items.table.graph
    reached = reach(removal.items.table, removal.edges, n_levels=removal.n_levels, gone_units=removal.units)
    outputs = reached.forward[graph.role == ROLES.index(Role.OUTPUT)]
    return int(outputs.min(initial=removal.n_levels))


# Which removed units other layers still need: the other end of a residual sum keeps the channel alive.


def coupled_until(table: EdgeTable, units: Levels) -> Levels:
    """Level index below which a removed unit's channel is still needed by a sum with units that stay.

    A residual sum has one channel for all units that it adds: the channel can be cut out only when all of
    them are removed, and those of the sums that follow it. Until then a removed unit's channel is zero.

    Args:
        table: The edges.
        units: (n_units,) first level index at which each unit is gone.

    Returns:
        (n_units,); a unit is removed but coupled at levels l with `units <= l < coupled_until`.
    """
    graph = table.graph
    joins = np.array([layer.kind == LayerKind.JUNCTION for layer in graph.layers], dtype=bool)[
        graph.unit_layer
    ]
    blocks = [block for block in table.of_kinds((EdgeKind.IDENTITY,)).blocks if joins[block.dst].any()]
    alive = np.where(joins, 0, units).astype(np.uint8)
    for block in blocks:
        np.maximum.at(alive, block.dst[joins[block.dst]], alive[block.src][joins[block.dst]])
    needed = np.where(joins, alive, 0).astype(np.uint8)
    for block in reversed(blocks):
        _pull(block, joins, needed)
    return needed


def _pull(block: BlockTable, joins: np.ndarray, needed: Levels) -> None:
    into = joins[block.dst]
    np.maximum.at(needed, block.src[into], needed[block.dst[into]])


# The largest connected piece of the graph at every level of a sweep.


def giant_shares(removal: Removal) -> Floats:
    """Share of units in the largest weakly connected component, at every level.

    Edges of the kinds that reachability follows, without direction. From the highest level down, each level
    adds its edges between the components of the level before, so every edge is looked at once. Removed units
    count as units, each alone.

    Returns:
        (n_levels,) in (0, 1].
    """
    table = removal.items.table
    n_units = table.graph.n_units
    blocks = table.of_kinds(REACH_KINDS).blocks
    labels = np.arange(n_units)
    sizes = np.ones(n_units, dtype=np.int64)
    shares = np.empty(removal.n_levels)
    stop = removal.n_levels
    for level in reversed(range(removal.n_levels)):
        ends = [_added(removal, block, level, stop, labels) for block in blocks if len(sizes) > 1]
        stop = level
        a, b = (np.concatenate([np.empty(0, np.int64), *(pair[side] for pair in ends)]) for side in (0, 1))
        if len(a):
            _, merged, n_parts = spanning_forest(a, b, len(sizes))
            sizes = np.bincount(merged, weights=sizes, minlength=n_parts).astype(np.int64)
            labels = merged[labels]
        shares[level] = sizes.max() / n_units
    return shares


def _added(
    removal: Removal, block: BlockTable, level: int, stop: int, labels: Counts
) -> tuple[Counts, Counts]:
    """Ends of a block's edges that are there at a level, not from `stop` on, and lie in two components."""
    gone = removal.edges[block.edges]
    here = np.flatnonzero((gone > level) & (gone <= stop))
    a, b = labels[block.src[here]], labels[block.dst[here]]
    apart = a != b
    return a[apart], b[apart]


@dataclass(frozen=True, kw_only=True, eq=False)
class ParameterCosts:
    """What is known about parameters beside the edges."""

    n_per_unit: Counts | None = None
    """(n_units,) bias, scale and shift of each unit, counted where they are known."""
    bytes_total: float | None = None
    """Bytes of all parameter tensors."""
    bytes_of_tensor: Mapping[str, float] = field(default_factory=dict)
    """Bytes per parameter by tensor."""


@dataclass(frozen=True, eq=False)
class _Atoms:
    """Prunable parameters, or edges where units are removed."""

    gone: Levels
    effective: Levels
    parameters: Counts
    starts: Counts
    """(n_blocks + 1,) first of each prunable block."""

    def by_block(self, items: Items) -> Iterator[tuple[BlockTable, slice]]:
        """Where the parameters of each prunable block are."""
        spans = zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True)
        return zip(items.blocks, (slice(*span) for span in spans), strict=True)


def measure(
    removal: Removal, *, costs: ParameterCosts | None = None, emergence: EmergenceLevels | None = None
) -> pl.DataFrame:
    """One row per level.

    Args:
        removal: The masks.
        costs: Bytes, biases and scales.
        emergence: E at every level; None leaves its columns empty.
    """
    costs = costs or ParameterCosts()
    reached = reach(removal.items.table, removal.edges, n_levels=removal.n_levels, gone_units=removal.units)
    atoms = _atoms(removal, reached)
    columns: dict[str, object] = {
        "level": list(removal.levels),
        "seed": [removal.seed] * removal.n_levels,
        "items": [removal.items.n] * removal.n_levels,
        "removed_items": removal.removed(),
    }
    columns |= _sparsity(removal, atoms, costs)
    columns |= _structure(removal, atoms, reached)
    columns["coupled_units"] = _coupled(removal)
    columns["giant_share"] = giant_shares(removal)
    columns |= _norms(removal)
    columns |= _emergence(removal, emergence, np.asarray(columns["kept_parameters"]))
    for name in (*RUN_COLUMNS, *REMEASURED, *COST_COLUMNS):
        columns[name] = pl.Series([None] * removal.n_levels, dtype=pl.Float64)
    return pl.DataFrame(columns, schema_overrides={"seed": pl.Int64})


def _atoms(removal: Removal, reached: Reach) -> _Atoms:
    items = removal.items
    cap = np.zeros(items.table.n_edges, dtype=np.uint8)
    for block in items.table.blocks:
        cap[block.edges] = reached.edges(block, np.full(len(block.weight), 255, dtype=np.uint8))
    for number, (leader, order) in items.copies.items():
        own = next(b for b in items.table.blocks if b.block.id == number)
        np.maximum.at(cap, order + leader.first, cap[own.edges])
    if items.unit is not PruningUnit.UNIT:
        gone, count, edge = removal.gone, items.parameters, items.edge
        taps = items.taps
        sizes = [len(taps[b.block.id].edge) if b.block.id in taps else len(b.weight) for b in items.blocks]
    else:
        edge = np.concatenate([np.arange(b.edges.start, b.edges.stop, dtype=np.int32) for b in items.blocks])
        gone = removal.edges[edge]
        count = np.concatenate([block.parameters for block in items.blocks])
        sizes = [len(block.weight) for block in items.blocks]
    return _Atoms(gone, np.minimum(gone, cap[edge]), count, np.cumsum([0, *sizes]))


def _left(levels: Levels, n: int, weights: NDArray[np.generic] | None = None) -> Counts:
    """(n,) sum over entries that are still there at each level."""
    total = np.zeros(n + 1)
    for first in range(0, len(levels), _PIECE):
        part = slice(first, first + _PIECE)
        own = None if weights is None else weights[part]
        total += np.bincount(levels[part], weights=own, minlength=n + 1)
    kept = total[::-1].cumsum()[::-1][1 : n + 1]
    return np.asarray(np.rint(kept), dtype=np.int64)


_PIECE = 1 << 22
"""Entries that are counted together."""


def _sparsity(removal: Removal, atoms: _Atoms, costs: ParameterCosts) -> dict[str, object]:
    n, items, graph = removal.n_levels, removal.items, removal.items.table.graph
    kept = _left(atoms.gone, n, atoms.parameters)
    effective = _left(atoms.effective, n, atoms.parameters)
    removed = int(atoms.parameters.sum()) - kept
    if items.unit is PruningUnit.UNIT and costs.n_per_unit is not None:
        removed = removed + int(costs.n_per_unit.sum()) - _left(removal.units, n, costs.n_per_unit)
    remaining = graph.n_nonzero - removed
    size = max(items.n_params, 1)
    with np.errstate(divide="ignore"):
        return {
            "kept_parameters": remaining,
            "density": remaining / max(graph.n_params, 1),
            "kept_edges": _kept_edges(removal),
            "sparsity": 1 - kept / size,
            "compression": np.where(kept > 0, size / np.maximum(kept, 1), np.inf),
            "effective_sparsity": 1 - effective / size,
            "effective_compression": np.where(effective > 0, size / np.maximum(effective, 1), np.inf),
            "bytes_if_removed": _bytes(removal, atoms, costs),
        }


def _kept_edges(removal: Removal) -> Counts:
    items = removal.items
    prunable = {block.block.id for block in items.blocks} | set(items.copies)
    kept = np.zeros(removal.n_levels, dtype=np.int64)
    for block in items.table.blocks:
        if block.block.id in prunable:
            kept += _left(removal.edges[block.edges], removal.n_levels)
    return kept


def _bytes(removal: Removal, atoms: _Atoms, costs: ParameterCosts) -> object:
    if costs.bytes_total is None:
        return pl.Series([None] * removal.n_levels, dtype=pl.Float64)
    left = np.zeros(removal.n_levels)
    everything = 0.0
    for block, span in atoms.by_block(removal.items):
        each = costs.bytes_of_tensor.get(block.block.tensor or "", 0.0)
        left += each * _left(atoms.gone[span], removal.n_levels, atoms.parameters[span])
        everything += each * float(atoms.parameters[span].sum())
    return costs.bytes_total - (everything - left)


def _structure(removal: Removal, atoms: _Atoms, reached: Reach) -> dict[str, object]:
    graph, n = removal.items.table.graph, removal.n_levels
    spans = atoms.by_block(removal.items)
    layers = np.unique([block.target for block, span in spans if span.stop > span.start])
    whole, effective = np.zeros(len(graph.layers), np.uint8), np.zeros(len(graph.layers), np.uint8)
    for block, span in atoms.by_block(removal.items):
        whole[block.target] = max(whole[block.target], atoms.gone[span].max(initial=0))
        effective[block.target] = max(effective[block.target], atoms.effective[span].max(initial=0))
    outputs = graph.role == ROLES.index(Role.OUTPUT)
    base = reach(
        removal.items.table, np.ones(removal.items.table.n_edges, dtype=np.uint8), n_levels=1
    ).units.astype(bool)
    hidden = graph.neuron & (graph.role == ROLES.index(Role.HIDDEN))
    live = reached.units
    steps = np.arange(n)
    widths = np.stack([_left(live[graph.layers[p].units], n) for p in layers])
    narrowest = widths.argmin(axis=0)
    alive_outputs = _left(reached.forward[outputs], n)
    return {
        "collapsed_layers": [int((whole[layers] <= level).sum()) for level in steps],
        "effectively_collapsed_layers": [int((effective[layers] <= level).sum()) for level in steps],
        "disconnected_outputs": int(outputs.sum()) - alive_outputs,
        "disconnected": _left(atoms.effective, n) == 0,
        "bottleneck_width": widths[narrowest, steps],
        "bottleneck_layer": [graph.layers[int(layers[i])].name for i in narrowest],
        "dead_units": int(hidden.sum()) - _left(live[hidden], n),
        "new_dead_units": int((hidden & base).sum()) - _left(live[hidden & base], n),
    }


def _coupled(removal: Removal) -> Counts:
    if removal.items.unit is not PruningUnit.UNIT:
        return np.zeros(removal.n_levels, dtype=np.int64)
    until = coupled_until(removal.items.table, removal.units)
    return np.array(
        [int(((removal.units <= level) & (until > level)).sum()) for level in range(removal.n_levels)]
    )


def _norms(removal: Removal) -> dict[str, object]:
    """Path norms; that of power 1 is SynFlow's R."""
    table = removal.items.table
    found: dict[str, list[float | None]] = {"log10_path_norm_l1": [], "log10_path_norm_l2": []}
    for level in range(removal.n_levels):
        for power, name in ((1, "log10_path_norm_l1"), (2, "log10_path_norm_l2")):
            flow = forward_flow(table, partial(removal.strength, level=level, power=power))
            total = flow.log10_total / power
            found[name].append(finite_or_none(total))
    return {name: pl.Series(values, dtype=pl.Float64) for name, values in found.items()}


def _emergence(removal: Removal, emergence: EmergenceLevels | None, kept: Counts) -> dict[str, object]:
    columns: dict[str, object] = {}
    graph = removal.items.table.graph
    for at, interior in enumerate(("active", "any")):
        if emergence is None:
            logs = edge_form = np.full(removal.n_levels, np.nan)
        else:
            logs, edge_form = emergence.log10[at], emergence.edge_form_log10[at]
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            columns |= {
                f"emergence_{interior}": _known(10.0**logs),
                f"log10_emergence_{interior}": _known(np.where(np.isfinite(logs), logs, np.nan)),
                f"per_param_{interior}": _known(10.0 ** (logs - np.log10(kept))),
                f"per_dense_param_{interior}": _known(10.0 ** (logs - np.log10(max(graph.n_params, 1)))),
                f"per_density_{interior}": _known(10.0 ** (logs - np.log10(kept / max(graph.n_params, 1)))),
                f"edge_form_{interior}": _known(10.0**edge_form),
            }
    return columns


def _known(values: NDArray[np.float64]) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64).fill_nan(None)
