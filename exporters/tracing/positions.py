"""Which positions of a tensor are one unit: a partition that grows as operations are met."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emergraph.exporters.tracing.labels import NO_UNIT, Labels


class Positions:
    """The positions 0 .. size - 1 of a tensor (C order), and which of them are known to be one unit."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.size = int(np.prod(shape, dtype=np.int64))
        self.pairs: list[NDArray[np.int64]] = []
        self.covered = np.zeros(self.size, bool)
        """Positions that some contraction has contracted."""
        self.behind: dict[int, NDArray[np.int64]] = {}
        """Positions that a reduction mixed, by the one that stands for them."""

    @property
    def resolved(self) -> bool:
        """Whether every position has met its first contraction."""
        return bool(self.covered.all())

    def unite(self, groups: Labels, axes: Sequence[int]) -> None:
        """Positions are one unit when they differ only along axes other than these."""
        if not groups.size:
            return
        kept = [a % groups.ndim for a in axes]
        rest = [k for k in range(groups.ndim) if k not in kept]
        flat = groups.transpose([*kept, *rest]).reshape(int(np.prod([groups.shape[k] for k in kept])), -1)
        # Padding inside a row must not cut it: link each id to the row's first real one.
        first = np.max(np.where(flat >= 0, flat, -1), axis=1, keepdims=True, initial=-1)
        left = np.broadcast_to(first, flat.shape)
        both = np.stack([left.ravel(), flat.ravel()], axis=1)
        self.pairs.append(np.unique(both[(both >= 0).all(axis=1)], axis=0))

    def unite_along(self, ids: Labels, axis: int) -> None:
        """Positions that differ only along an axis that is walked through are one unit."""
        self.unite(ids, [k for k in range(ids.ndim) if k != axis % ids.ndim])

    def contracted(self, groups: Labels, axes: Sequence[int], *, reduced: bool = False) -> None:
        """Of the positions that a contraction is the first to meet, what it does not contract is one unit.

        Args:
            groups: Positions, laid out as the contracted tensor.
            axes: The axes that are contracted.
            reduced: Whether each of them stands for those that a reduction mixed with it.
        """
        fresh = np.where((groups >= 0) & ~self.covered[groups], groups, NO_UNIT)
        met = np.unique(fresh[fresh >= 0])
        if met.size == 0:
            return
        self.unite(fresh, axes)
        self.covered[met] = True
        for position in met.tolist() if reduced else []:
            members = self.behind.get(position)
            if members is not None:
                self.pairs.append(np.stack([np.full(members.size, position), members], axis=1))
                self.covered[members] = True

    def classes(self) -> Labels:
        """Connected positions are one unit; without a contraction, the channel axis decides."""
        if not self.size:
            return np.empty(self.shape, np.int64)
        if not self.pairs:
            ids = np.arange(self.size).reshape(self.shape)
            self.unite(ids, [1] if len(self.shape) > 1 else list(range(len(self.shape))))
        component = self._components()
        if self.covered.any() and not self.covered.all():
            self._follow_the_covered(component.reshape(self.shape))
            component = self._components()
        _, index, inverse = np.unique(component, return_index=True, return_inverse=True)
        rank = np.empty(index.size, np.int64)
        rank[np.argsort(index, kind="stable")] = np.arange(index.size)
        return rank[inverse].reshape(self.shape)

    def _components(self) -> NDArray[np.int64]:
        links = np.concatenate(self.pairs) if self.pairs else np.empty((0, 2), np.int64)
        graph = coo_array(
            (np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(self.size, self.size)
        )
        _, component = connected_components(graph, directed=False)
        return np.asarray(component, np.int64)

    def _follow_the_covered(self, component: Labels) -> None:
        """Positions that nothing contracts are one unit along the axes along which contracted ones are."""
        ids = np.arange(self.size).reshape(self.shape)
        covered = self.covered.reshape(self.shape)
        for axis, length in enumerate(self.shape):
            here, there = range(length - 1), range(1, length)
            both = np.take(covered, here, axis=axis) & np.take(covered, there, axis=axis)
            same = np.take(component, here, axis=axis) == np.take(component, there, axis=axis)
            if both.any() and same[both].all():
                self.unite_along(ids, axis)
