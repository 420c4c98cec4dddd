"""Exactly how many items go at each level, and which: the ones with the lowest scores, ties by position.

Few items are sorted. Of very many, counts of the digits of their scores say at which score each level ends,
and where among equal scores; a last pass compares. So no order is made, and scores are not held together.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import Levels
from emergraph.analysis.edgesets.gradual import GRADUAL_EDGES
from emergraph.analysis.edgesets.ordering import ordered_bits

Codes = NDArray[np.unsignedinteger]
Counts = NDArray[np.int64]

_DIGIT = 16
_VALUES = 1 << _DIGIT
_SLICE = 1 << 20
_NEVER = np.iinfo(np.int64).max
_TOGETHER = 1 << 22
ABSENT = 0
"""The code of what is no item: it is gone from the first level on, and counts nowhere."""


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
        return _of_very_many(scores, levels)
    order = _order(scores, groups)
    ordered_groups = groups[order]
    changes = np.flatnonzero(np.diff(ordered_groups)) + 1
    starts = [0, *changes.tolist()] if len(order) else []
    gone = np.full(len(scores), len(levels), dtype=np.uint8)
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        counts = _counts(levels, int(stop - start))
        for index in reversed(range(len(levels))):
            gone[order[start : start + counts[index]]] = index
    return gone


def _counts(levels: Sequence[float], n: int) -> list[int]:
    return [round(level * n) for level in levels]


def _order(scores: NDArray[np.floating], groups: NDArray[np.int64]) -> NDArray[np.intp]:
    if len(groups) and (groups == groups[0]).all():
        return np.argsort(scores, kind="stable")
    return np.lexsort((scores, groups))


def _of_very_many(scores: NDArray[np.floating], levels: Sequence[float]) -> Levels:
    """The same for very many items in one group."""
    gone = np.empty(len(scores), dtype=np.uint8)

    def parts(owners: Collection[int] | None = None) -> Iterator[CodedPart]:
        for owner, first in enumerate(range(0, len(scores), _SLICE)):
            if owners is None or owner in owners:
                own = slice(first, first + _SLICE)
                yield CodedPart(owner, ordered_bits(-scores[own]), partial(np.add, first), gone[own])

    mark_levels(parts, levels, n_items=len(scores), n_codes=len(scores))
    return gone


@dataclass(frozen=True, eq=False)
class CodedPart:
    """Some scores as integers, and where what is found out about them is written."""

    owner: int
    """Parts of a lower number hold only items that come before; one number may have several parts."""
    codes: Codes
    """(n,) that ascend with the scores, those of NaN last; `ABSENT` for what is no item."""
    positions: Callable[[Counts], Counts]
    """Gives the order among equal scores for some of the n."""
    gone: Levels
    """(n,) to be written."""

    def high(self) -> NDArray[np.uint16]:
        """(n,) highest digits."""
        return _high(self.codes)


Parts = Callable[[Collection[int] | None], Iterable[CodedPart]]
"""Gives all parts, or those of some owners, as often as it is asked; codes of one type."""


def magnitude_codes(weights: NDArray[np.floating], *, full: bool) -> Codes:
    """Integers that ascend with the magnitudes of weights.

    Args:
        weights: float32 or float64.
        full: Whether a zero is an item, too, and not `ABSENT`.
    """
    narrow = weights.dtype == np.float32
    codes: Codes = np.left_shift(weights.view(np.uint32 if narrow else np.uint64), 1)  # without the sign
    infinite = 0x7F800000 if narrow else 0x7FF << 52
    np.minimum(codes, codes.dtype.type(2 * infinite + 2), out=codes)  # all NaN are one
    return np.maximum(codes, codes.dtype.type(1), out=codes) if full else codes


def mark_levels(parts: Parts, levels: Sequence[float], *, n_items: int, n_codes: int) -> None:
    """Write the first level at which each item of one group is removed; see `removal_levels`.

    Args:
        parts: The scores.
        levels: Ascending, in [0, 1).
        n_items: How many of them are not `ABSENT`.
        n_codes: All.
    """
    ranks = np.array(_counts(levels, n_items), dtype=np.int64) + (n_codes - n_items)
    asked = ranks[ranks > 0]
    cuts = _Cuts.find(parts, asked) if asked.size else None
    for part in parts(None):
        part.gone[...] = len(ranks) - len(asked)
        if cuts is not None:
            cuts.mark(part)


def _high(codes: Codes) -> NDArray[np.uint16]:
    return (codes >> codes.dtype.type(8 * codes.itemsize - _DIGIT)).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class _Cuts:
    """For each level the code of the last item that goes, and the position from which on equal ones stay."""

    codes: Codes
    """(n_levels,) ascending."""
    ends: Counts
    """(n_levels,)."""

    @classmethod
    def find(cls, parts: Parts, ranks: Counts) -> "_Cuts":
        """Find them for how many go at each level, zero excluded."""
        prefixes, left = np.zeros(len(ranks), np.uint64), ranks.copy()
        dtype = next(iter(parts(None))).codes.dtype
        width = 8 * dtype.itemsize
        equal = np.zeros(len(ranks), np.int64)
        for shift in range(width - _DIGIT, -1, -_DIGIT):
            known = np.unique(prefixes)
            counts = _digits(parts, known, shift, width)
            for k, prefix in enumerate(prefixes):
                below = np.cumsum(counts[int(np.searchsorted(known, prefix))])
                digit = int(np.searchsorted(below, left[k]))
                before = int(below[digit - 1]) if digit else 0
                equal[k] = below[digit] - before
                left[k] -= before
                prefixes[k] = (int(prefix) << _DIGIT) | digit
        codes: Codes = prefixes.astype(dtype)
        ends = np.full(len(ranks), _NEVER)
        split = np.flatnonzero(left < equal)
        ends[split] = _ends(parts, codes[split], left[split])
        return cls(codes, ends)

    def mark(self, part: CodedPart) -> None:
        """Add, to what is written for each score, the number of levels at which it stays."""
        high = part.high()
        below = np.searchsorted(_high(self.codes), np.arange(_VALUES)).astype(np.uint8)
        part.gone[...] += below[high]
        at = np.flatnonzero(_digits_of(self.codes)[high])
        near = part.codes[at]
        part.gone[at] += (np.searchsorted(self.codes, near) - below[high[at]]).astype(np.uint8)
        for code in np.unique(self.codes[self.ends < _NEVER]):
            tied = at[near == code]
            if tied.size:
                ends = self.ends[self.codes == code]
                part.gone[tied] += np.searchsorted(ends, part.positions(tied), side="right").astype(np.uint8)


def _digits_of(codes: Codes) -> NDArray[np.bool_]:
    """(65536,) which highest digits codes have."""
    found = np.zeros(_VALUES, np.bool_)
    found[_high(codes)] = True
    return found


def _digits(parts: Parts, prefixes: NDArray[np.uint64], shift: int, width: int) -> Counts:
    """(n_prefixes, 65536) how many codes with each beginning have each next digit."""
    counts = np.zeros(len(prefixes) * _VALUES, np.int64)
    close = np.zeros(_VALUES, np.bool_)
    if shift < width - _DIGIT:
        close[(prefixes >> np.uint64(width - shift - 2 * _DIGIT)).astype(np.int64)] = True
    waiting: list[NDArray[np.int64]] = []
    for part in parts(None):
        if shift == width - _DIGIT:
            counts += np.bincount(part.high(), minlength=_VALUES)
            continue
        near = part.codes[close[part.high()]].astype(np.uint64) >> np.uint64(shift)
        begin = near >> np.uint64(_DIGIT)
        which = np.minimum(np.searchsorted(prefixes, begin), len(prefixes) - 1)
        found = prefixes[which] == begin
        digit = (near[found] & np.uint64(_VALUES - 1)).astype(np.int64)
        waiting.append(which[found] * _VALUES + digit)
        if sum(map(len, waiting)) > _TOGETHER:
            counts += np.bincount(np.concatenate(waiting), minlength=len(counts))
            waiting = []
    if waiting:
        counts += np.bincount(np.concatenate(waiting), minlength=len(counts))
    return counts.reshape(len(prefixes), _VALUES)


def _ends(parts: Parts, codes: Codes, n_gone: Counts) -> Counts:
    """(n,) position behind the last of equal items that goes, where `n_gone` of those with a code go."""
    if not len(codes):
        return np.empty(0, np.int64)
    distinct = np.unique(codes)
    held: dict[int, Counts] = {}
    for part in parts(None):
        own = held.setdefault(part.owner, np.zeros(len(distinct), np.int64))
        _, which = _equal(part, distinct)
        own += np.bincount(which, minlength=len(distinct))
    owners = sorted(held)
    totals = np.cumsum([held[owner] for owner in owners], axis=0)
    column = np.searchsorted(distinct, codes)
    places = [int(np.searchsorted(totals[:, c], n)) for c, n in zip(column, n_gone, strict=True)]
    wanted = set(zip(column.tolist(), places, strict=True))
    tied: dict[tuple[int, int], list[Counts]] = {}
    for part in parts({owners[place] for place in places}):
        at, which = _equal(part, distinct)
        for c, place in wanted:
            if owners[place] == part.owner:
                tied.setdefault((c, place), []).append(part.positions(at[which == c]))
    ends = []
    for c, place, n in zip(column.tolist(), places, n_gone.tolist(), strict=True):
        before = int(totals[place - 1, c]) if place else 0
        ends.append(int(np.sort(np.concatenate(tied[c, place]))[n - before - 1]) + 1)
    return np.array(ends, dtype=np.int64)


def _equal(part: CodedPart, distinct: Codes) -> tuple[Counts, Counts]:
    """Where codes are that equal one of some, and which one."""
    at = np.flatnonzero(_digits_of(distinct)[part.high()])
    near = part.codes[at]
    which = np.minimum(np.searchsorted(distinct, near), len(distinct) - 1)
    found = distinct[which] == near
    return at[found], which[found]
