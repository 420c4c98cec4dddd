"""Which weight tensor of one graph stands for which of another.

By content, then by name, then by correlation of values, then by position: names differ between encodings of
one network, values between trainings, and both between a model and its quantized form.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.optimize import linear_sum_assignment

from emergraph.analysis.comparison.deltas import finite_values
from emergraph.analysis.comparison.weights import Matrix, Weight, size_of

ALIKE = 0.5
"""Correlation above which two tensors are taken for the same one."""
SAMPLE = 4096
"""Entries that a correlation is taken over."""
Values = Callable[[Weight], Matrix | None]


class MatchedBy(StrEnum):
    """How a pair was found."""

    CONTENT = "content"
    """The bytes are the same."""
    REORDERED = "reordered content"
    """The numbers are the same, in another order."""
    NAME = "name"
    VALUES = "values"
    """Their correlation is the largest there is, and above 0.5."""
    POSITION = "position"
    """Both are the n-th of their shape."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A tensor of A and the one of B that stands for it."""

    a: Weight
    b: Weight
    by: MatchedBy


@dataclass(frozen=True, kw_only=True)
class Matching:
    """All pairs, and what is left on either side."""

    pairs: tuple[Pair, ...]
    only_a: tuple[Weight, ...]
    only_b: tuple[Weight, ...]


def match_weights(
    weights_a: Sequence[Weight],
    weights_b: Sequence[Weight],
    values_a: Values,
    values_b: Values,
    *,
    names_first: bool = True,
) -> Matching:
    """Match the weight tensors of two graphs.

    Args:
        weights_a: Of A.
        weights_b: Of B.
        values_a: Gives the numbers of a tensor of A.
        values_b: Gives those of B.
        names_first: Whether tensors of one name and shape are taken for the same before those that correlate:
            not where a layer may have been left out, and the names of those behind it moved up.
    """
    pairs: list[Pair] = []
    left, right = list(weights_a), list(weights_b)

    def take(found: Sequence[tuple[Weight, Weight]], by: MatchedBy) -> None:
        for a, b in found:
            pairs.append(Pair(a=a, b=b, by=by))
            left.remove(a)
            right.remove(b)

    take(_by_key(left, right, lambda w: (w.sha256, w.shape) if w.sha256 else None), MatchedBy.CONTENT)
    if names_first:
        take(_by_key(left, right, _name_and_size), MatchedBy.NAME)
    take(_by_digest(left, right, values_a, values_b), MatchedBy.REORDERED)
    take(_by_values(left, right, values_a, values_b), MatchedBy.VALUES)
    take(_by_key(left, right, _name_and_size), MatchedBy.NAME)
    take(_by_position(left, right), MatchedBy.POSITION)
    order = {id(weight): number for number, weight in enumerate(weights_a)}
    return Matching(
        pairs=tuple(sorted(pairs, key=lambda pair: order[id(pair.a)])),
        only_a=tuple(left),
        only_b=tuple(right),
    )


def _name_and_size(weight: Weight) -> object:
    return weight.name, size_of(weight)


def _by_key(
    left: Sequence[Weight], right: Sequence[Weight], key: Callable[[Weight], object]
) -> list[tuple[Weight, Weight]]:
    """Pairs with the same key, in order; None is not a key."""
    there: defaultdict[object, list[Weight]] = defaultdict(list)
    for weight in right:
        there[key(weight)].append(weight)
    return [(a, there[key(a)].pop(0)) for a in left if key(a) is not None and there[key(a)]]


def _by_digest(
    left: Sequence[Weight], right: Sequence[Weight], values_a: Values, values_b: Values
) -> list[tuple[Weight, Weight]]:
    """Pairs whose numbers are the same when sorted, such as gates in another order."""
    digests = {}
    for weights, values in ((left, values_a), (right, values_b)):
        sizes = {w.n_params for w in (right if weights is left else left)}
        for weight in weights:
            found = values(weight) if weight.n_params in sizes and weight.is_float else None
            digests[id(weight)] = None if found is None else digest(found)
    return _by_key(left, right, lambda w: digests[id(w)])


def digest(values: Matrix) -> str:
    """Return a hash of the numbers in any order."""
    return hashlib.sha256(np.sort(values, axis=None).data).hexdigest()


def _by_values(
    left: Sequence[Weight], right: Sequence[Weight], values_a: Values, values_b: Values
) -> list[tuple[Weight, Weight]]:
    """Within each shape, the assignment with the largest correlations; those above 0.5."""
    found = []
    for size in dict.fromkeys(map(size_of, left)):
        ours = [w for w in left if size_of(w) == size]
        theirs = [w for w in right if size_of(w) == size]
        if not theirs or not size:
            continue
        sketches_a = [_sketches(values_a(w)) for w in ours]
        sketches_b = [_sketches(values_b(w)) for w in theirs]
        score = np.array([[_likeness(a, b) for b in sketches_b] for a in sketches_a])
        rows, columns = linear_sum_assignment(-score)
        found += [(ours[i], theirs[j]) for i, j in zip(rows, columns, strict=True) if score[i, j] > ALIKE]
    return found


def _sketches(values: Matrix | None) -> list[Matrix]:
    """Centred samples of a matrix and of its transpose, of unit length."""
    if values is None:
        return []
    forms = [values, values.T] if min(values.shape) > 1 else [values]
    sketches = []
    for form in forms:
        flat = finite_values(form.reshape(-1))
        step = max(1, flat.size // SAMPLE)
        sample = flat[::step] - flat[::step].mean()
        norm = float(np.linalg.norm(sample))
        sketches.append(sample / norm if norm else sample)
    return sketches


def _likeness(a: Sequence[Matrix], b: Sequence[Matrix]) -> float:
    """Largest correlation over orientations."""
    return max((float(x @ y) for x in a for y in b[:1] if x.size == y.size), default=0.0)


def _by_position(left: Sequence[Weight], right: Sequence[Weight]) -> list[tuple[Weight, Weight]]:
    """The n-th of each shape and role with the n-th, where both sides have as many."""
    found = []
    for key in dict.fromkeys((size_of(w), w.role) for w in left):
        ours = [w for w in left if (size_of(w), w.role) == key]
        theirs = [w for w in right if (size_of(w), w.role) == key]
        if len(ours) == len(theirs):
            found += list(zip(ours, theirs, strict=True))
    return found
