"""Which of many models are related: fingerprints, candidates, comparisons, families."""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.comparison.model import Model, read_model
from emergraph.analysis.lineage.fingerprint import Fingerprint, candidates, fingerprint_of
from emergraph.analysis.lineage.kinds import Judged, Kind
from emergraph.analysis.lineage.options import LineageOptions
from emergraph.analysis.lineage.outputs import Answers, with_outputs
from emergraph.analysis.lineage.pairs import Relation, compared, decided
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.statistics.permutation import share_as_extreme
from emergraph.errors import EmergraphError, InvalidInputError, UsageError
from emergraph.exporters.runtime.inputfile import InputFile
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.reader import GraphReader
from emergraph.steps import steps

HELD = 1 << 27
"""Entries of models that are held in memory between comparisons."""
ENOUGH = 300
"""Independent pairs of an architecture that a p value of the match score needs."""
MIXED = 0.2
"""What is left of a model less the best mixture of two others, over its distance to the nearer one."""
PARTS = (0.05, 0.95)
"""What share of an average each of the two is."""
SAMPLE = 200_000
"""Weights that a mixture is sought over."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A graph that can be opened."""

    name: str
    opened: Callable[[], AbstractContextManager[GraphReader]]
    answers: Callable[[InputFile | RandomInputs], Answers] | None = None
    """Runs the model on samples; None for graphs without their model."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that are related, directly or by way of others."""

    members: Sequence[int]
    root: int
    """What the others seem to come from: a heuristic."""
    parents: Mapping[int, int]
    """Of each other member, by way of its closest relation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lineage(ShownInNotebooks):
    """The relations between models."""

    names: Sequence[str]
    graphs: Sequence[Mapping[str, object]]
    """Their rows of the table `graphs`."""
    relations: Sequence[Relation]
    """Pairs that were compared, related ones first."""
    families: Sequence[Family]
    n_pairs: int
    """All pairs, which p values are corrected over."""
    level: float
    fingerprint_bytes: int
    """Of the largest fingerprint."""
    notes: Sequence[str] = ()
    """Of models that did not run on the samples."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        from emergraph.analysis.lineage.views import to_dict

        return to_dict(self)


class _Shelf:
    """Models by number: those that were asked for last stay in memory."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._held: OrderedDict[int, Model] = OrderedDict()

    def get(self, number: int) -> Model:
        if number not in self._held:
            with self._sources[number].opened() as reader:
                self._held[number] = read_model(reader, self._sources[number].name)
            while len(self._held) > 2 and sum(one.size for one in self._held.values()) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]


def relate(sources: Sequence[Source], options: LineageOptions | None = None) -> Lineage:
    """Find the relations between models.

    Args:
        sources: Two or more graphs.
        options: When two of them are related.

    Raises:
        UsageError: There are fewer than two, or two kinds of samples.
        InvalidInputError: The file of samples cannot be read.
    """
    chosen = options or LineageOptions()
    n = len(sources)
    if n < 2:
        raise UsageError(f"lineage is about two or more models, found {n}")
    samples = chosen.samples
    shelf = _Shelf(sources)
    prints: list[Fingerprint] = []
    graphs, architectures = [], []
    for number in steps(range(n), "models"):
        model = shelf.get(number)
        prints.append(fingerprint_of(model))
        graphs.append(model.graph)
        architectures.append(model.architecture)
    pairs = sorted(candidates(prints, neighbours=chosen.neighbours))
    found = [compared(pair, *map(shelf.get, pair), seed=chosen.seed) for pair in steps(pairs, "pairs")]
    n_pairs = n * (n - 1) // 2
    judged = judge(found, shelf.get, architectures, n_pairs=n_pairs, level=chosen.level)
    notes: list[str] = []
    if samples is not None:
        answers = _answers(sources, samples, notes)
        judged = with_outputs(judged, answers, [one.members for one in families_of(judged)])
    return Lineage(
        names=tuple(one.name for one in sources),
        graphs=tuple(graphs),
        relations=tuple(sorted(judged, key=lambda one: (not one.related, one.a, one.b))),
        families=families_of(judged),
        n_pairs=n_pairs,
        level=chosen.level,
        fingerprint_bytes=max(one.n_bytes for one in prints),
        notes=tuple(notes),
    )


def _answers(
    sources: Sequence[Source], samples: InputFile | RandomInputs, notes: list[str]
) -> dict[int, Answers]:
    """Run the models that can be run; a line for each other one."""
    found = {}
    for number, source in enumerate(steps(sources, "runs")):
        try:
            if source.answers is None:
                raise InvalidInputError(f"{source.name}: a graph without its model")
            found[number] = source.answers(samples)
        except EmergraphError as error:
            notes.append(f"not run: {error}")
    return found


def judge(
    found: Sequence[Relation],
    model: Callable[[int], Model],
    architectures: Sequence[object],
    *,
    n_pairs: int,
    level: float,
) -> list[Relation]:
    """Say of compared pairs which are related, and what averages are among them.

    Args:
        found: The pairs.
        model: Gives a model by its number.
        architectures: Of all models.
        n_pairs: All pairs, which p values are corrected over.
        level: Corrected p value below which two are related.
    """
    judged = [decided(one, n_pairs=n_pairs, level=level) for one in found]
    return _with_averages(_of_families(_with_match_p(judged, architectures)), model, architectures)


def _of_families(found: Sequence[Relation]) -> list[Relation]:
    """Relate pairs that are related by way of others, and too far apart to be seen so themselves."""
    family = {member: place for place, one in enumerate(families_of(found)) for member in one.members}
    return [
        replace(one, related=True, by="family", judged=one.alternative)
        if one.alternative is not None and one.a in family and family[one.a] == family.get(one.b)
        else one
        for one in found
    ]


def _with_match_p(found: Sequence[Relation], architectures: Sequence[object]) -> list[Relation]:
    """Add the share of unrelated pairs of the same architecture whose match score is as high."""
    scores: defaultdict[object, dict[int, float]] = defaultdict(dict)
    for place, one in enumerate(found):
        same = architectures[one.a] == architectures[one.b]
        if same and one.score is not None and one.by not in ("exact test", "equal numbers"):
            scores[architectures[one.a]][place] = one.score
    result = []
    for place, one in enumerate(found):
        others = scores.get(architectures[one.a], {}) if one.score is not None else {}
        drawn = np.array([score for other, score in others.items() if other != place])
        enough = drawn.size >= ENOUGH and architectures[one.a] == architectures[one.b]
        p = share_as_extreme(drawn, float(one.score or 0.0)) if enough else None
        result.append(replace(one, match_p=p))
    return result


# Averages of two others.


def _with_averages(
    found: Sequence[Relation], model: Callable[[int], Model], architectures: Sequence[object]
) -> list[Relation]:
    near: defaultdict[int, set[int]] = defaultdict(set)
    for one in found:
        if one.judged.kind is Kind.FINE_TUNED and architectures[one.a] == architectures[one.b]:
            near[one.a].add(one.b)
            near[one.b].add(one.a)
    made: dict[frozenset[int], tuple[int, str]] = {}
    for child, others in near.items():
        if len(others) > 1 and (parts := _mixture(model, child, sorted(others))) is not None:
            first, second, share = parts
            for parent in (first, second):
                made[frozenset((child, parent))] = (
                    child,
                    f"{100 * share:.0f} % and {100 - 100 * share:.0f} %",
                )
    result = []
    for one in found:
        child, how = made.get(frozenset((one.a, one.b)), (-1, ""))
        if child >= 0:
            judged = Judged(
                kind=Kind.AVERAGED,
                origin="b" if child == one.a else "a",
                evidence=f"a mixture of this and of another relative, {how}",
            )
            one = replace(one, judged=judged)  # noqa: PLW2901
        result.append(one)
    return result


def _flat(model: Model) -> NDArray[np.float64]:
    whole = np.concatenate([model.values[weight.name].ravel() for weight in model.weights])
    return whole[:: max(1, whole.size // SAMPLE)]


def _mixture(
    model: Callable[[int], Model], child: int, others: Sequence[int]
) -> tuple[int, int, float] | None:
    """The two relatives that a model is a mixture of, and the share of the first."""
    own = _flat(model(child))
    apart = {other: _flat(model(other)) for other in others}
    best: tuple[float, int, int, float] | None = None
    for place, first in enumerate(others):
        for second in others[place + 1 :]:
            parts = np.stack([apart[first], apart[second]], axis=1)
            shares, *_ = np.linalg.lstsq(parts, own, rcond=None)
            nearest = min(float(np.linalg.norm(own - part)) for part in parts.T)
            left = float(np.linalg.norm(own - parts @ shares)) / (nearest or 1.0)
            if left < MIXED and PARTS[0] < min(shares) and max(shares) < PARTS[1]:
                best = min(best or (np.inf, 0, 0, 0.0), (left, first, second, float(shares[0])))
    return None if best is None else best[1:]


# Families.


def families_of(found: Sequence[Relation]) -> tuple[Family, ...]:
    """Return which models are related, directly or by way of others."""
    related = [one for one in found if one.related]
    family: dict[int, set[int]] = {}
    for one in related:
        joined = family.get(one.a, {one.a}) | family.get(one.b, {one.b})
        for member in joined:
            family[member] = joined
    distinct = {min(members): members for members in family.values()}
    return tuple(_family(sorted(members), related) for _, members in sorted(distinct.items()))


def _family(members: Sequence[int], related: Sequence[Relation]) -> Family:
    """A tree over closest relations, below the member that most others come from."""
    own = [one for one in related if one.a in members]
    votes = dict.fromkeys(members, 0.0)
    for one in own:
        closeness = 0.0 if one.alike is None else max(0.0, one.alike.matched)
        for side, number in (("a", one.a), ("b", one.b)):
            votes[number] += (1.0 if one.judged.origin == side else 0.0) + 1e-3 * closeness
            votes[number] -= 1.0 if one.judged.origin not in ("", side) else 0.0
    root = max(members, key=lambda number: (votes[number], -number))
    parents: dict[int, int] = {}
    while len(parents) < len(members) - 1:
        inside = {root, *parents}
        edges = [one for one in own if (one.a in inside) != (one.b in inside)]
        closest = max(edges, key=lambda one: _claim(one, a_above=one.a in inside))
        child, parent = (closest.b, closest.a) if closest.a in inside else (closest.a, closest.b)
        parents[child] = parent
    return Family(members=tuple(members), root=root, parents=parents)


def _claim(one: Relation, *, a_above: bool) -> tuple[bool, float, bool]:
    """How good a line of the tree a relation is, with A above B or the other way round."""
    against = one.judged.origin == ("b" if a_above else "a")
    return not against, one.alike.matched if one.alike else 0.0, one.judged.kind is Kind.SAME
