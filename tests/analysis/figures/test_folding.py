"""Repeated blocks of layers: a naive twin, the threshold from both sides, and edges that decide."""

import numpy as np
import polars as pl
import pytest

from emergraph.analysis.figures.folding import LEAST, Fold, find_folds, folds_of
from emergraph.analysis.figures.layermap import draw_map


def folds_of_text(text):
    return find_folds(len(text), lambda place, size: text[place] == text[place - size])


def largest_by_trying(text):
    """The most letters that any repeat saves."""
    saved = [0]
    for start in range(len(text)):
        for size in range(1, len(text) - start + 1):
            times = 1
            while text[start : start + size] == text[start + size * times : start + size * (times + 1)]:
                times += 1
            if times >= LEAST:
                saved.append(size * (times - 1))
    return max(saved)


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("", []),
        ("abab", []),
        ("ababab", [Fold(0, 2, 3)]),
        ("aa", []),
        ("aaa", [Fold(0, 1, 3)]),
        ("xabcabcabcy", [Fold(1, 3, 3)]),
        ("aaaabcbcbc", [Fold(0, 1, 4), Fold(4, 2, 3)]),
    ],
)
def test_folds_of_letters(text, folds):
    assert folds_of_text(text) == folds


@pytest.mark.parametrize("seed", range(30))
def test_the_largest_repeat_is_found(seed):
    rng = np.random.default_rng(seed)
    block = "".join(rng.choice(list("abc"), size=rng.integers(1, 5)))
    text = (
        "".join(rng.choice(list("abc"), size=4))
        + block * rng.integers(1, 6)
        + "".join(rng.choice(list("ab"), size=3))
    )
    found = folds_of_text(text)
    assert max((fold.saved for fold in found), default=0) == largest_by_trying(text)
    for fold in found:
        copy = text[fold.start : fold.start + fold.size]
        assert text[fold.start : fold.end] == copy * fold.times


def layers_and_blocks(n, *, read_by_all=False, odd=None):
    """A chain of n dense layers behind an input that may lead into all; one more block is odd."""
    layers = [
        {"id": i, "op": "Gemm" if i else "Input", "kind": "dense", "n_units": 8, "n_params": 72 * (i > 0)}
        for i in range(n + 1)
    ]
    blocks = [(i, i + 1, "weight") for i in range(n)]
    blocks += [(0, i, "identity") for i in range(2, n + 1)] if read_by_all else []
    return layers, blocks + ([] if odd is None else [odd])


def test_edges_decide():
    layers, blocks = layers_and_blocks(5)
    assert folds_of(layers, blocks) == [Fold(1, 1, 5)]
    layers, blocks = layers_and_blocks(6, read_by_all=True)
    assert folds_of(layers, blocks) == [Fold(2, 1, 5)]
    layers, blocks = layers_and_blocks(5, odd=(2, 4, "identity"))
    assert folds_of(layers, blocks) == [Fold(1, 1, 3)]


def test_a_map_draws_a_repeat_once():
    layers, blocks = layers_and_blocks(60)
    frames = {
        "layers": pl.DataFrame(
            [{**layer, "name": f"l{layer['id']}", "depth": layer["id"]} for layer in layers]
        ),
        "blocks": pl.DataFrame([{"src": a, "dst": b, "kind": kind, "n_edges": 64} for a, b, kind in blocks]),
        "findings": pl.DataFrame({"layer": ["l0"], "sentence": ["unread <b>"]}),
    }
    picture = str(draw_map(frames).svg)
    assert "× 60" in picture
    assert picture.count("dense · 8") == 2
    assert "unread &lt;b&gt;" in picture
