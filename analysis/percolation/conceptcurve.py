"""The curve of several disjoint classes of concepts together, exact at every merge of any of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.percolation.paircurve import pair_curve
from emergraph.analysis.percolation.predictions import bipartite_giant, bipartite_threshold

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassPairs:
    """The pairs of one class, its entities and properties numbered from 0."""

    name: str
    n_entities: int
    n_properties: int
    entity: Counts
    """(n_pairs,) in order of first sight."""
    prop: Counts
    place: Counts
    """(n_pairs,) position of each among the pairs of all classes, from 0; ascending."""

    @property
    def n_pairs(self) -> int:
        """Distinct pairs that were seen."""
        return len(self.entity)

    @property
    def threshold(self) -> float:
        """Pairs at which random pairs percolate, `sqrt(|E||K|)` of the class (arXiv 2408.12578)."""
        return bipartite_threshold(self.n_entities, self.n_properties)

    def seen(self, pairs: Counts) -> Counts:
        """How many of the first pairs of all classes are of this class."""
        return np.asarray(np.searchsorted(self.place, pairs))


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

    @property
    def threshold(self) -> int:
        """Pairs at the peak of the susceptibility; the first of equal peaks."""
        return int(self.pairs[int(np.argmax(self.susceptibility))])

    def at(self, pairs: Counts) -> Counts:
        """Entries that hold when so many pairs have been seen."""
        return np.asarray(np.searchsorted(self.pairs, pairs, side="right") - 1)


def concept_curve(classes: list[ClassPairs]) -> ConceptCurve:
    """Follow the components of all classes as their pairs are seen.

    Example:
        >>> one = ClassPairs(
        ...     name="all", n_entities=2, n_properties=2, entity=np.array([0, 1, 1]),
        ...     prop=np.array([0, 1, 0]), place=np.arange(3),
        ... )
        >>> concept_curve([one]).connected.tolist()
        [0, 1, 2, 4]
    """
    starts = np.zeros(4)
    changes: list[Floats] = []
    places: list[Counts] = []
    n_core = 0
    for own in classes:
        curve = pair_curve(own.entity, own.prop, n_entities=own.n_entities, n_properties=own.n_properties)
        merged = curve.merged
        others = merged.core_squares - merged.core_giant.astype(np.float64) ** 2
        states = np.stack([curve.connected, curve.giant_entities, curve.giant_properties, others])
        starts += states[:, 0]
        changes.append(np.diff(states, axis=1))
        places.append(own.place[merged.edges[1:] - 1] + 1)
        n_core += merged.n_core
    at = np.concatenate(places)
    order = np.argsort(at, kind="stable")
    steps = np.concatenate(changes, axis=1)[:, order]
    sums = np.cumsum(np.concatenate([starts[:, None], steps], axis=1), axis=1)
    counts = sums[:3].round().astype(np.int64)
    return ConceptCurve(
        pairs=np.concatenate([[0], at[order]]).astype(np.int64),
        connected=counts[0],
        giant_entities=counts[1],
        giant_properties=counts[2],
        susceptibility=np.maximum(sums[3], 0.0) / n_core,
    )


def random_pairs(classes: list[ClassPairs], rng: np.random.Generator) -> list[ClassPairs]:
    """As many random distinct pairs for each class, seen at the same places."""
    drawn = []
    for own in classes:
        chosen = rng.choice(own.n_entities * own.n_properties, own.n_pairs, replace=False)
        drawn.append(_with(own, chosen // own.n_properties, chosen % own.n_properties))
    return drawn


def shuffled_pairs(classes: list[ClassPairs], rng: np.random.Generator) -> list[ClassPairs]:
    """The same pairs, those of each class in random order."""
    drawn = []
    for own in classes:
        order = rng.permutation(own.n_pairs)
        drawn.append(_with(own, own.entity[order], own.prop[order]))
    return drawn


def _with(own: ClassPairs, entity: Counts, prop: Counts) -> ClassPairs:
    return ClassPairs(
        name=own.name,
        n_entities=own.n_entities,
        n_properties=own.n_properties,
        entity=entity,
        prop=prop,
        place=own.place,
    )


def theory_at(classes: list[ClassPairs], pairs: Counts) -> tuple[Floats, Floats, Floats]:
    """What random pairs would give: entities and properties in giant components, and connected pairs.

    Solves the equations of `bipartite_giant` for every class at the number of its pairs, and adds up:
    `|E_c| S_E`, `|K_c| S_K` and `|E_c||K_c| S_E S_K`.

    Returns:
        Three (n_points,) arrays of expected numbers.
    """
    sums = np.zeros((3, len(pairs)))
    for own in classes:
        n_e, n_k = own.n_entities, own.n_properties
        shares = np.array([bipartite_giant(n_e, n_k, float(seen)) for seen in own.seen(pairs).tolist()])
        sums += np.stack([n_e * shares[:, 0], n_k * shares[:, 1], n_e * n_k * shares.prod(axis=1)])
    return sums[0], sums[1], sums[2]
