"""A small transformer that learns the language, and what it can do at each moment.

Every capability is measured twice: as a share of answers that are right (discontinuous: the most likely word,
or a whole sentence), and as probability that lies on right answers (continuous).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from grammar.language import END, LINK, MAX_TOKENS, N_SPECIAL, PAD, PREP, START, Language, Reading, read

WIDTH, HEADS, DEPTH = 64, 2, 2


class Block(nn.Module):
    """Attention and a two-layer network, each behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.merged = nn.Linear(width, width)
        self.before_hidden = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 4 * width)
        self.back = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, width) in and out; the mask is added to the scores."""
        rows, tokens, width = x.shape
        shape = (rows, tokens, self.heads, width // self.heads)
        normed = self.before_attention(x)
        query = self.query(normed).view(shape).transpose(1, 2)
        key = self.key(normed).view(shape).transpose(1, 2)
        value = self.value(normed).view(shape).transpose(1, 2)
        scores = query @ key.transpose(2, 3) * (shape[3] ** -0.5) + mask
        mixed = (torch.softmax(scores, dim=3) @ value).transpose(1, 2).reshape(rows, tokens, width)
        x = x + self.merged(mixed)
        return x + self.back(torch.relu(self.hidden(self.before_hidden(x))))


class Decoder(nn.Module):
    """A decoder: 2 layers, 2 heads, 64 wide (arXiv 2408.12578: 128 wide)."""

    mask: torch.Tensor
    places: torch.Tensor

    def __init__(self, n_words: int, *, width: int = WIDTH, heads: int = HEADS, depth: int = DEPTH) -> None:
        super().__init__()
        self.words = nn.Embedding(n_words, width)
        self.position = nn.Embedding(MAX_TOKENS, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_words)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)
        future = torch.triu(torch.full((MAX_TOKENS, MAX_TOKENS), -1e9), diagonal=1)
        self.register_buffer("mask", future, persistent=False)
        self.register_buffer("places", torch.arange(MAX_TOKENS), persistent=False)

    def features(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, width) before the head."""
        n = tokens.shape[1]
        x = self.words(tokens) + self.position(self.places[:n])
        for block in self.blocks:
            x = block(x, self.mask[:n, :n])
        return self.last_norm(x)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, n_words) logits of the next word."""
        return self.head(self.features(tokens))


def sentence_loss(model: Decoder, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy per word, in nats; padding takes no part."""
    inputs, targets = rows[:, :-1], rows[:, 1:]
    there = targets != PAD
    return nn.functional.cross_entropy(model.head(model.features(inputs)[there]), targets[there])


@dataclass(frozen=True, eq=False)
class Exam:
    """What a model is asked again and again while it learns one language."""

    language: Language
    rows: torch.Tensor
    """(n, MAX_TOKENS) held-out sentences."""
    readings: tuple[Reading, ...]
    """Those sentences, read."""
    generator: torch.Generator
    n_free: int
    """Sentences that the model makes up."""

    def answers(self, model: Decoder) -> dict[str, float]:
        """All measures of a model; NaN where it gives nothing to measure."""
        model.eval()
        with torch.no_grad():
            loss = float(sentence_loss(model, self.rows))
            found = {"loss": loss, "grammar_mass": self._grammar_mass(model)}
            found |= self._descriptive(model) | self._relative(model) | self._free(model)
        model.train()
        return found

    def _grammar_mass(self, model: Decoder) -> float:
        """Mean probability on parts of speech that the grammar allows, over all positions."""
        parts = torch.from_numpy(self.language.part)
        n_parts = int(parts.max()) + 1
        legal = torch.zeros((len(self.rows), MAX_TOKENS - 1, n_parts))
        for row, reading in zip(legal, self.readings, strict=True):
            for at, allowed in enumerate(reading.legal):
                row[at, list(allowed)] = 1
        there = self.rows[:, 1:] != PAD
        words = torch.softmax(model.head(model.features(self.rows[:, :-1])[there]), dim=1)
        by_part = torch.zeros((len(words), n_parts)).index_add_(1, parts, words)
        return float((by_part * legal[there]).sum(dim=1).mean())

    def _descriptive(self, model: Decoder) -> dict[str, float]:
        """Which properties follow "entity linkVerb", for every entity."""
        language = self.language
        same = (language.entity_class[:, None] == language.property_class) & language.used
        odds = self._properties(model)
        best = odds.argmax(axis=1)
        unseen, foreign = same & ~language.allowed, ~same & language.used
        return {
            "descriptive_top": float(same[np.arange(len(best)), best].mean()),
            "descriptive_mass": float((odds * same).sum(axis=1).mean()),
            "allowed_mass": float((odds * language.allowed).sum(axis=1).mean()),
            "unseen_lift": float(np.log10(odds[unseen].mean() / odds[foreign].mean())),
        }

    def _properties(self, model: Decoder) -> NDArray[np.float64]:
        """(n_entities, n_properties) probability of each after "entity linkVerb", among properties."""
        language = self.language
        odds = self._after(
            [[START, N_SPECIAL + entity, LINK] for entity in range(language.n_entities)], model
        )
        odds = odds[:, language.first_property : language.first_verb]
        return odds / odds.sum(axis=1, keepdims=True)

    def inferred(self, model: Decoder, stated: NDArray[np.bool_]) -> dict[str, float]:
        """What the model thinks of pairs that no sentence stated, by whether the stated ones connect them.

        log10 odds over pairs of different classes, of pairs of one class in one component of the graph of
        stated pairs, and in two; entities and properties that no pair states take no part. By percolation the
        latter cannot be inferred.

        Args:
            model: The model.
            stated: (n_entities, n_properties) pairs that the training sentences stated so far.
        """
        language, n = self.language, stated.shape[0]
        known = stated.any(axis=1)[:, None] & stated.any(axis=0)
        graph = csr_array(
            np.block([[np.zeros((n, n)), stated], [stated.T, np.zeros((stated.shape[1],) * 2)]])
        )
        _, part = connected_components(graph, directed=False)
        joined = part[:n, None] == part[n:]
        same = language.entity_class[:, None] == language.property_class
        model.eval()
        with torch.no_grad():
            odds = self._properties(model)
        model.train()
        groups = {"connected": known & same & joined & ~stated, "apart": known & same & ~joined}
        foreign = known & ~same
        return {
            "stated": float(stated.sum()),
            **{f"n_{name}": float(pairs.sum()) for name, pairs in groups.items()},
            **{
                f"{name}_lift": float(np.log10(odds[pairs].mean() / odds[foreign].mean()))
                if pairs.any() and foreign.any()
                else float("nan")
                for name, pairs in groups.items()
            },
        }

    def _relative(self, model: Decoder) -> dict[str, float]:
        """Which verbs follow a subject, and which nouns a verb."""
        language = self.language
        entities = np.arange(language.n_entities)
        verbs = self._after([[START, N_SPECIAL + entity] for entity in entities], model)
        verbs = verbs[:, language.first_verb :]
        right_verb = language.verb_subject == language.entity_class[:, None]
        prompts, right = [], []
        for verb, (subject, target) in enumerate(
            zip(language.verb_subject, language.verb_object, strict=True)
        ):
            entity = int(np.flatnonzero(language.entity_class == subject)[0])
            prompts.append([START, N_SPECIAL + entity, language.first_verb + verb, PREP])
            right.append(language.entity_class == target)
        objects = self._after(prompts, model)[:, N_SPECIAL : language.first_property]
        checks = [(verbs, right_verb), (objects, np.array(right))]
        masses = [(odds * good).sum(axis=1) / odds.sum(axis=1) for odds, good in checks]
        tops = [good[np.arange(len(odds)), odds.argmax(axis=1)] for odds, good in checks]
        return {
            "relative_top": float(np.mean([top.mean() for top in tops])),
            "relative_mass": float(np.mean([mass.mean() for mass in masses])),
        }

    def _free(self, model: Decoder) -> dict[str, float]:
        """What share of freely generated sentences is grammatical, and of stated pairs of the right type."""
        language = self.language
        readings = [read(language, words) for words in self._generated(model)]
        pairs = [(entity, kind) for reading in readings for entity, kind in reading.descriptive]
        verbs = [
            language.entity_class[subject] == language.verb_subject[verb]
            for reading in readings
            for verb, subject in reading.subjects
        ] + [
            language.entity_class[entity] == language.verb_object[verb]
            for reading in readings
            for verb, entity in reading.objects
        ]
        typed = [language.entity_class[entity] == language.property_class[kind] for entity, kind in pairs]
        return {
            "grammar_share": float(np.mean([reading.grammatical for reading in readings])),
            "descriptive_share": float(np.mean(typed)) if typed else float("nan"),
            "relative_share": float(np.mean(verbs)) if verbs else float("nan"),
        }

    def _generated(self, model: Decoder) -> list[list[int]]:
        rows = torch.full((self.n_free, 1), START)
        for _ in range(MAX_TOKENS - 1):
            odds = torch.softmax(model.head(model.features(rows)[:, -1]), dim=1)
            rows = torch.cat([rows, torch.multinomial(odds, 1, generator=self.generator)], dim=1)
        return [words[: words.index(END) + 1] if END in words else words for words in rows.tolist()]

    def _after(self, prompts: list[list[int]], model: Decoder) -> NDArray[np.float64]:
        """(n_prompts, n_words) probability of each next word."""
        features = model.features(torch.tensor(prompts))[:, -1]
        return np.asarray(torch.softmax(model.head(features), dim=1).double().numpy())
