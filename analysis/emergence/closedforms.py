"""Closed forms of path-count emergence for fully connected layered nets, as exact integers.

What the papers print. They hold only where every unit of a layer is connected to every unit of the next: on a
pruned net they count paths that are not there. `path_count_emergence` counts on the real graph.
"""

from collections.abc import Sequence

from emergraph.analysis.paths.options import Interior
from emergraph.errors import UsageError


def layered_form(
    sizes: Sequence[int],
    active: Sequence[int],
    *,
    interior: Interior | str = Interior.ACTIVE,
    filters: Sequence[int] | None = None,
) -> int:
    """Paths from inactive to active units of a fully connected layered net (arXiv 2409.01568).

    `sum over i < j of (n_i - a_i) a_j prod over i < k < j of m_k`, where m_k is a_k (interior "active"), n_k
    (interior "any"), or the number of filters of layer k (the convolutional form as printed).

    Args:
        sizes: Units per layer, n_1 .. n_N.
        active: Active units per layer, 0 <= a_k <= n_k.
        interior: Where paths may run; ignored when filters are given.
        filters: Filters per layer; gives the form that the paper prints for convolutional nets.

    Raises:
        UsageError: The lists have different lengths, or a count is out of range.

    Example:
        >>> layered_form([3, 2, 2], [1, 1, 2]), layered_form([3, 2, 2], [1, 1, 2], interior="any")
        (8, 12)
    """
    between = filters if filters is not None else active if interior == Interior.ACTIVE else sizes
    if len({len(sizes), len(active), len(between)}) > 1:
        raise UsageError(
            f"Lists of different lengths: {len(sizes)} sizes, {len(active)} active, {len(between)} between"
        )
    if any(not 0 <= a <= n for a, n in zip(active, sizes, strict=True)):
        raise UsageError(f"Active counts {list(active)} are not between 0 and the sizes {list(sizes)}")
    total = 0
    # Paths that arrive at a layer's every unit, from all layers before.
    arriving = 0
    for n, a, through in zip(sizes, active, between, strict=True):
        total += arriving * a
        arriving = arriving * through + (n - a)
    return total
