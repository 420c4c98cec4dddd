"""Units that were cut out of a network: which of a larger network's units a smaller one may have.

Both have as many matrices, wired alike, or the larger one has some more in a row: layers that were cut out,
too, where a residual stream joins the others. Groups of the smaller one have fewer orbits. For each of its
orbits the likest of the larger one is sought, each at most once. What is compared then is the larger one with
nothing but those. They stay in the order of its file: where networks were trained independently, which are
chosen says nothing about the order in which the file stores them, so that the exact test holds as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from emergraph.analysis.comparison.aligned import by_sources, links_between
from emergraph.analysis.comparison.groups import FIXED, Axis, Ints
from emergraph.analysis.comparison.model import Model, balanced
from emergraph.analysis.comparison.unitmatching import Link, UnitMatching, match_units
from emergraph.analysis.comparison.weights import Matrix, Weight

Axes = tuple[Axis, Axis]
Pairs = list[tuple[str, str, Axes, Axes]]
WAYS = 32
"""Places at which layers may have been cut out, up to which each is tried."""


def on_common_units(a: Model, b: Model, *, seed: int) -> tuple[Model, Model, tuple[str, str]]:
    """Return two models with those units of the larger one that the smaller one may have.

    Args:
        a: The first.
        b: The second.
        seed: Of the search.

    Returns:
        Both models, which of them was the larger one (a or b) and how many units the other lacks. Where units
        cannot have been cut out, both as they were, and twice nothing.
    """
    if (smaller := without_cut_units(a, b, seed=seed)) is not None:
        return smaller[0], b, ("a", smaller[1])
    if (smaller := without_cut_units(b, a, seed=seed)) is not None:
        return a, smaller[0], ("b", smaller[1])
    return a, b, ("", "")


def without_cut_units(large: Model, small: Model, *, seed: int) -> tuple[Model, str] | None:
    """Return a model with those of its units that a smaller one may have, and how many it lacks in words.

    Args:
        large: The model that units may have been cut out of.
        small: The one that may be what is left.
        seed: Of the search.

    Returns:
        None where the smaller one is no such model, whatever its weights are.
    """
    ways = [pairs for left in _left(large, small) if (pairs := _wired_alike(large, left, small)) is not None]
    if not ways or len(ways) > WAYS:
        return None
    matches = [_match(large, small, pairs, seed=seed) for pairs in ways]
    best = max(range(len(ways)), key=lambda way: matches[way].similarity_after)
    pairs, n_left = ways[best], len(large.weights) - len(small.weights)
    kept = {group: np.sort(orbits) for group, orbits in matches[best].permutations.items()}
    values = {
        theirs: _kept_of(large.values[ours], axes_a, axes_b, kept) for ours, theirs, axes_a, axes_b in pairs
    }
    weights = tuple(replace(weight, sha256=None) for weight in small.weights)
    return replace(large, values=values, weights=weights, groups=small.groups), _told(pairs, n_left)


def _left(large: Model, small: Model) -> Iterator[Sequence[Weight]]:
    """The matrices of the larger model, or those that are left where some in a row were cut out."""
    n = len(small.weights)
    gone = len(large.weights) - n
    if gone >= 0:
        for place in range(n + 1 if gone else 1):
            yield (*large.weights[:place], *large.weights[place + gone :])


def _match(large: Model, small: Model, pairs: Pairs, *, seed: int) -> UnitMatching:
    links: list[Link] = []
    for ours, theirs, axes_a, axes_b in pairs:
        links += links_between(axes_a, axes_b, large.values[ours], small.values[theirs])
    scaled = [Link(src=one.src, dst=one.dst, a=balanced(one.a), b=balanced(one.b)) for one in links]
    groups = tuple(dict.fromkeys(name for one in links for name in (one.src, one.dst) if name != FIXED))
    return match_units(scaled, groups, seed=seed, restarts=1)


def _wired_alike(large: Model, left: Sequence[Weight], small: Model) -> Pairs | None:
    """The matrices of both, in their order, if groups correspond and some of the small one's are smaller."""
    if not (large.groups.wired and small.groups.wired):
        return None
    pairs: Pairs = []
    smaller = False
    partner: dict[str, str] = {}
    for ours, theirs in zip(left, small.weights, strict=True):
        axes_a, axes_b = large.groups.axes.get(ours.name), small.groups.axes.get(theirs.name)
        if axes_a is None or axes_b is None:
            return None
        a, b = by_sources(large.values[ours.name], axes_a), by_sources(small.values[theirs.name], axes_b)
        if a is None or b is None or a.shape[2] != b.shape[2]:
            return None
        for sides in zip(axes_a, axes_b, strict=True):
            if len(sides[0]) != len(sides[1]):
                return None
            for one, other in zip(*sides, strict=True):
                known = partner.setdefault(other.group, one.group)
                width_a, width_b = one.places.shape[1], other.places.shape[1]
                fewer = len(one.places) - len(other.places)
                fixed = FIXED in (one.group, other.group)
                if known != one.group or width_a != width_b or fewer < 0 or (fixed and fewer):
                    return None
                smaller = smaller or fewer > 0
        pairs.append((ours.name, theirs.name, axes_a, axes_b))
    return pairs if smaller and len(set(partner.values())) == len(partner) else None


def _kept_of(values: Matrix, axes_a: Axes, axes_b: Axes, kept: Mapping[str, Ints]) -> Matrix:
    """A matrix of the larger model laid out as that of the smaller one."""
    whole = by_sources(values, axes_a)
    assert whole is not None  # noqa: S101 - or they were not wired alike
    sizes = [sum(segment.places.size for segment in axis) for axis in axes_b]
    found = np.zeros((*sizes, whole.shape[2]))
    sides = [
        [
            (one.places[kept[other.group]] if other.group in kept else one.places, other.places)
            for one, other in zip(*both, strict=True)
        ]
        for both in zip(axes_a, axes_b, strict=True)
    ]
    for rows_a, rows_b in sides[0]:
        for columns_a, columns_b in sides[1]:
            part = whole[np.ix_(rows_a.ravel(), columns_a.ravel())]
            found[np.ix_(rows_b.ravel(), columns_b.ravel())] = part
    return found.reshape(len(found), -1)


def _told(pairs: Pairs, n_left: int) -> str:
    sizes = {
        other.group: (len(one.places), len(other.places))
        for _, _, axes_a, axes_b in pairs
        for both in zip(axes_a, axes_b, strict=True)
        for one, other in zip(*both, strict=True)
        if other.group != FIXED
    }
    cut = {group: before - after for group, (before, after) in sizes.items() if before > after}
    whole = sum(before for before, _ in sizes.values())
    told = f"{sum(cut.values())} of {whole} hidden units, in {len(cut)} of {len(sizes)} groups, are cut out"
    return f"{told}, and {n_left} matrices" if n_left else told
