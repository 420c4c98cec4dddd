"""Activity by weight change: a unit is active when training changed its incoming weights."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import ActivityScores
from emergraph.analysis.unitgraph import EdgeColumns, UnitBlock, UnitGraph
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind

Floats = NDArray[np.float64]

PARAMETER_KINDS = frozenset({EdgeKind.WEIGHT, EdgeKind.RECURRENT})


def weight_change_scores(before: UnitGraph, after: UnitGraph) -> ActivityScores:
    """L2 change of a unit's incoming weights between two snapshots, relative to their norm before.

    `||w_in(after) - w_in(before)|| / ||w_in(before)||`; an absent edge has weight 0, a kernel counts by its
    sum. The paper only names this variant (arXiv 2409.01568), the formula is ours.

    Args:
        before: Snapshot with weights.
        after: Later snapshot of the same model.

    Returns:
        Scores; inf where weights grew from nothing, NaN for units without incoming weights in either
        snapshot.

    Raises:
        UsageError: The snapshots are not of the same model.
    """
    _require_same_model(before, after)
    change = np.zeros(after.n_units)
    norm = np.zeros(after.n_units)
    has_weights = np.zeros(after.n_units, dtype=bool)
    old_blocks, new_blocks = _parameter_blocks(before), _parameter_blocks(after)
    for (block, old), (_, new) in zip(_edges(before, old_blocks), _edges(after, new_blocks), strict=True):
        layer = after.layer_of(block.layer)
        for unit, was, now in _pair(old, new, after.n_units):
            has_weights[unit] = True
            target = unit - layer.first_unit
            norm[layer.units] += np.bincount(target, weights=was**2, minlength=layer.n_units)
            change[layer.units] += np.bincount(target, weights=(now - was) ** 2, minlength=layer.n_units)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(change / norm)
    relative[has_weights & (change == 0)] = 0.0
    relative[~has_weights] = np.nan
    return ActivityScores(
        values=relative,
        rule=ActivityRule.WEIGHT_CHANGE,
        text="L2 change of the incoming weights > {t} times their norm",
    )


def _require_same_model(before: UnitGraph, after: UnitGraph) -> None:
    def shape(graph: UnitGraph) -> list[tuple[str, int]]:
        return [(layer.name, layer.n_units) for layer in graph.layers]

    def blocks(graph: UnitGraph) -> list[tuple[str, int]]:
        return [(block.name, block.layer) for block in _parameter_blocks(graph)]

    if shape(before) != shape(after) or blocks(before) != blocks(after):
        raise UsageError(
            f"'{before.name}' and '{after.name}' are not snapshots of one model: "
            "expected the same layers and blocks"
        )


def _parameter_blocks(graph: UnitGraph) -> list[UnitBlock]:
    return [block for block in graph.blocks if block.kind in PARAMETER_KINDS]


def _edges(graph: UnitGraph, blocks: list[UnitBlock]) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
    return graph.iter_edges(blocks, columns=("src", "dst", "weight"))


def _pair(
    old: EdgeColumns, new: EdgeColumns, n_units: int
) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
    """Target units with the weight before and after, for edges of either snapshot."""
    old_key, new_key = (e["src"].astype(np.int64) * n_units + e["dst"] for e in (old, new))
    old_weight, new_weight = (e["weight"].astype(np.float64) for e in (old, new))
    if np.array_equal(old_key, new_key):
        yield old["dst"].astype(np.int64), old_weight, new_weight
        return
    _, in_old, in_new = np.intersect1d(old_key, new_key, assume_unique=True, return_indices=True)
    yield old["dst"][in_old].astype(np.int64), old_weight[in_old], new_weight[in_new]
    only_old, only_new = np.ones(len(old_key), dtype=bool), np.ones(len(new_key), dtype=bool)
    only_old[in_old], only_new[in_new] = False, False
    yield old["dst"][only_old].astype(np.int64), old_weight[only_old], np.zeros(only_old.sum())
    yield new["dst"][only_new].astype(np.int64), np.zeros(only_new.sum()), new_weight[only_new]
