"""How two networks are said to be related: thresholds from both sides, and trainings."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from emergraph.analysis.comparison.difference import Difference, Verdict
from emergraph.analysis.comparison.summary import Relation, finding, relation
from emergraph.analysis.comparison.unitmatching import UnitMatching


def _difference(cosine: float | None, *, changed: int = 100, removed: int = 0, **other: Any) -> Difference:
    layers = pl.DataFrame(
        {"state": ["changed", "removed", "added"], "parameters_a": [changed, removed, None]},
        schema={"state": pl.String, "parameters_a": pl.Int64},
    )
    found = Difference(
        a="a",
        b="b",
        verdict=Verdict.CHANGED,
        tensors=pl.DataFrame({"tensor_a": ["w"], "max_change": [1.0]}),
        units=pl.DataFrame(),
        layers=layers,
        measures=pl.DataFrame(),
        only_a=(),
        only_b=(),
        not_compared=(),
        not_finite=(),
        relative_change=1.0,
        sign_flips=3,
        cosine=cosine,
        matching=None,
    )
    return replace(found, **other)


@pytest.mark.parametrize(
    ("cosine", "expected"),
    [
        (0.51, Relation.DERIVED),
        (0.49, Relation.UNDECIDED),
        (0.21, Relation.UNDECIDED),
        (0.19, Relation.UNRELATED),
        (-0.9, Relation.UNRELATED),
        (None, Relation.OTHER),
    ],
)
def test_the_cosine_decides(cosine: float | None, expected: Relation) -> None:
    assert relation(_difference(cosine)) is expected


@pytest.mark.parametrize(("kept", "expected"), [(51, Relation.DERIVED), (49, Relation.OTHER)])
def test_half_of_the_parameters_need_a_counterpart(kept: int, expected: Relation) -> None:
    found = _difference(0.9, changed=kept, removed=100 - kept, verdict=Verdict.DIFFERENT)
    assert relation(found) is expected


@pytest.mark.parametrize(("after", "expected"), [(0.96, Relation.DERIVED), (0.94, Relation.UNRELATED)])
def test_renumbered_units_are_a_relation_only_where_nearly_all_fits(after: float, expected: Relation) -> None:
    matching = UnitMatching(permutations={}, similarity_before=0.0, similarity_after=after)
    assert relation(_difference(0.0, matching=matching)) is expected


@pytest.mark.parametrize(("cosine", "expected"), [(0.81, Relation.DERIVED), (0.79, Relation.OTHER)])
def test_a_net_without_some_of_its_units_is_derived(cosine: float, expected: Relation) -> None:
    found = _difference(None, removed=900, cut_out="3 of 9 hidden units are cut out", cut_cosine=cosine)
    assert relation(found) is expected
    assert ("3 of 9" in finding(found)) == (expected is Relation.DERIVED)


def test_equal_weights_are_the_same_whatever_else_differs() -> None:
    for verdict in (Verdict.EQUAL, Verdict.REORDERED, Verdict.SAME_WEIGHTS):
        assert relation(_difference(None, verdict=verdict)) is Relation.SAME


def test_a_sentence_for_each_relation() -> None:
    sentences = {finding(_difference(cosine)) for cosine in (0.9, 0.3, 0.1, None)}
    assert len(sentences) == 4
    assert all(sentence.endswith(".") and "None" not in sentence for sentence in sentences)
    assert np.char.isupper([sentence[0] for sentence in sentences]).all()
