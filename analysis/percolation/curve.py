"""The exact percolation curve: giant component, susceptibility and number of components at every merge."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.forest import Merges, join_components

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class MergeCurve:
    """State after each merge; entry 0 is the state before the first edge.

    The *core* is the largest component when all edges are there: susceptibility and threshold are about its
    units only. Parts that never join it would otherwise look like a growing susceptibility forever.
    """

    n_units: int
    n_core: int
    """Units of the core."""
    edges: NDArray[np.int64]
    """(n_merges + 1,) edges that are there."""
    giant: NDArray[np.int64]
    """(n_merges + 1,) units of the largest component."""
    components: NDArray[np.int64]
    """(n_merges + 1,) number of components."""
    core_giant: NDArray[np.int64]
    """(n_merges + 1,) units of the largest component within the core."""
    core_squares: NDArray[np.int64]
    """(n_merges + 1,) sum over components within the core of their squared size."""

    @property
    def susceptibility(self) -> Floats:
        """(n_merges + 1,) sum of squared sizes of the components other than the largest, per unit.

        `chi = sum_{c != giant} s_c^2 / n_core`: the expected size of the component of a random unit of the
        core, counting 0 for units of the giant one.
        """
        return np.asarray((self.core_squares - self.core_giant.astype(np.float64) ** 2) / self.n_core)

    @property
    def threshold(self) -> int:
        """Edges at the peak of the susceptibility; the first of equal peaks."""
        return int(self.edges[int(np.argmax(self.susceptibility))])

    def at(self, edges: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Entries of the curve that hold when so many edges are there."""
        return np.asarray(np.searchsorted(self.edges, edges, side="right") - 1)


def merge_curve(merges: Merges) -> MergeCurve:
    """Follow the components through all merges by union-find (one step per merge, not per edge).

    Complexity: O(n_units α(n_units)).

    Example:
        >>> from emergraph.analysis.edgesets.forest import find_merges
        >>> src, dst = np.array([0, 2, 1]), np.array([1, 3, 2])
        >>> path = find_merges(src, dst, np.arange(3), np.arange(4), np.ones(4, dtype=np.int64))
        >>> merge_curve(path).giant.tolist()
        [1, 2, 2, 4]
    """
    sizes = merges.sizes
    taken, grown, roots = join_components(merges, merges.sizes)
    gains = 2 * (grown - taken) * taken  # of the sum of squares
    core = int(np.argmax(np.bincount(roots, weights=sizes)))
    starts_in_core = roots == core
    in_core = starts_in_core[merges.a]
    core_sizes = sizes[starts_in_core]

    def running(start: int, values: NDArray[np.int64], add: np.ufunc) -> NDArray[np.int64]:
        return np.asarray(add.accumulate(np.concatenate([[start], values])), dtype=np.int64)

    return MergeCurve(
        n_units=int(sizes.sum()),
        n_core=int(core_sizes.sum()),
        edges=np.concatenate([[0], merges.position + 1]).astype(np.int64),
        giant=running(int(sizes.max()), grown, np.maximum),
        components=len(sizes) - np.arange(len(merges.position) + 1),
        core_giant=running(int(core_sizes.max()), np.where(in_core, grown, 0), np.maximum),
        core_squares=running(int((core_sizes**2).sum()), np.where(in_core, gains, 0), np.add),
    )
