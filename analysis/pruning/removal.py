"""Nested removals: which items, edges and units are gone at each level of one sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, Floats, Levels
from emergraph.analysis.edgesets.ordering import positions_in
from emergraph.analysis.pruning.criteria import synflow_scores
from emergraph.analysis.pruning.items import Items
from emergraph.analysis.pruning.selection import removal_levels
from emergraph.graphstore.inplace import Piece


@dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """Masks of one sweep. At level index l, what has an entry above l is still there."""

    items: Items
    levels: tuple[float, ...]
    """Ascending shares of items asked for."""
    parts: Mapping[int, Levels]
    """By id of a prunable block, the first level index at which each of its edges is gone: as a matrix, 0
    where there is no edge, or (n_edges,) where edges are listed. A kernel goes with its last parameter."""
    taps: Mapping[int, Levels]
    """By id of a block of kernels, (n_edges, kernel size) the same for its parameters."""
    units: Levels
    """(n_units,) the same for units; all stay unless units are removed."""
    seed: int | None = None

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @cached_property
    def gone(self) -> Levels:
        """(n_items,) first level index at which each item is gone."""
        if self.items.units is not None:
            return self.units[self.items.units.unit]
        return np.concatenate([self.gone_of(block) for block in self.items.blocks])

    @cached_property
    def edges(self) -> Levels:
        """(n_edges,) the same for edges."""
        return np.concatenate([self.edges_of(block) for block in self.items.table.blocks])

    def edges_of(self, block: BlockTable) -> Levels:
        """(n_edges,) the same for the edges of one block."""
        if block.cells is None:
            return self.of(block, None)
        rows, columns = block.cells.shape
        return block.flat(self.of(block, (slice(0, rows), slice(0, columns))))

    def is_fixed(self, block: BlockTable) -> bool:
        """Whether all edges of a block stay at every level."""
        held = block.block.id in self.parts or block.block.id in self.items.copies
        return not held and self.items.units is None

    def of(self, block: BlockTable, piece: Piece | None) -> Levels:
        """The levels of a piece of a matrix, 0 where there is no edge; or of all edges that are listed."""
        if self.items.units is not None:
            return _of_ends(block, self.units, piece)
        copied = self.items.copies.get(block.block.id)
        if copied is not None:
            return self._of_copy(block, *copied, piece)
        held = self.parts.get(block.block.id)
        if held is None:
            return unremoved(block, piece, self.n_levels)
        return held if piece is None else held[piece]

    def _of_copy(
        self, block: BlockTable, leader: BlockTable, order: NDArray[np.intp], piece: Piece | None
    ) -> Levels:
        flat = self.edges_of(leader)[order]
        return flat if piece is None else block.grid(flat)[piece]

    def at(self, level: int) -> "Removal":
        """The same with one level only.

        Args:
            level: Index of the level.
        """
        one = {number: (part > level).astype(np.uint8) for number, part in self.parts.items()}
        taps = {number: (part > level).astype(np.uint8) for number, part in self.taps.items()}
        units = (self.units > level).astype(np.uint8)
        return replace(self, levels=(self.levels[level],), parts=one, taps=taps, units=units)

    def removed(self) -> NDArray[np.int64]:
        """(n_levels,) items removed at each level."""
        counts = np.zeros(self.n_levels + 1, np.int64)
        if self.items.units is not None:
            counts += np.bincount(self.gone, minlength=len(counts))
        else:
            for block in self.items.blocks:
                counts += self.counts_of(block)
        return np.cumsum(counts[: self.n_levels])

    def counts_of(self, block: BlockTable) -> NDArray[np.int64]:
        """(n_levels + 1,) items of one prunable block that are gone from each level on; not of units."""
        taps = self.items.taps.get(block.block.id)
        if taps is None:
            return self.edge_counts(block)
        held = self.taps[block.block.id]
        counts = histogram(held, self.n_levels)
        counts[0] -= held.size - taps.n
        return counts

    def edge_counts(self, block: BlockTable) -> NDArray[np.int64]:
        """(n_levels + 1,) edges of a block that are gone from each level on."""
        if block.block.id not in self.parts or self.items.units is not None:
            return histogram(self.edges_of(block), self.n_levels)
        return self._counts_of_parts[block.block.id].copy()

    @cached_property
    def _counts_of_parts(self) -> dict[int, NDArray[np.int64]]:
        found = {}
        for number, held in self.parts.items():
            found[number] = histogram(held, self.n_levels)
            found[number][0] -= held.size - self.items.table.by_id[number].n_edges
        return found

    def strength(self, block: BlockTable, level: int, *, power: int = 1) -> Floats:
        """(n_edges,) sum of |w|**power over what is left of each edge at a level; 0 where it is gone.

        Args:
            block: A block of the table.
            level: Index of the level.
            power: 1 or 2.
        """
        leader, order = self.items.copies.get(block.block.id, (block, None))
        taps = self.items.taps.get(leader.block.id)
        if taps is None:
            alive = self.edges_of(block) > level
            whole = block.l1 if power == 1 else block.l2**2
            return np.asarray(whole if alive.all() else np.where(alive, whole, 0.0))
        kept = np.abs(taps.kernels, dtype=np.float64) ** power
        kept *= self.taps[leader.block.id] > level
        sums = kept.sum(axis=1)
        return np.asarray(sums if order is None else sums[order])

    def gone_of(self, leader: BlockTable) -> Levels:
        """The entries of `gone` for the items of one prunable block (not for removed units)."""
        taps = self.items.taps.get(leader.block.id)
        return self.edges_of(leader) if taps is None else self.taps[leader.block.id][taps.kernels != 0]


def unremoved(block: BlockTable, piece: Piece | None, level: int) -> Levels:
    """One number for all edges of a piece, or of all that are listed; 0 where there is no edge."""
    if piece is None or block.cells is None:
        return np.full(block.n_edges, level, dtype=np.uint8)
    there = block.cells.there(piece)
    if there is not None:
        return there * np.uint8(level)
    shape = tuple(part.stop - part.start for part in piece)
    return np.broadcast_to(np.uint8(level), shape)


def _of_ends(block: BlockTable, units: Levels, piece: Piece | None) -> Levels:
    """The smaller level of both ends."""
    if piece is None or block.cells is None:
        return np.minimum(units[block.src], units[block.dst])
    rows, columns = piece
    found: Levels = np.minimum(units[block.rows[rows]][:, None], units[block.columns[columns]])
    there = block.cells.there(piece)
    return found if there is None else found * there


def histogram(levels: Levels, n_levels: int) -> NDArray[np.int64]:
    """(n_levels + 1,) how many entries have each level."""
    flat = levels.ravel(order="K")
    counts = np.zeros(n_levels + 1, np.int64)
    for first in range(0, flat.size, _TOGETHER):
        counts += np.bincount(flat[first : first + _TOGETHER], minlength=n_levels + 1)
    return counts


_TOGETHER = 1 << 20


def nested_removal(
    items: Items, gone: Levels, levels: Sequence[float], *, seed: int | None = None
) -> Removal:
    """Masks from the level at which each item goes."""
    units = np.full(items.table.graph.n_units, len(levels), dtype=np.uint8)
    parts: dict[int, Levels] = {}
    taps: dict[int, Levels] = {}
    if items.units is not None:
        units[items.units.unit] = gone
    else:
        ends = np.cumsum([0, *items.sizes])
        for block, first, last in zip(items.blocks, ends[:-1], ends[1:], strict=True):
            number, own = block.block.id, gone[first:last]
            kernels = items.taps.get(number)
            if kernels is None:
                parts[number] = own if block.cells is None else block.grid(own)
                continue
            taps[number] = np.zeros(kernels.kernels.shape, np.uint8)
            taps[number][kernels.kernels != 0] = own
            parts[number] = of_kernels(block, taps[number])
    return Removal(items=items, levels=tuple(levels), parts=parts, taps=taps, units=units, seed=seed)


def of_kernels(block: BlockTable, taps: Levels) -> Levels:
    """Levels of edges that go with their last parameters."""
    last = taps.max(axis=1)
    return last if block.cells is None else block.grid(last)


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
