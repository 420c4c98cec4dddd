"""What the graph alone says about each level of a sweep; definitions in docs/pruning.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, Cells, EdgeTable, Levels, Side
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.pruning.analysis import COST_COLUMNS, REMEASURED, RUN_COLUMNS
from emergraph.analysis.pruning.components import REACH_KINDS, giant_shares
from emergraph.analysis.pruning.emergencelevels import EmergenceLevels
from emergraph.analysis.pruning.flow import log_totals
from emergraph.analysis.pruning.levelsums import POWERS, path_products
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.pruning.removal import Removal, histogram, unremoved
from emergraph.analysis.unitgraph import ROLES
from emergraph.graphstore.inplace import Piece
from emergraph.graphstore.records import EdgeKind, LayerKind, Role

Counts = NDArray[np.int64]

# Which edges and units lie on a path from an input to an output, at every level of a nested removal.


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

    def piece(self, block: BlockTable, gone: Levels, piece: Piece) -> Levels:
        """The same of a piece of the block's matrix."""
        ends = self.forward[block.rows[piece[0]]], self.backward[block.columns[piece[1]]]
        found: Levels = np.minimum(np.minimum(gone, ends[0][:, None]), ends[1])
        return found


Gone = Callable[[BlockTable, Piece | None], Levels]
"""Gives the levels at which edges are gone, see `Removal.of`."""


def reach(table: EdgeTable, gone: Gone, *, n_levels: int, gone_units: Levels | None = None) -> Reach:
    """Forward and backward reach of all units at all levels.

    Paths start at input units and embeddings and end at output units, and run over all kinds of edges but
    `norm`. Without recurrent edges two passes over the edges, with them as many as it takes to settle.

    Args:
        table: The edges.
        gone: First level index at which an edge is gone; n_levels for never.
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


def _settle(table: EdgeTable, gone: Gone, cap: Levels, values: Levels, to: Side) -> Levels:
    blocks = table.blocks if to == "dst" else table.blocks[::-1]
    cyclic = any(block.block.kind is EdgeKind.RECURRENT for block in blocks)
    while True:
        changed = False
        for block in blocks:
            units = block.units(to)
            wide = np.minimum(block.widest(partial(gone, block), values, to), cap[units])
            if cyclic and not changed:
                changed = bool((wide > values[units]).any())
            values[units] = np.maximum(values[units], wide)
        if not cyclic or not changed:
            return values


def reach_of(removal: Removal) -> Reach:
    """Forward and backward reach at every level of a sweep."""
    return reach(removal.items.table, removal.of, n_levels=removal.n_levels, gone_units=removal.units)


def whole_levels(removal: Removal) -> int:
    """Count the levels, from the first one on, at which an input reaches every output."""
    graph = removal.items.table.graph
    reached = reach_of(removal)
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
    """Prunable parameters, or edges where units are removed, counted by the level at which they are gone."""

    n_levels: int
    gone: Mapping[int, Counts]
    """By block id, (n_levels + 1,) parameters that are gone from each level on."""
    effective: Mapping[int, Counts]
    """The same, counting what lies on no input-output path as gone."""

    def left(self, counts: Mapping[int, Counts]) -> Counts:
        """(n_levels,) parameters of all blocks that are left at each level."""
        return _still(sum(counts.values(), np.zeros(self.n_levels + 1, np.int64)))

    @property
    def total(self) -> int:
        """All parameters."""
        return int(sum(int(counts.sum()) for counts in self.gone.values()))


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
    reached = reach_of(removal)
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
    caps = _caps_of_shared(removal, reached)
    gone, effective = {}, {}
    for block in items.blocks:
        number = block.block.id
        if block.cells is None or number in caps or block.n_params is not None:
            gone[number], effective[number] = _listed_atoms(removal, block, reached, caps.get(number))
        else:
            gone[number], effective[number] = _matrix_atoms(removal, block, block.cells, reached)
    return _Atoms(removal.n_levels, gone, effective)


def _caps_of_shared(removal: Removal, reached: Reach) -> dict[int, Levels]:
    """By id of a block whose tensor has further uses, (n_edges,) levels up to which one is on a path."""
    caps: dict[int, Levels] = {}
    for number, (leader, order) in removal.items.copies.items():
        own = removal.items.table.by_id[number]
        cap = caps.get(leader.block.id)
        if cap is None:
            cap = caps[leader.block.id] = reached.edges(leader, np.full(leader.n_edges, 255, np.uint8))
        np.maximum.at(cap, order, reached.edges(own, np.full(own.n_edges, 255, np.uint8)))
    return caps


def _listed_atoms(
    removal: Removal, block: BlockTable, reached: Reach, cap: Levels | None
) -> tuple[Counts, Counts]:
    n = removal.n_levels
    cap = reached.edges(block, np.full(block.n_edges, 255, np.uint8)) if cap is None else cap
    taps = removal.items.taps.get(block.block.id)
    if taps is None:
        gone = removal.edges_of(block)
        weights = block.parameters
        return _counted(gone, n, weights), _counted(np.minimum(gone, cap), n, weights)
    held = removal.taps[block.block.id]
    found = [histogram(levels, n) for levels in (held, np.minimum(held, cap[:, None]))]
    for counts in found:
        counts[0] -= held.size - taps.n
    return found[0], found[1]


def _matrix_atoms(removal: Removal, block: BlockTable, cells: Cells, reached: Reach) -> tuple[Counts, Counts]:
    n = removal.n_levels

    def count(run: list[Piece]) -> Counts:
        found = np.zeros((2, n + 1), np.int64)
        for piece in run:
            gone = removal.of(block, piece)
            found[0] += histogram(gone, n)
            found[1] += histogram(reached.piece(block, gone, piece), n)
        return found

    counts = np.sum([*block.passed(count)], axis=0)
    counts[:, 0] -= cells.shape[0] * cells.shape[1] - block.n_edges
    return counts[0], counts[1]


def _counted(levels: Levels, n: int, weights: Counts) -> Counts:
    """(n + 1,) sums of weights by level."""
    if weights.strides == (0,):  # one each
        return histogram(levels, n)
    return np.rint(np.bincount(levels, weights=weights, minlength=n + 1)).astype(np.int64)


def _still(counts: Counts) -> Counts:
    """(n_levels,) what is still there at each level, of (n_levels + 1,) what goes from each on."""
    return np.asarray(counts[::-1].cumsum()[::-1][1:], dtype=np.int64)


def _left(levels: Levels, n: int, weights: Counts | None = None) -> Counts:
    """(n,) sum over entries that are still there at each level."""
    return _still(histogram(levels, n) if weights is None else _counted(levels, n, weights))


def _sparsity(removal: Removal, atoms: _Atoms, costs: ParameterCosts) -> dict[str, object]:
    n, items, graph = removal.n_levels, removal.items, removal.items.table.graph
    kept, effective = atoms.left(atoms.gone), atoms.left(atoms.effective)
    removed = atoms.total - kept
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
            kept += _still(removal.edge_counts(block))
    return kept


def _bytes(removal: Removal, atoms: _Atoms, costs: ParameterCosts) -> object:
    if costs.bytes_total is None:
        return pl.Series([None] * removal.n_levels, dtype=pl.Float64)
    left = np.zeros(removal.n_levels)
    everything = 0.0
    for block in removal.items.blocks:
        each = costs.bytes_of_tensor.get(block.block.tensor or "", 0.0)
        counts = atoms.gone[block.block.id]
        left += each * _still(counts)
        everything += each * float(counts.sum())
    return costs.bytes_total - (everything - left)


def _structure(removal: Removal, atoms: _Atoms, reached: Reach) -> dict[str, object]:
    graph, n = removal.items.table.graph, removal.n_levels
    layers = np.unique([block.target for block in removal.items.blocks])
    whole, effective = np.zeros(len(graph.layers), np.uint8), np.zeros(len(graph.layers), np.uint8)
    for block in removal.items.blocks:
        for found, counts in ((whole, atoms.gone), (effective, atoms.effective)):
            found[block.target] = max(found[block.target], _highest(counts[block.block.id]))
    outputs = graph.role == ROLES.index(Role.OUTPUT)
    base = reach(removal.items.table, partial(unremoved, level=1), n_levels=1).units.astype(bool)
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
        "disconnected": atoms.left(atoms.effective) == 0,
        "bottleneck_width": widths[narrowest, steps],
        "bottleneck_layer": [graph.layers[int(layers[i])].name for i in narrowest],
        "dead_units": int(hidden.sum()) - _left(live[hidden], n),
        "new_dead_units": int((hidden & base).sum()) - _left(live[hidden & base], n),
    }


def _highest(counts: Counts) -> int:
    """The last level at which something goes, or that of what stays."""
    return int(np.flatnonzero(counts).max(initial=0))


def _coupled(removal: Removal) -> Counts:
    if removal.items.unit is not PruningUnit.UNIT:
        return np.zeros(removal.n_levels, dtype=np.int64)
    until = coupled_until(removal.items.table, removal.units)
    return np.array(
        [int(((removal.units <= level) & (until > level)).sum()) for level in range(removal.n_levels)]
    )


def _norms(removal: Removal) -> dict[str, object]:
    """Path norms; that of power 1 is SynFlow's R."""
    products = partial(path_products, removal)
    totals = log_totals(removal.items.table, products, len(POWERS) * removal.n_levels)
    names = ("log10_path_norm_l1", "log10_path_norm_l2")
    parts = zip(POWERS, names, np.split(totals, len(POWERS)), strict=True)
    return {
        name: pl.Series([finite_or_none(float(total) / power) for total in part], dtype=pl.Float64)
        for power, name, part in parts
    }


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
