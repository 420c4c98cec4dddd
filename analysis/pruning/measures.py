"""What the graph alone says about each level of a sweep; definitions in docs/pruning.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import Levels
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.pruning.analysis import COST_COLUMNS, REMEASURED, RUN_COLUMNS
from emergraph.analysis.pruning.components import giant_shares
from emergraph.analysis.pruning.coupling import coupled_until
from emergraph.analysis.pruning.emergencelevels import EmergenceLevels
from emergraph.analysis.pruning.flow import forward_flow
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.pruning.reach import Reach, reach
from emergraph.analysis.pruning.removal import Removal
from emergraph.analysis.unitgraph import ROLES
from emergraph.graphstore.records import Role

Counts = NDArray[np.int64]


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

    edge: Counts
    gone: Levels
    effective: Levels
    parameters: Counts
    layer: Counts


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
    full = np.full(items.table.n_edges, 255, dtype=np.uint8)
    for block in items.table.blocks:
        cap[block.edges] = reached.edges(block, full[block.edges])
    for number, (leader, order) in items.copies.items():
        own = next(b for b in items.table.blocks if b.block.id == number)
        np.maximum.at(cap, order + leader.first, cap[own.edges])
    if items.unit is not PruningUnit.UNIT:
        edge, gone, count, layer = items.edge, removal.gone, items.parameters, items.group["layer"]
    else:
        edge = np.concatenate([np.arange(b.edges.start, b.edges.stop) for b in items.blocks])
        gone = removal.edges[edge]
        count = np.concatenate([block.parameters for block in items.blocks])
        layer = np.concatenate([np.full(len(b.src), b.target) for b in items.blocks])
    return _Atoms(edge, gone, np.minimum(gone, cap[edge]), count, np.asarray(layer))


def _left(levels: Levels, n: int, weights: NDArray[np.generic] | None = None) -> Counts:
    """(n,) sum over entries that are still there at each level."""
    total = np.bincount(levels, weights=weights, minlength=n + 1)
    kept = total[::-1].cumsum()[::-1][1 : n + 1]
    return np.asarray(np.rint(kept), dtype=np.int64)


def _sparsity(removal: Removal, atoms: _Atoms, costs: ParameterCosts) -> dict[str, object]:
    n, items, graph = removal.n_levels, removal.items, removal.items.table.graph
    kept = _left(atoms.gone, n, atoms.parameters)
    effective = _left(atoms.effective, n, atoms.parameters)
    followers = _edge_atoms(removal)
    removed = int(atoms.parameters.sum()) - kept
    if items.unit is PruningUnit.UNIT and costs.n_per_unit is not None:
        removed = removed + int(costs.n_per_unit.sum()) - _left(removal.units, n, costs.n_per_unit)
    remaining = graph.n_nonzero - removed
    size = max(items.n_params, 1)
    with np.errstate(divide="ignore"):
        return {
            "kept_parameters": remaining,
            "density": remaining / max(graph.n_params, 1),
            "kept_edges": _left(removal.edges[followers], n),
            "sparsity": 1 - kept / size,
            "compression": np.where(kept > 0, size / np.maximum(kept, 1), np.inf),
            "effective_sparsity": 1 - effective / size,
            "effective_compression": np.where(effective > 0, size / np.maximum(effective, 1), np.inf),
            "bytes_if_removed": _bytes(removal, atoms, costs),
        }


def _edge_atoms(removal: Removal) -> Counts:
    items = removal.items
    prunable = {block.block.id for block in items.blocks} | set(items.copies)
    chosen = [b for b in items.table.blocks if b.block.id in prunable]
    return np.concatenate([np.arange(b.edges.start, b.edges.stop) for b in chosen])


def _bytes(removal: Removal, atoms: _Atoms, costs: ParameterCosts) -> object:
    if costs.bytes_total is None:
        return pl.Series([None] * removal.n_levels, dtype=pl.Float64)
    per_edge = np.zeros(removal.items.table.n_edges)
    for block in removal.items.blocks:
        per_edge[block.edges] = costs.bytes_of_tensor.get(block.block.tensor or "", 0.0)
    weight = atoms.parameters * per_edge[atoms.edge]
    total = np.bincount(atoms.gone, weights=weight, minlength=removal.n_levels + 1)[: removal.n_levels]
    return costs.bytes_total - np.cumsum(total)


def _structure(removal: Removal, atoms: _Atoms, reached: Reach) -> dict[str, object]:
    graph, n = removal.items.table.graph, removal.n_levels
    layers = np.unique(atoms.layer)
    whole, effective = np.zeros(len(graph.layers), np.uint8), np.zeros(len(graph.layers), np.uint8)
    np.maximum.at(whole, atoms.layer, atoms.gone)
    np.maximum.at(effective, atoms.layer, atoms.effective)
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
