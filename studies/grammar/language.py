"""The language of arXiv 2408.12578 in small: a grammar, and types that say which words go together.

    S -> sNP VP                 sNP -> subj (.8) | sNP Conj sNP (.2)
    VP -> linkVerb descriptor (.4) | Verb Prep oNP (.4) | VP Conj VP (.2)
    oNP -> obj (.7) | obj Conj oNP (.3)

Entities (subjects and objects) and properties lie in disjoint classes. An entity takes a property of its own
class if the pair is in a fixed random graph with probability 0.15. What the definitions leave open is chosen
here, and written on the page of the study:

- Before a noun stands an adjective with probability 0.8. Adjectives and descriptors are the same properties.
- Joined subjects are of one class; a descriptor suits the last of them.
- A verb has a class of subjects and a class of objects; every class has as many verbs.
- Entities, and the allowed properties of an entity, are equally likely; an entity always has a property.
- Sentences longer than the limit are drawn again.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PAD, START, END, CONJ, LINK, PREP = range(6)
N_SPECIAL = 6
MAX_TOKENS = 22
"""Longest sentence, with its start and end."""

ENTITY, PROPERTY, VERB = range(N_SPECIAL, N_SPECIAL + 3)
"""Parts of speech; the single words above are parts of their own."""


@dataclass(frozen=True, eq=False)
class Language:
    """The words of one language and which of them go together."""

    n_entities: int
    n_properties: int
    n_classes: int
    verb_subject: NDArray[np.int64]
    """(n_verbs,) class of a verb's subject."""
    verb_object: NDArray[np.int64]
    """(n_verbs,) class of its object."""
    allowed: NDArray[np.bool_]
    """(n_entities, n_properties) pairs that the language uses."""

    @property
    def first_property(self) -> int:
        """The word of the first property."""
        return N_SPECIAL + self.n_entities

    @property
    def first_verb(self) -> int:
        """The word of the first verb."""
        return self.first_property + self.n_properties

    @property
    def n_words(self) -> int:
        """Words in all."""
        return self.first_verb + len(self.verb_subject)

    @cached_property
    def entity_class(self) -> NDArray[np.int64]:
        """(n_entities,) class of each entity."""
        return np.arange(self.n_entities) % self.n_classes

    @cached_property
    def property_class(self) -> NDArray[np.int64]:
        """(n_properties,) class of each property."""
        return np.arange(self.n_properties) % self.n_classes

    @cached_property
    def part(self) -> NDArray[np.int64]:
        """(n_words,) the single words themselves, then ENTITY, PROPERTY, VERB."""
        parts = np.arange(self.n_words)
        parts[N_SPECIAL : self.first_property] = ENTITY
        parts[self.first_property : self.first_verb] = PROPERTY
        parts[self.first_verb :] = VERB
        return parts

    @cached_property
    def used(self) -> NDArray[np.bool_]:
        """(n_properties,) properties that some entity takes; no sentence holds the others."""
        return np.asarray(self.allowed.any(axis=0))


def make_language(
    n_entities: int, n_properties: int, *, n_classes: int = 10, density: float = 0.15, seed: int
) -> Language:
    """Draw the pairs and verbs of a language; four verbs per class of subjects."""
    rng = np.random.default_rng([seed, n_entities, n_properties])
    same = np.arange(n_entities)[:, None] % n_classes == np.arange(n_properties)[None, :] % n_classes
    allowed = same & (rng.random(same.shape) < density)
    for entity in np.flatnonzero(~allowed.any(axis=1)):
        allowed[entity, rng.choice(np.flatnonzero(same[entity]))] = True
    verb_subject = np.repeat(np.arange(n_classes), 4)
    return Language(
        n_entities=n_entities,
        n_properties=n_properties,
        n_classes=n_classes,
        verb_subject=verb_subject,
        verb_object=rng.integers(0, n_classes, len(verb_subject)),
        allowed=allowed,
    )


class Speaker:
    """Draws sentences of a language.

    With `blind`, every noun is of a class drawn anew and verbs go with all classes: what goes with what shows
    in the pairs of entities and properties alone.
    """

    def __init__(self, language: Language, seed: int, *, blind: bool = False) -> None:
        self._language, self._blind = language, blind
        self._rng = np.random.default_rng(seed)
        self._uniform: list[float] = []
        classes = range(language.n_classes)
        self._entities = [np.flatnonzero(language.entity_class == c).tolist() for c in classes]
        self._verbs = [np.flatnonzero(language.verb_subject == c).tolist() for c in classes]
        self._properties = [np.flatnonzero(row).tolist() for row in language.allowed]
        self._waiting: list[tuple[int, int]] = []
        self.drawn = 0
        """Sentences so far."""
        self.first_seen: dict[tuple[int, int], int] = {}
        """Number of the sentence, from 0, that first stated a pair (entity, property)."""

    def withhold(self) -> None:
        """Use no pair from now on; entities without pairs take no adjective, and no descriptor."""
        self._waiting = [(e, int(k)) for e, kinds in enumerate(self._properties) for k in kinds]
        self._rng.shuffle(self._waiting)
        self._properties = [[] for _ in self._properties]

    def release(self, n: int) -> None:
        """Use so many of the pairs that were withheld, in a random order that stays the same."""
        for _ in range(min(n, len(self._waiting))):
            entity, kind = self._waiting.pop()
            self._properties[entity].append(kind)

    def sentences(self, n: int) -> NDArray[np.int64]:
        """(n, MAX_TOKENS) words, filled up with PAD."""
        rows = np.full((n, MAX_TOKENS), PAD, dtype=np.int64)
        for row in rows:
            words = self._sentence()
            while len(words) > MAX_TOKENS:
                words = self._sentence()
            row[: len(words)] = words
            for pair in self._stated:
                self.first_seen.setdefault(pair, self.drawn)
            self.drawn += 1
        return rows

    def _chance(self) -> float:
        if not self._uniform:
            self._uniform = self._rng.random(8192).tolist()
        return self._uniform.pop()

    def _one_of(self, choices: list[int]) -> int:
        return choices[int(self._chance() * len(choices))]

    def _sentence(self) -> list[int]:
        of_class = int(self._chance() * self._language.n_classes)
        self._stated: list[tuple[int, int]] = []
        words = [START]
        subject = self._noun(words, of_class)
        while self._chance() < 0.2:  # sNP Conj sNP, as a list
            words.append(CONJ)
            subject = self._noun(words, of_class)
        self._predicate(words, subject)
        words.append(END)
        return words

    def _noun(self, words: list[int], of_class: int) -> int:
        """Add an entity of a class, perhaps after an adjective."""
        if self._blind:
            of_class = int(self._chance() * self._language.n_classes)
        entity = self._one_of(self._entities[of_class])
        if self._chance() < 0.8 and self._properties[entity]:
            words.append(self._property_of(entity))
        words.append(N_SPECIAL + entity)
        return entity

    def _property_of(self, entity: int) -> int:
        """A word for one of an entity's properties; the pair counts as stated."""
        chosen = self._one_of(self._properties[entity])
        self._stated.append((entity, chosen))
        return self._language.first_property + chosen

    def _predicate(self, words: list[int], subject: int) -> None:
        language = self._language
        kind = self._chance()
        if kind < 0.2 and len(words) <= MAX_TOKENS:
            self._predicate(words, subject)
            words.append(CONJ)
            self._predicate(words, subject)
        elif kind < 0.6 and self._properties[subject]:
            words += [LINK, self._property_of(subject)]
        else:
            of_class = (
                int(self._chance() * language.n_classes) if self._blind else language.entity_class[subject]
            )
            verb = self._one_of(self._verbs[of_class])
            words += [language.first_verb + verb, PREP]
            self._noun(words, int(language.verb_object[verb]))
            while self._chance() < 0.3:
                words.append(CONJ)
                self._noun(words, int(language.verb_object[verb]))


@dataclass(frozen=True)
class Reading:
    """What a string of words is, read as a sentence."""

    grammatical: bool
    legal: tuple[frozenset[int], ...]
    """Parts of speech that may stand at each place after the first, as far as the string is grammatical."""
    descriptive: tuple[tuple[int, int], ...]
    """(entity, property) of every pair that is stated."""
    subjects: tuple[tuple[int, int], ...]
    """(verb, subject) of every verb."""
    objects: tuple[tuple[int, int], ...]
    """(verb, object) of every object."""


_AUTOMATON: dict[str, dict[int, str]] = {
    "subject": {ENTITY: "after subject", PROPERTY: "subject noun"},
    "subject noun": {ENTITY: "after subject"},
    "after subject": {CONJ: "subject", LINK: "descriptor", VERB: "preposition"},
    "descriptor": {PROPERTY: "after descriptor"},
    "after descriptor": {CONJ: "predicate", END: "end"},
    "predicate": {LINK: "descriptor", VERB: "preposition"},
    "preposition": {PREP: "object"},
    "object": {ENTITY: "after object", PROPERTY: "object noun"},
    "object noun": {ENTITY: "after object"},
    "after object": {CONJ: "object or predicate", END: "end"},
    "object or predicate": {
        ENTITY: "after object",
        PROPERTY: "object noun",
        LINK: "descriptor",
        VERB: "preposition",
    },
}
"""What may follow in each state, and the state after it: the grammar, its lists read as lists."""


def read(language: Language, words: list[int]) -> Reading:
    """Read a string of words, as far as it is grammatical."""
    part = language.part
    state = "subject" if words and words[0] == START else "end"
    subject = verb = -1
    adjective: int | None = None
    grammatical = False
    legal: list[frozenset[int]] = []
    pairs: list[tuple[int, int]] = []
    subjects: list[tuple[int, int]] = []
    objects: list[tuple[int, int]] = []
    for word in words[1:]:
        follows = _AUTOMATON.get(state, {})
        kind = int(part[word])
        legal.append(frozenset(follows))
        if kind not in follows:
            break
        before, state = state, follows[kind]
        if kind == PROPERTY and state == "after descriptor":
            pairs.append((subject, word - language.first_property))
        elif kind == PROPERTY:
            adjective = word - language.first_property
        elif kind == VERB:
            verb = word - language.first_verb
            subjects.append((verb, subject))
        elif kind == ENTITY:
            entity = word - N_SPECIAL
            pairs += [] if adjective is None else [(entity, adjective)]
            adjective = None
            if before.startswith("subject"):
                subject = entity
            else:
                objects.append((verb, entity))
        grammatical = state == "end"
        if grammatical:
            break
    return Reading(grammatical, tuple(legal), tuple(pairs), tuple(subjects), tuple(objects))
