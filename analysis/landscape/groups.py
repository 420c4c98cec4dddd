"""Groups of parameters whose removal is tried in all combinations: tensors, runs of tensors, or filters."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.hypercube import MAX_GROUPS
from emergraph.analysis.landscape.layout import Layout, group_ids
from emergraph.analysis.landscape.options import Norm
from emergraph.errors import UsageError

Groups = dict[str, NDArray[np.int64]]


def layer_groups(layout: Layout, *, m: int = 10) -> Groups:
    """Split the weight tensors into at most m runs of neighbours with about as many parameters each.

    Args:
        layout: Of the flat buffer; biases and normalisation vectors are left alone.
        m: Most groups, 1 .. 14.

    Returns:
        Indices by group name, in the order of the layout; every group holds whole tensors.

    Raises:
        UsageError: m is out of range.

    Example:
        >>> list(layer_groups(Layout.of_shapes([(2, 3), (2,), (4, 2)], ["a", "b", "c"]), m=14))
        ['a', 'c']
    """
    if not 1 <= m <= MAX_GROUPS:
        raise UsageError(f"groups: expected 1 to {MAX_GROUPS}, found {m}")
    blocks = [block for block in layout.blocks if not block.is_vector]
    ends = np.cumsum([block.size for block in blocks])
    n = min(m, len(blocks))
    targets = ends[-1] * np.arange(1, n) / n
    cuts = [0]
    for i, target in enumerate(targets):
        nearest = int(np.argmin(np.abs(ends - target))) + 1
        # Every group keeps at least one tensor, also those still to come.
        cuts.append(min(max(nearest, cuts[-1] + 1), len(blocks) - (n - 1 - i)))
    cuts.append(len(blocks))
    groups: Groups = {}
    for first, stop in pairwise(cuts):
        members = blocks[first:stop]
        name = members[0].name if len(members) == 1 else f"{members[0].name} .. {members[-1].name}"
        groups[name] = np.concatenate([np.arange(b.offset, b.offset + b.size) for b in members])
    return groups


def weight_groups(layout: Layout, *, m: int = 10) -> Groups:
    """Split all weights into m groups: runs of tensors, or of filters where there are fewer tensors than m.

    Args:
        layout: Of the flat buffer.
        m: Groups, 1 .. 14; fewer only where the model has fewer filters.

    Returns:
        Indices by group name.

    Example:
        >>> list(weight_groups(Layout.of_shapes([(4, 3), (2, 4)], ["a", "c"]), m=4))
        ['a[0]', 'a[1]', 'c[0]', 'c[1]']
    """
    blocks = [block for block in layout.blocks if not block.is_vector]
    if m <= len(blocks):
        return layer_groups(layout, m=m)
    filters = group_ids(layout, Norm.FILTER)
    most = {block.name: int(np.ptp(filters[block.span])) + 1 for block in blocks}
    shares = {block.name: 1 for block in blocks}
    for _ in range(m - len(blocks)):
        # The next cut goes where the groups are largest.
        open_ = [block for block in blocks if shares[block.name] < most[block.name]]
        if not open_:
            break
        largest = max(open_, key=lambda block: block.size / shares[block.name])
        shares[largest.name] += 1
    groups: Groups = {}
    for block in blocks:
        count = shares[block.name]
        if count == 1:
            groups[block.name] = np.arange(block.offset, block.offset + block.size)
        else:
            groups |= filter_groups(layout, block.name, m=count)
    return groups


def filter_groups(layout: Layout, tensor: str, *, m: int = 14) -> Groups:
    """Split the filters of one tensor into at most m runs of neighbours (for heads: m heads of equal size).

    Raises:
        UsageError: No such tensor, or m is out of range.

    Example:
        >>> groups = filter_groups(Layout.of_shapes([(4, 3)], ["a"]), "a", m=2)
        >>> [g.tolist() for g in groups.values()]
        [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    """
    if not 1 <= m <= MAX_GROUPS:
        raise UsageError(f"groups: expected 1 to {MAX_GROUPS}, found {m}")
    block = next((block for block in layout.blocks if block.name == tensor), None)
    if block is None:
        raise UsageError(
            f"tensor {tensor!r}: not one of the {len(layout.blocks)} perturbed tensors of the model"
        )
    filters = group_ids(layout, Norm.FILTER)[block.span]
    filters = filters - filters.min()
    count = int(filters.max()) + 1
    part = filters * min(m, count) // count
    return {
        f"{tensor}[{i}]": block.offset + np.flatnonzero(part == i).astype(np.int64)
        for i in range(min(m, count))
    }
