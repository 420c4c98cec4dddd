"""The small language is the one that its page describes, and the whole study runs."""

import numpy as np
import percolation_study
import polars as pl
import pytest
import torch
from grammar.experiment import Run
from grammar.language import (
    CONJ,
    END,
    ENTITY,
    LINK,
    N_SPECIAL,
    PAD,
    PREP,
    PROPERTY,
    START,
    VERB,
    Speaker,
    make_language,
    read,
)
from grammar.model import Decoder, Exam, sentence_loss
from grammar.scarce import per_run

LANGUAGE = make_language(40, 120, seed=1)
E0, K0, V0 = N_SPECIAL, LANGUAGE.first_property, LANGUAGE.first_verb


@pytest.fixture(scope="module")
def speaker():
    return Speaker(LANGUAGE, seed=2)


@pytest.fixture(scope="module")
def rows(speaker):
    return speaker.sentences(3000)


@pytest.fixture(scope="module")
def readings(rows):
    return [read(LANGUAGE, row[row != PAD].tolist()) for row in rows]


def test_every_sentence_is_grammatical_and_keeps_its_types(readings):
    assert all(reading.grammatical for reading in readings)
    assert all(LANGUAGE.allowed[pair] for reading in readings for pair in reading.descriptive)
    entity_class = LANGUAGE.entity_class
    for reading in readings:
        assert all(entity_class[s] == LANGUAGE.verb_subject[v] for v, s in reading.subjects)
        assert all(entity_class[o] == LANGUAGE.verb_object[v] for v, o in reading.objects)


def test_rules_are_used_as_often_as_the_grammar_says(rows):
    """Long sentences are drawn again, which makes lists a little rarer."""
    words = [row[row != PAD].tolist() for row in rows]
    part = LANGUAGE.part
    first_nouns = [[part[w] for w in sentence[1:3]] for sentence in words]
    assert np.mean([kinds[0] == PROPERTY for kinds in first_nouns]) == pytest.approx(0.8, abs=0.03)
    after_subject = [
        part[sentence[3 if kinds[0] == PROPERTY else 2]]
        for sentence, kinds in zip(words, first_nouns, strict=True)
    ]
    assert np.mean([kind == CONJ for kind in after_subject]) == pytest.approx(0.2, abs=0.04)
    verbs = sum(part[w] == VERB for sentence in words for w in sentence)
    links = sum(w == LINK for sentence in words for w in sentence)
    assert verbs / links == pytest.approx(1.0, abs=0.15)


def test_pairs_that_were_stated_are_those_that_reading_finds(speaker, rows, readings):
    first = {}
    for number, reading in enumerate(readings):
        for pair in reading.descriptive:
            first.setdefault(pair, number)
    assert len(rows) == speaker.drawn
    assert first == speaker.first_seen


def test_allowed_pairs_are_those_of_the_random_graph():
    same = LANGUAGE.entity_class[:, None] == LANGUAGE.property_class[None, :]
    assert not (LANGUAGE.allowed & ~same).any()
    assert LANGUAGE.allowed.any(axis=1).all()
    large = make_language(100, 1000, seed=0)
    possible = (large.entity_class[:, None] == large.property_class[None, :]).sum()
    assert large.allowed.sum() / possible == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize(
    "words",
    [
        [START, E0, END],
        [START, LINK, K0, END],
        [START, E0, LINK, E0, END],
        [START, K0, LINK, K0, END],
        [START, E0, V0, E0, END],
        [START, E0, LINK, K0, CONJ, E0, END],
        [START, E0, LINK, K0],
        [E0, LINK, K0, END],
        [],
    ],
    ids=str,
)
def test_what_is_no_sentence(words):
    assert not read(LANGUAGE, words).grammatical


def test_a_reading_by_hand():
    words = [START, K0 + 1, E0 + 2, CONJ, E0 + 3, LINK, K0 + 4, CONJ, V0 + 5, PREP, E0 + 6, END]
    reading = read(LANGUAGE, words)
    assert reading.grammatical
    assert reading.descriptive == ((2, 1), (3, 4))
    assert reading.subjects == ((5, 3),)
    assert reading.objects == ((5, 6),)
    assert reading.legal[0] == {ENTITY, PROPERTY}
    assert reading.legal[-1] == {CONJ, END}


class Knowing(torch.nn.Module):
    """Gives every next word that the grammar and the types allow the same odds, by looking at the entity."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Identity()

    def features(self, rows):
        odds = torch.full((*rows.shape, LANGUAGE.n_words), -30.0)
        for i, row in enumerate(rows.tolist()):
            for j in range(len(row)):
                for word in self.follows(row[: j + 1]):
                    odds[i, j, word] = 0.0
        return odds

    @staticmethod
    def follows(words):
        reading = read(LANGUAGE, [*words, PAD])
        kinds = reading.legal[-1] if len(reading.legal) == len(words) else {END}
        subject = next((w - E0 for w in reversed(words) if LANGUAGE.part[w] == ENTITY), None)
        if words[-1] == LINK:
            return K0 + np.flatnonzero(LANGUAGE.allowed[subject])
        if LANGUAGE.part[words[-1]] == PROPERTY and kinds == {ENTITY}:
            return E0 + np.flatnonzero(LANGUAGE.allowed[:, words[-1] - K0])
        return np.flatnonzero(np.isin(LANGUAGE.part, list(kinds)))


def test_an_exam_tells_who_knows_from_who_does_not(rows, readings):
    exam = Exam(
        language=LANGUAGE,
        rows=torch.from_numpy(rows[:20]),
        readings=tuple(readings[:20]),
        generator=torch.Generator().manual_seed(0),
        n_free=12,
    )
    torch.manual_seed(0)
    knows, guesses = exam.answers(Knowing()), exam.answers(Decoder(LANGUAGE.n_words))
    for name in ("grammar_mass", "descriptive_top", "descriptive_mass", "allowed_mass"):
        assert knows[name] == pytest.approx(1.0, abs=1e-6), name
        assert guesses[name] < 0.7, name
    assert guesses["descriptive_mass"] < 0.2
    assert guesses["unseen_lift"] == pytest.approx(0.0, abs=0.1)
    assert guesses["grammar_share"] == 0.0
    assert knows["grammar_share"] > 0.1  # most lists go on until they are cut off
    assert knows["descriptive_share"] > 0.9
    assert knows["loss"] < guesses["loss"]


def test_the_model_sees_no_later_word():
    torch.manual_seed(0)
    model = Decoder(30, width=8)
    rows = torch.randint(0, 30, (2, 9))
    changed = rows.clone()
    changed[:, 5:] = 3
    with torch.no_grad():
        before, after = model(rows), model(changed)
    assert torch.allclose(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    padded, plain = torch.tensor([[1, 2, PAD, PAD]]), torch.tensor([[1, 2]])
    assert sentence_loss(model, padded).item() == pytest.approx(sentence_loss(model, plain).item())


def test_checks_are_spaced_in_the_logarithm():
    steps = Run(n_properties=10, batch=1, learning_rate=1e-3, steps=1000, seed=0).check_steps()
    assert (steps[0], steps[-1]) == (5, 1000)
    assert len(steps) == 40


@pytest.mark.slow
def test_the_quick_study_writes_its_page(capsys):
    threads = torch.get_num_threads()
    try:
        assert percolation_study.main(["--quick"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert "**Answer**" in capsys.readouterr().out


def test_pairs_that_are_withheld_are_used_once_they_are_released():
    speaker = Speaker(LANGUAGE, seed=2)
    speaker.withhold()
    speaker.sentences(20)
    assert not speaker.first_seen
    speaker.release(7)
    speaker.sentences(300)
    assert 1 < len(speaker.first_seen) <= 7
    speaker.release(10_000)
    speaker.sentences(300)
    assert len(speaker.first_seen) > 50
    assert all(LANGUAGE.allowed[pair] for pair in speaker.first_seen)


def test_blind_sentences_tell_classes_by_pairs_alone():
    rows = Speaker(LANGUAGE, seed=3, blind=True).sentences(1500)
    found = [read(LANGUAGE, row[row != PAD].tolist()) for row in rows]
    assert all(reading.grammatical for reading in found)
    assert all(LANGUAGE.allowed[pair] for reading in found for pair in reading.descriptive)
    verbs = [LANGUAGE.entity_class[s] == LANGUAGE.verb_subject[v] for r in found for v, s in r.subjects]
    assert np.mean(verbs) == pytest.approx(0.1, abs=0.03)  # ten classes


def test_pairs_are_told_apart_by_what_connects_them(rows, readings):
    """A model that knows the classes thinks alike of pairs in one component and in two."""

    class Classes(Knowing):
        @staticmethod
        def follows(words):
            subject = next((w - E0 for w in reversed(words) if LANGUAGE.part[w] == ENTITY), 0)
            same = LANGUAGE.property_class == LANGUAGE.entity_class[subject]
            return K0 + np.flatnonzero(same)

    exam = Exam(language=LANGUAGE, rows=torch.from_numpy(rows[:2]), readings=(), generator=None, n_free=0)
    stated = np.zeros_like(LANGUAGE.allowed)
    # of class 0: entities 0 and 10 share property 10; entity 20 has property 20, and nothing joins it to them
    for entity, kind in ((0, 0), (0, 10), (10, 10), (20, 20), (1, 1)):
        stated[entity, kind] = True
    found = exam.inferred(Classes(), stated)
    assert (found["stated"], found["n_connected"], found["n_apart"]) == (5, 1, 4)  # 10-0; 20 with 0, 10, back
    assert found["connected_lift"] == found["apart_lift"] > 5
    torch.manual_seed(0)
    assert abs(exam.inferred(Decoder(LANGUAGE.n_words), stated)["apart_lift"]) < 0.5


def test_when_and_which_unseen_pairs_are_learned():
    """Of a run whose lift is 0 until step 100 and rises by 1 in 100 steps."""
    run = Run(n_properties=120, n_entities=40, batch=1, learning_rate=1.0, steps=200, seed=1, release=0.5)
    steps = [50, 100, 200]
    lifts = {"unseen_lift": [0.0, 0.0, 1.0], "apart_lift": [0.0, 0.3, 0.9], "connected_lift": [0.0, 0.4, 1.2]}
    many = {"n_apart": [500.0, 101.0, 100.0], "n_connected": [0.0, 300.0, 900.0]}
    logs = pl.DataFrame({"setting": "scarce", "n_properties": 120, "seed": 1, "step": steps} | lifts | many)
    (found,) = per_run(logs, {"scarce": (run,), "scarce, blind": (run,)}).to_dicts()
    used = make_language(40, 120, seed=1).used.sum()
    assert found["percolates"] == pytest.approx(2 * (40 * used) ** 0.5)
    assert found["half"] == pytest.approx(150.0)
    assert found["late"] == pytest.approx(np.log10(150 / found["percolates"]))
    assert (found["apart"], found["connected"]) == (0.3, 1.2)  # 100 pairs are too few
    flat = logs.with_columns(pl.lit(0.05).alias("unseen_lift"))
    assert per_run(flat, {"scarce": (run,)})["late"].to_list() == [None]
