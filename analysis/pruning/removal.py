"""Nested removals: which items, edges and units are gone at each level of one sweep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.blockmatrix import positions_in
from emergraph.analysis.edgesets.edgetable import BlockTable, Floats, Levels
from emergraph.analysis.pruning.criteria import synflow_scores
from emergraph.analysis.pruning.items import Items
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.pruning.selection import removal_levels


@dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """Masks of one sweep. At level index l, what has an entry above l is still there."""

    items: Items
    levels: tuple[float, ...]
    """Ascending shares of items asked for."""
    gone: Levels
    """(n_items,) first level index at which each item is gone."""
    edges: Levels
    """(n_edges,) the same for edges; a kernel goes with its last parameter."""
    units: Levels
    """(n_units,) the same for units; all stay unless units are removed."""
    seed: int | None = None

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        return len(self.levels)

    def at(self, level: int) -> "Removal":
        """The same with one level only.

        Args:
            level: Index of the level.
        """
        return replace(
            self,
            levels=(self.levels[level],),
            gone=(self.gone > level).astype(np.uint8),
            edges=(self.edges > level).astype(np.uint8),
            units=(self.units > level).astype(np.uint8),
        )

    def removed(self) -> NDArray[np.int64]:
        """(n_levels,) items removed at each level."""
        return np.cumsum(np.bincount(self.gone, minlength=self.n_levels + 1)[: self.n_levels])

    def strength(self, block: BlockTable, level: int, *, power: int = 1) -> Floats:
        """(n_edges,) sum of |w|**power over what is left of each edge at a level; 0 where it is gone.

        Args:
            block: A block of the table.
            level: Index of the level.
            power: 1 or 2.
        """
        alive = self.edges[block.edges] > level
        leader, order = self.items.copies.get(block.block.id, (block, None))
        taps = self.items.taps.get(leader.block.id)
        if taps is None or self.items.unit is PruningUnit.UNIT:
            whole = block.l1 if power == 1 else block.l2**2
            return np.asarray(whole if alive.all() else np.where(alive, whole, 0.0))
        kept = np.where(self.gone_of(leader) > level, taps.magnitude**power, 0.0)
        sums = np.add.reduceat(kept, taps.starts)
        return np.asarray(sums if order is None else sums[order])

    def gone_of(self, leader: BlockTable) -> Levels:
        """The entries of `gone` for the items of one prunable block (not for removed units)."""
        start = 0
        for block in self.items.blocks:
            taps = self.items.taps.get(block.block.id)
            stop = start + (len(block.src) if taps is None else len(taps.edge))
            if block is leader:
                return self.gone[start:stop]
            start = stop
        raise ValueError("the block has no items of its own")


def nested_removal(
    items: Items, gone: Levels, levels: Sequence[float], *, seed: int | None = None
) -> Removal:
    """Masks from the level at which each item goes."""
    edges, units = items.spread(gone, n_levels=len(levels))
    return Removal(items=items, levels=tuple(levels), gone=gone, edges=edges, units=units, seed=seed)


def prune_by_scores(
    items: Items,
    scores: NDArray[np.floating],
    levels: Sequence[float],
    *,
    scope: str = "global",
    seed: int | None = None,
) -> Removal:
    """Remove the lowest scores of each group first, exactly `round(level * n)` of them.

    Args:
        items: What can be removed.
        scores: (n_items,); NaN is removed last.
        levels: Ascending shares.
        scope: `global`, `layer`, `block`, or `unit` (each target unit by itself).
        seed: Of random scores, to be reported.
    """
    return nested_removal(items, removal_levels(scores, items.group[scope], levels), levels, seed=seed)


def prune_by_synflow(items: Items, level: float, *, rounds: int = 100, scope: str = "global") -> Removal:
    """Iterative SynFlow: score, remove, score again (arXiv 2006.05467, algorithm 1).

    After round k of K the share `(1 - level)**(k / K)` of the items is left. One level at a time, since the
    schedules of two levels do not nest.

    Args:
        items: Edges or parameters.
        level: Share to remove.
        rounds: K, at least 1.
        scope: As in `prune_by_scores`.
    """
    gone = np.ones(items.n, dtype=np.uint8)
    for k in range(1, rounds + 1):
        share = level if k == rounds else 1.0 - (1.0 - level) ** (k / rounds)
        saliency = synflow_scores(items, gone > 0)
        gone = removal_levels(saliency, items.group[scope], [share])
    return nested_removal(items, gone, [level])


def prune_n_of_m(items: Items, n: int, m: int) -> Removal:
    """N:M sparsity: in every group of M consecutive weights into a unit, the N largest magnitudes stay.

    Weights stand in the order of the tensor's inputs (for kernels: input channel, then tap), exact zeros
    included; ties go to the first. The level that is reported is the share of items that this removes.

    Args:
        items: Edges or parameters.
        n: Weights that stay per group.
        m: Size of a group, above n.
    """
    gone = np.ones(items.n, dtype=np.uint8)
    start = 0
    for block in items.blocks:
        taps = items.taps.get(block.block.id)
        edge = np.arange(len(block.src)) if taps is None else taps.edge
        part = slice(start, start + len(edge))
        start = part.stop
        place = _place(block)[edge]
        if taps is not None:
            place = place * taps.kernel_size + taps.tap
        target = block.dst[edge].astype(np.int64)
        order = np.lexsort((place, -items.magnitude[part], place // m, target))
        key = np.stack([target[order], place[order] // m])
        fresh = np.concatenate(([True], (np.diff(key, axis=1) != 0).any(axis=0)))
        first = np.flatnonzero(fresh)
        rank = np.arange(len(order)) - first[np.cumsum(fresh) - 1]
        gone[start - len(edge) + order[rank >= n]] = 0
    share = float((gone == 0).mean()) if items.n else 0.0
    return nested_removal(items, gone, [share])


def _place(block: BlockTable) -> NDArray[np.int64]:
    """(n_edges,) position of each edge's source among the inputs of the block's matrix."""
    units = block.rows if block.block.src_units is None else block.block.src_units
    return positions_in(units, block.src)
