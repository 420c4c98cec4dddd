"""Exactly how many items go at each level, and which: the ones with the lowest scores, ties by position."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import Levels
from emergraph.analysis.edgesets.gradual import GRADUAL_EDGES, GradualOrder


def removal_levels(
    scores: NDArray[np.floating], groups: NDArray[np.int64], levels: Sequence[float]
) -> Levels:
    """First level at which each item is removed: in each group exactly `round(level * n)` items.

    Items go in ascending order of (score, position); NaN is removed last. `round` is Python's (half to even),
    which is what `torch.nn.utils.prune` counts with.

    Args:
        scores: (n_items,).
        groups: (n_items,) number of each item's group.
        levels: Ascending, in [0, 1).

    Returns:
        (n_items,) index into `levels`, or their number for items that stay.

    Example:
        >>> removal_levels(np.ones(4), np.zeros(4, dtype=int), [0.25, 0.5]).tolist()
        [0, 1, 2, 2]
    """
    if len(scores) > GRADUAL_EDGES and groups.strides == (0,):
        return _gradual_levels(scores, levels)
    order = _order(scores, groups)
    ordered_groups = groups[order]
    changes = np.flatnonzero(np.diff(ordered_groups)) + 1
    starts = [0, *changes.tolist()] if len(order) else []
    gone = np.full(len(scores), len(levels), dtype=np.uint8)
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        counts = [round(level * int(stop - start)) for level in levels]
        for index in reversed(range(len(levels))):
            gone[order[start : start + counts[index]]] = index
    return gone


def _order(scores: NDArray[np.floating], groups: NDArray[np.int64]) -> NDArray[np.intp]:
    if len(groups) and (groups == groups[0]).all():
        return np.argsort(scores, kind="stable")
    return np.lexsort((scores, groups))


def _gradual_levels(scores: NDArray[np.floating], levels: Sequence[float]) -> Levels:
    """The same for very many items in one group, put in order a part at a time."""
    gone = np.full(len(scores), len(levels), dtype=np.uint8)
    order = GradualOrder(scores, ascending=True)
    counts = [round(level * len(scores)) for level in levels]
    first = 0
    for edges, _ in order.parts(max(counts, default=0)):
        places = np.arange(first, first + len(edges))
        gone[edges] = np.searchsorted(counts, places, side="right")
        first += len(edges)
    return gone
