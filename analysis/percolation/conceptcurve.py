"""The curve of several disjoint classes of concepts together, exact at every merge of any of them.

Classes are parts of one graph, so that their number costs nothing: everything is an array over all pairs, but
for one union-find step per merge.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.forest import Merges, find_merges, join_components
from emergraph.analysis.percolation.predictions import bipartite_giants

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_BITS = 32
_ENTITY = 1 << _BITS
"""An entity in the packed size of a component; a property is 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassPairs:
    """The pairs of all classes, in the order in which they were first seen."""

    n_entities: Counts
    """(n_classes,)"""
    n_properties: Counts
    """(n_classes,)"""
    of: Counts
    """(n_pairs,) class of each pair; every class has one."""
    entity: Counts
    """(n_pairs,) entities of a class are numbered from 0."""
    prop: Counts
    """(n_pairs,) and so are its properties."""

    @property
    def n_classes(self) -> int:
        """Classes."""
        return len(self.n_entities)

    @property
    def n_possible(self) -> Counts:
        """(n_classes,) pairs that could be."""
        return self.n_entities * self.n_properties

    @property
    def n_pairs(self) -> Counts:
        """(n_classes,) distinct pairs that were seen."""
        return np.bincount(self.of, minlength=self.n_classes)

    @property
    def thresholds(self) -> Floats:
        """(n_classes,) pairs at which random pairs percolate, `sqrt(|E||K|)` (arXiv 2408.12578)."""
        return np.sqrt(self.n_entities.astype(np.float64) * self.n_properties)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassStates:
    """Each class when all pairs are there: (n_classes,) arrays."""

    connected: Counts
    giant_entities: Counts
    giant_properties: Counts


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptCurve:
    """Sums over classes after each merge; entry 0 is the state before the first pair."""

    pairs: Counts
    """(n_points,) distinct pairs seen; ascending."""
    connected: Counts
    """(n_points,) pairs, seen or not, whose ends lie in one component of their class."""
    giant_entities: Counts
    """(n_points,) entities in the largest component of their class."""
    giant_properties: Counts
    susceptibility: Floats
    """(n_points,) sum over classes of squared component sizes but the largest, within the units that hang
    together in the end, over the number of those units."""
    ends: ClassStates

    @property
    def threshold(self) -> int:
        """Pairs at the peak of the susceptibility; the first of equal peaks."""
        return int(self.pairs[int(np.argmax(self.susceptibility))])

    def at(self, pairs: Counts) -> Counts:
        """Entries that hold when so many pairs have been seen."""
        return np.asarray(np.searchsorted(self.pairs, pairs, side="right") - 1)


def concept_curve(classes: ClassPairs) -> ConceptCurve:
    """Follow the components of all classes as their pairs are seen.

    Complexity: array passes over the pairs, and one union-find step per merge.

    Example:
        >>> one = ClassPairs(
        ...     n_entities=np.array([2]), n_properties=np.array([2]), of=np.array([0, 0, 0]),
        ...     entity=np.array([0, 1, 1]), prop=np.array([0, 1, 0]),
        ... )
        >>> concept_curve(one).connected.tolist()
        [0, 1, 2, 4]
    """
    first_entity = np.cumsum(classes.n_entities) - classes.n_entities
    n_entities = int(classes.n_entities.sum())
    first_property = n_entities + np.cumsum(classes.n_properties) - classes.n_properties
    n = n_entities + int(classes.n_properties.sum())
    merges = find_merges(
        classes.entity + first_entity[classes.of],
        classes.prop + first_property[classes.of],
        np.arange(len(classes.of)),
        np.arange(n),
        np.ones(n, dtype=np.int64),
    )
    of_unit = np.concatenate(
        [np.repeat(np.arange(classes.n_classes), n) for n in (classes.n_entities, classes.n_properties)]
    )
    grown, roots = _joined(merges, n_entities)
    in_core = _cores(roots, of_unit)
    n_core = int(in_core[roots].sum())
    within = _Within(of_unit[merges.a])
    core = in_core[roots[merges.a]]
    giant = within.last_record(grown.sizes)
    core_giant = within.running_max(np.where(core, grown.sizes, 0))
    giant_entities, giant_properties = grown.entities[giant], grown.properties[giant]
    changes = np.stack(
        [
            grown.gained,
            within.changes(giant_entities, start=1),
            within.changes(giant_properties, start=0),
            np.where(core, grown.squares, 0) - within.changes(core_giant**2, start=1),
        ]
    )
    sums = np.cumsum(changes, axis=1)
    starts = np.array([0, classes.n_classes, 0, n_core - classes.n_classes])
    sums = np.concatenate([starts[:, None], sums + starts[:, None]], axis=1)
    return ConceptCurve(
        pairs=np.concatenate([[0], merges.position + 1]).astype(np.int64),
        connected=sums[0],
        giant_entities=sums[1],
        giant_properties=sums[2],
        susceptibility=sums[3] / n_core,
        ends=ClassStates(
            connected=within.totals(grown.gained),
            giant_entities=within.last(giant_entities),
            giant_properties=within.last(giant_properties),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Grown:
    """What each merge makes."""

    entities: Counts
    properties: Counts
    gained: Counts
    """Pairs that come within one component."""
    squares: Counts
    """What is added to the sum of squared sizes."""

    @property
    def sizes(self) -> Counts:
        return self.entities + self.properties


def _joined(merges: Merges, n_entities: int) -> tuple[_Grown, Counts]:
    """What each merge makes, and the final root of each unit."""
    entities = np.arange(len(merges.sizes)) < n_entities
    joined, made, roots = join_components(merges, np.where(entities, _ENTITY, 1))
    kept = made - joined
    e, k = joined >> _BITS, joined & (_ENTITY - 1)
    other_e, other_k = kept >> _BITS, kept & (_ENTITY - 1)
    return _Grown(
        e + other_e, k + other_k, e * other_k + other_e * k, 2 * (e + k) * (other_e + other_k)
    ), roots


def _cores(roots: Counts, of_unit: Counts) -> NDArray[np.bool_]:
    """(n_units,) whether a root is that of the largest component of its class in the end."""
    sizes = np.bincount(roots, minlength=len(roots))
    candidates = np.flatnonzero(sizes)
    ordered = candidates[np.lexsort((candidates, -sizes[candidates], of_unit[candidates]))]
    _, first = np.unique(of_unit[ordered], return_index=True)
    found = np.zeros(len(roots), dtype=bool)
    found[ordered[first]] = True
    return found


class _Within:
    """Sequences within classes, of values in the order of all; every class has one value."""

    def __init__(self, of: Counts) -> None:
        self._order = np.argsort(of, kind="stable")
        self._of = of[self._order]
        self._first = np.flatnonzero(np.diff(self._of, prepend=-1))

    def running_max(self, values: Counts) -> Counts:
        """The largest value so far, at least 1."""
        span = int(values.max()) + 1
        raised = np.maximum.accumulate(values[self._order] + self._of * span) - self._of * span
        return self._placed(np.maximum(raised, 1))

    def last_record(self, values: Counts) -> Counts:
        """Where the last value was that was larger than all before it; the first of each class is."""
        largest = self.running_max(values)[self._order]
        record = np.diff(largest, prepend=0) != 0
        record[self._first] = True
        found = np.maximum.accumulate(np.where(record, np.arange(len(record)), 0))
        return self._placed(self._order[found])

    def changes(self, values: Counts, *, start: int) -> Counts:
        """What each value is more than the one before it, the first more than `start`."""
        ordered = values[self._order]
        steps = np.diff(ordered, prepend=start)
        steps[self._first] = ordered[self._first] - start
        return self._placed(steps)

    def totals(self, values: Counts) -> Counts:
        """(n_classes,) sums."""
        return np.asarray(np.add.reduceat(values[self._order], self._first))

    def last(self, values: Counts) -> Counts:
        """(n_classes,) last values."""
        ends = np.concatenate([self._first[1:], [len(self._order)]]) - 1
        return np.asarray(values[self._order[ends]])

    def _placed(self, ordered: Counts) -> Counts:
        found = np.empty_like(ordered)
        found[self._order] = ordered
        return found


def random_pairs(classes: ClassPairs, rng: "np.random.Generator") -> ClassPairs:
    """As many random distinct pairs for each class, seen at the same places."""
    possible = classes.n_possible
    start = np.cumsum(possible) - possible  # a pair of a class is a number of its own
    codes = np.empty(len(classes.of), dtype=np.int64)
    dense = (2 * classes.n_pairs > possible)[classes.of]
    codes[dense] = _drawn_from_all(classes, dense, start, rng)
    codes[~dense] = _drawn_until_distinct(possible[classes.of[~dense]], start[classes.of[~dense]], rng)
    within = codes - start[classes.of]
    n_properties = classes.n_properties[classes.of]
    return replace(classes, entity=within // n_properties, prop=within % n_properties)


def _drawn_from_all(
    classes: ClassPairs, dense: NDArray[np.bool_], start: Counts, rng: "np.random.Generator"
) -> Counts:
    """Draw where most pairs are wanted: all of them in random order, as many of the first as are."""
    chosen = np.unique(classes.of[dense])
    possible = classes.n_possible[chosen]
    of_code = np.repeat(np.arange(len(chosen)), possible)
    first = np.cumsum(possible) - possible
    codes = np.arange(len(of_code)) - first[of_code] + start[chosen][of_code]
    shuffled = codes[np.lexsort((rng.random(len(codes)), of_code))]
    wanted = np.arange(len(of_code)) - first[of_code] < classes.n_pairs[chosen][of_code]
    by_class = np.argsort(classes.of[dense], kind="stable")
    found = np.empty(len(by_class), dtype=np.int64)
    found[by_class] = shuffled[wanted]
    return found


def _drawn_until_distinct(possible: Counts, start: Counts, rng: "np.random.Generator") -> Counts:
    """Draw where at most half of the pairs are wanted; those that came before are drawn again.

    All values play the same part, so that all orders of distinct values are equally likely.
    """
    codes = np.empty(len(possible), dtype=np.int64)
    places = np.arange(len(possible))
    settled = np.empty(0, dtype=np.int64)
    while len(places):
        drawn = start[places] + rng.integers(0, possible[places])
        fresh, first = np.unique(drawn, return_index=True)
        if len(settled):
            found = np.minimum(np.searchsorted(settled, fresh), len(settled) - 1)
            free = settled[found] != fresh
            fresh, first = fresh[free], first[free]
        codes[places[first]] = fresh
        settled = np.sort(np.concatenate([settled, fresh]), kind="stable")  # merges two that are sorted
        places = np.delete(places, first)
    return codes


def shuffled_pairs(classes: ClassPairs, rng: "np.random.Generator") -> ClassPairs:
    """The same pairs, those of each class in random order."""
    places = np.argsort(classes.of, kind="stable")
    drawn = np.lexsort((rng.random(len(places)), classes.of))
    entity, prop = np.empty_like(classes.entity), np.empty_like(classes.prop)
    entity[places], prop[places] = classes.entity[drawn], classes.prop[drawn]
    return replace(classes, entity=entity, prop=prop)


def theory_at(classes: ClassPairs, pairs: Counts) -> tuple[Floats, Floats, Floats]:
    """What random pairs would give: entities and properties in giant components, and connected pairs.

    Solves the equations of `bipartite_giant` for every class at the number of its pairs, and adds up:
    `|E_c| S_E`, `|K_c| S_K` and `|E_c||K_c| S_E S_K`. Classes of one size with as many pairs are solved once.

    Returns:
        Three (n_points,) arrays of expected numbers.
    """
    sums = np.zeros((3, len(pairs)))
    seen = np.zeros(classes.n_classes, dtype=np.int64)
    done = 0
    for i, upto in enumerate(pairs.tolist()):
        seen += np.bincount(classes.of[done:upto], minlength=classes.n_classes)
        done = upto
        states, counts = np.unique(
            np.stack([classes.n_entities, classes.n_properties, seen]), axis=1, return_counts=True
        )
        n_e, n_k, n_seen = states
        side_e, side_k = bipartite_giants(n_e, n_k, n_seen)
        expected_e, expected_k = n_e * side_e, n_k * side_k
        sums[:, i] = (np.stack([expected_e, expected_k, expected_e * expected_k]) * counts).sum(axis=1)
    return sums[0], sums[1], sums[2]
