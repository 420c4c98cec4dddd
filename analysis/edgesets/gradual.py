"""Orders of very many edges, made only as far as somebody looks.

Components stop joining after the first few per cent of the edges of a network, so the rest needs no place in
an order. Each class here is a sequence of edges: `len`, slices and arrays of positions.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.ordering import Order, descending, ordered_bits

GRADUAL_EDGES = 4_000_000
"""Edges beyond which orders are made gradually; random orders are then drawn in another way."""
_PART = 1 << 21
"""About how many edges are put in order at a time."""
_SCAN = 1 << 22


class GradualSequence:
    """A sequence of edges that grows when positions are asked for that it has not reached.

    Args:
        n: Edges.
        first: Number of the first of them; the others follow.
    """

    def __init__(self, n: int, *, first: int = 0) -> None:
        self._n, self._first = n, first
        self._edges: NDArray[np.int32] = np.empty(
            n, dtype=np.int32
        )  # memory that is not written to is not taken
        self.n_made = 0
        """Positions that are known."""

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, at: "slice | Order") -> Order:
        if isinstance(at, slice):
            first, last, _ = at.indices(self._n)
            self.make(last)
            return self._edges[first:last].astype(np.int64) + self._first
        self.make(int(at.max(initial=-1)) + 1)
        return self._edges[at].astype(np.int64) + self._first

    def make(self, n: int) -> None:
        """Grow until the first n positions are known."""
        while self.n_made < min(n, self._n):
            self._append(self._more())

    def ranks(self, n: int) -> NDArray[np.int32]:
        """(n_edges,) rank of the edges at the first n positions or more; the largest integer elsewhere."""
        self.make(n)
        ranks = np.full(self._n, np.iinfo(np.int32).max, dtype=np.int32)
        ranks[self._edges[: self.n_made]] = self._made_ranks()
        return ranks

    def _made_ranks(self) -> NDArray[np.int32]:
        return np.arange(1, self.n_made + 1, dtype=np.int32)

    def _append(self, edges: NDArray[np.integer]) -> None:
        self._edges[self.n_made : self.n_made + edges.size] = edges
        self.n_made += edges.size

    def _more(self) -> NDArray[np.integer]:
        raise NotImplementedError


class GradualOrder(GradualSequence):
    """Edges by descending key, NaN last, equal keys by number: `descending` for very many.

    The highest 16 bits of the keys say which edges come together, a part of some million at a time.
    """

    def __init__(self, keys: NDArray[np.floating], *, first: int = 0) -> None:
        super().__init__(len(keys), first=first)
        self._keys = keys
        shift = 8 * ordered_bits(keys[:1]).itemsize - 16
        counts = np.zeros(1 << 16, dtype=np.int64)
        high = np.empty(len(keys), dtype=np.uint16)
        for at in range(0, len(keys), _SCAN):
            part = slice(at, at + _SCAN)
            high[part] = ordered_bits(keys[part]) >> shift
            counts += np.bincount(high[part], minlength=1 << 16)
        self._part = ((np.cumsum(counts) - counts) // _PART).astype(np.uint16)[high]
        self._next = 0
        self._group_ends: list[Order] = []
        self._n_groups = 0

    @property
    def edges(self) -> "GradualOrder":
        """The edges, by position."""
        return self

    @property
    def has_ties(self) -> bool:
        """Whether two edges have the same key; looks until it finds two."""
        while self._n_groups == self.n_made < len(self):
            self.make(self.n_made + 1)
        return self._n_groups < self.n_made

    def shuffled_ties(self, n: int, rng: "np.random.Generator") -> Order:
        """Return the first edges, with ties in random order; see `KeyOrder.shuffled_ties`."""
        if n == 0 or not self.has_ties:
            return self[:n]
        self.make(n)
        ends = self._ends()
        ends = ends[: int(np.searchsorted(ends, n)) + 1]
        return shuffled_groups(self[: int(ends[-1])], ends, rng)

    def next_part(self, position: int) -> tuple[Order, Order]:
        """Return the edges from a position on that are put in order together, and where their ties end."""
        self.make(position + 1)
        ends = self._ends()
        return self[position : self.n_made], ends[ends > position] - position

    def _ends(self) -> Order:
        return np.concatenate([np.empty(0, np.int64), *self._group_ends])

    def _made_ranks(self) -> NDArray[np.int32]:
        ends = self._ends()
        return np.repeat(ends, np.diff(ends, prepend=0)).astype(np.int32)

    def _more(self) -> NDArray[np.integer]:
        own = np.empty(0, dtype=np.int64)
        while not own.size:
            own = np.flatnonzero(self._part == self._next)
            self._next += 1
        order = descending(self._keys[own])
        self._group_ends.append(order.group_end + self.n_made)
        self._n_groups += len(order.group_end)
        return own[order.edges]


class DrawnOrder(GradualSequence):
    """All orders of n edges equally likely."""

    def __init__(self, n: int, rng: "np.random.Generator", *, first: int = 0) -> None:
        super().__init__(n, first=first)
        self._rng = rng
        self._seen = np.zeros(n, dtype=np.bool_)

    def _more(self) -> NDArray[np.integer]:
        if 4 * self.n_made >= len(self):
            return self._rng.permutation(np.flatnonzero(~self._seen))
        # edges are drawn with repetition, and only the first time counts
        drawn = self._rng.integers(0, len(self), size=min(max(1 << 12, self.n_made), len(self) // 4 + 1))
        drawn = drawn[~self._seen[drawn]]
        _, firsts = np.unique(drawn, return_index=True)
        drawn = drawn[np.sort(firsts)]
        self._seen[drawn] = True
        return drawn


class ShuffledOrder(GradualSequence):
    """An order after the keys of each block were shuffled among its edges.

    The block at a position stays, with ties in random order; which of the block's edges it is becomes random.

    Args:
        order: The order.
        starts: (n_blocks + 1,) first edge of each block.
        ties: Source of the order of ties.
        rng: Source of the shuffles.
    """

    def __init__(
        self,
        order: GradualOrder,
        starts: NDArray[np.int64],
        ties: "np.random.Generator",
        rng: "np.random.Generator",
    ) -> None:
        super().__init__(len(order))
        self._order, self._starts, self._ties = order, starts, ties
        self._own = [DrawnOrder(end - start, rng, first=start) for start, end in pairwise(starts.tolist())]
        self._taken = [0] * len(self._own)

    def _more(self) -> NDArray[np.integer]:
        edges, ends = self._order.next_part(self.n_made)
        shuffled = shuffled_groups(edges, ends, self._ties)
        blocks = np.searchsorted(self._starts, shuffled, side="right") - 1
        result = np.empty_like(shuffled)
        for block in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == block)
            first = self._taken[block]
            self._taken[block] += here.size
            result[here] = self._own[block][first : first + here.size]
        return result


def shuffled_groups(edges: Order, ends: Order, rng: "np.random.Generator") -> Order:
    """Return edges with each group in random order.

    Args:
        edges: (n,) edges.
        ends: (n_groups,) position after the last edge of each group, ascending.
        rng: Source of the order.
    """
    group = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    return edges[np.argsort(group + rng.random(len(group)), kind="stable")]
