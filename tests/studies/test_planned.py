"""Plan files say what is tested, and verdicts follow from intervals, corrected p values and margins."""

import numpy as np
import pytest
from planned import PLANS, VERDICTS, among, answers, judge, named, over_replicates, read_plan


@pytest.mark.parametrize("study", sorted(file.stem for file in PLANS.glob("*.toml")))
def test_a_plan_says_what_was_known_and_what_each_claim_is_judged_by(study):
    plan = read_plan(study)
    assert {"written", "known", "exploratory", "claims"} <= plan.keys()
    for name, claim in plan["claims"].items():
        assert {"says", "statistic", "replicate", "unit"} <= claim.keys(), name
        row = named(study, name)
        assert row["predicted"] is None or row["margin"] > 0, name


def row(low, high, *, p=0.001, margin=0.1, predicted=None):
    found = {"n": 9, "mean": (low + high) / 2, "low": low, "high": high, "p": p}
    return found | {"claim": "c", "unit": "decades", "margin": margin, "predicted": predicted}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row(0.2, 0.4), "confirmed"),
        (row(0.01, 0.11), "confirmed"),
        (row(0.01, 0.09), "no effect"),
        (row(-0.09, 0.09, p=0.9), "no effect"),
        (row(-0.11, 0.09, p=0.9), "undecided"),
        (row(-0.4, -0.2), "refuted"),
        (row(0.2, 0.4, p=0.06), "undecided"),
        (row(0.2, 0.4, margin=0.0), "confirmed"),
        (row(0.41, 0.59, predicted=0.5), "confirmed"),
        (row(0.39, 0.59, predicted=0.5), "undecided"),
        (row(0.29, 0.39, predicted=0.5), "refuted"),
        (row(0.61, 0.8, predicted=0.5, p=0.9), "refuted"),
    ],
)
def test_verdicts_on_both_sides_of_each_bound(found, verdict):
    (judged,) = judge([found], level=0.05).to_dicts()
    assert judged["verdict"] == verdict


def test_p_values_are_corrected_over_all_tests_that_have_one():
    found = judge([row(0.2, 0.4, p=0.02), row(0.2, 0.4, p=0.02), row(0.2, 0.4, predicted=0.5)], level=0.05)
    assert found["p_holm"].to_list() == [0.04, 0.04, None]
    found = judge([row(0.2, 0.4, p=0.02)] * 3, level=0.05)
    assert set(found["verdict"]) == {"undecided"}
    assert judge([], level=0.05).is_empty()


def test_two_replicates_are_no_test():
    few = over_replicates([1.0, 2.0, np.nan], unit="decades")
    assert few == {"n": 2, "mean": None, "low": None, "high": None, "p": None}
    (judged,) = judge([named("transfer", "rises") | few], level=0.05).to_dicts()
    assert judged["verdict"] == "undecided"
    equal = over_replicates([0.2] * 5, unit="decades")
    assert (equal["low"], equal["p"]) == (None, 0.0625)


def test_within_cells_what_differs_between_them_does_not_count():
    rng = np.random.default_rng(0)
    cells = np.repeat(np.arange(8), 6)
    x, y = cells + rng.normal(size=48) / 10, cells + rng.normal(size=48) / 10
    assert among(x, y)["mean"] > 0.9
    assert among(x, y, cells=cells.tolist())["p"] > 0.05


def test_answers_name_each_claim_once_with_verdict_effect_and_interval():
    rows = [row(0.2, 0.4) | named("transfer", "rises", setting=s, count="any") for s in ("a", "b")]
    text = answers("transfer", judge(rows, level=0.05))
    assert text.count("\n") == 0
    assert "a, any: **confirmed** +0.300 [+0.200, +0.400], p 0.0020, n 9; b, any" in text
    assert set(VERDICTS) == {"confirmed", "refuted", "no effect", "undecided"}
