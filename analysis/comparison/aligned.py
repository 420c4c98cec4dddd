"""The weights of two models side by side, as links between groups of units."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from emergraph.analysis.comparison.deltas import oriented
from emergraph.analysis.comparison.groups import FIXED, Axis, Groups, Ints, fixed_axis
from emergraph.analysis.comparison.matching import Pair, match_weights
from emergraph.analysis.comparison.model import Model, balanced
from emergraph.analysis.comparison.unitmatching import Link
from emergraph.analysis.comparison.weights import Matrix, Weight

MEMBERS = 8
"""Units of a target whose order is looked at: a cell has three or four gates."""
CLEARLY = 0.25
"""What another order of them must gain, as a cosine."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """The weights of A and B that stand for each other."""

    raw: Sequence[Link]
    balanced: Sequence[Link]
    """The same, scaled so that all units of a link have one size."""
    groups: Sequence[str]
    """Groups of units that the links have, and that may be renumbered."""
    wired: bool
    """Whether it is known which units are inputs and outputs."""
    traced: bool
    """Whether all joints of units are known, so that groups are renumbered independently."""
    only_a: Sequence[Weight]
    only_b: Sequence[Weight]
    share: float
    """Share of the entries of the smaller model that have a counterpart."""
    names: Sequence[str] = field(default=())
    """Tensors of A that have a counterpart."""


def align(a: Model, b: Model) -> Alignment:
    """Pair the matrices of two models and cut them into links between groups.

    Groups are those of the model whose wiring is known better; A's where both are alike.
    """
    matching = match_weights(
        a.weights,
        b.weights,
        lambda w: a.values[w.name],
        lambda w: b.values[w.name],
        names_first=False,
    )
    by_b = (b.groups.wired, len(b.groups.axes)) > (a.groups.wired, len(a.groups.axes))
    groups = b.groups if by_b else a.groups
    both = a.groups.wired and b.groups.wired
    raw: list[Link] = []
    names, entries = [], 0
    for pair in matching.pairs:
        ours, theirs = _of_one_shape(a, b, pair, both=both)
        if ours is None or theirs is None:
            continue
        names.append(pair.a.name)
        entries += ours.size
        if by_b:
            turned = [
                Link(src=one.src, dst=one.dst, a=one.b, b=one.a) for one in cut(groups, pair.b, theirs, ours)
            ]
            raw += turned
        else:
            raw += cut(groups, pair.a, ours, theirs)
    scaled = [Link(src=one.src, dst=one.dst, a=balanced(one.a), b=balanced(one.b)) for one in raw]
    used = dict.fromkeys(name for link in raw for name in (link.src, link.dst) if name != FIXED)
    return Alignment(
        raw=raw,
        balanced=scaled,
        groups=tuple(used),
        wired=groups.wired,
        traced=groups.wiring == "traced",
        only_a=matching.only_a,
        only_b=matching.only_b,
        share=entries / max(1, min(a.size, b.size)),
        names=tuple(names),
    )


def _of_one_shape(a: Model, b: Model, pair: Pair, *, both: bool) -> tuple[Matrix | None, Matrix | None]:
    ours, theirs = a.values[pair.a.name], b.values[pair.b.name]
    if both and ours.shape == theirs.shape:  # rows are targets in both
        return ours, theirs
    return oriented(ours, theirs)


def cut(groups: Groups, weight: Weight, a: Matrix, b: Matrix) -> list[Link]:
    """Return a pair of matrices as links between the segments of their axes."""
    if not groups.wired:
        rows, columns = fixed_axis(len(a)), fixed_axis(a.shape[1])
    elif weight.name in groups.axes:
        rows, columns = groups.axes[weight.name]
    else:  # some of its units may be renumbered, and it is not known which
        return []
    return links_between((rows, columns), (rows, columns), a, b)


def links_between(axes_a: tuple[Axis, Axis], axes_b: tuple[Axis, Axis], a: Matrix, b: Matrix) -> list[Link]:
    """Return matrices of two models as links between the segments of their axes, named by those of B.

    Args:
        axes_a: Rows and columns of A, as many segments as there are of B.
        axes_b: Those of B; their groups may have fewer orbits.
        a: (targets, rest).
        b: The same of B.
    """
    shaped = by_sources(a, axes_a), by_sources(b, axes_b)
    if shaped[0] is None or shaped[1] is None:
        return []
    links = []
    for row_a, row_b in zip(axes_a[0], axes_b[0], strict=True):
        for column_a, column_b in zip(axes_a[1], axes_b[1], strict=True):
            ours = _between(shaped[0], row_a.places, column_a.places)
            theirs = _between(shaped[1], row_b.places, column_b.places)
            if ours.shape == theirs.shape:
                theirs = _in_one_order(ours, theirs)
            ours, theirs = _flat(ours), _flat(theirs)
            if np.any(ours) and np.any(theirs):
                links.append(Link(src=column_b.group, dst=row_b.group, a=ours, b=theirs))
    return links


def by_sources(values: Matrix, axes: tuple[Axis, Axis]) -> Matrix | None:
    """Return a matrix as (targets, sources, taps); None where its axes are not of its size."""
    rows, columns = (sum(segment.places.size for segment in axis) for axis in axes)
    if rows != len(values) or not columns or values.shape[1] % columns:
        return None
    return values.reshape(rows, columns, -1)


def _between(weights: Matrix, rows: Ints, columns: Ints) -> Matrix:
    """(orbits, units of each, orbits, units of each, taps) of the places on both axes."""
    return np.asarray(weights[rows[:, :, None, None], columns[None, None, :, :]])


def _in_one_order(ours: Matrix, theirs: Matrix) -> Matrix:
    """B with the units of each target in A's order: files number the gates of a cell one way or another."""
    members = ours.shape[1]
    if not 1 < members <= MEMBERS:
        return theirs
    a, b = (one.swapaxes(0, 1).reshape(members, -1) for one in (ours, theirs))
    products = a @ b.T
    order = linear_sum_assignment(-products)[1]
    gain = products[np.arange(members), order].sum() - np.trace(products)
    clear = gain > CLEARLY * np.linalg.norm(a) * np.linalg.norm(b)
    return theirs[:, order] if clear else theirs


def _flat(weights: Matrix) -> Matrix:
    """(orbits, orbits, weights of each pair)."""
    return np.ascontiguousarray(
        weights.transpose(0, 2, 1, 3, 4).reshape(weights.shape[0], weights.shape[2], -1)
    )
