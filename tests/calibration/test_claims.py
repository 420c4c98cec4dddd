"""Nothing is printed as an interval or a p value without a calibration."""

import json
import re
from pathlib import Path

import pytest
from calibrate import PAGE, limits, page, run, simulate, totals, verdict
from casetypes import ChanceTest, Interval
from claims import COLUMNS, STATISTICS, cases, claimed

from emergraph.analysis.registry import built_in

INFERRED = re.compile(r"(^|_)(low|lower|ci|p|p_?value|significance|confidence|margin|se|stderr)(_|$)")
SPREAD = re.compile(r"spread_low(_|$)")
GOLDEN = Path(__file__).parents[1] / "golden" / "demo.json"


def inferred_columns():
    return {
        f"{table.name}.{column.name}"
        for analysis in built_in()
        for table in analysis.tables
        for column in table.columns
        if INFERRED.search(column.name) and not SPREAD.search(column.name)
    } - {"landscape.low"}


def test_every_interval_and_p_value_of_a_table_is_calibrated():
    assert inferred_columns() == set(COLUMNS)


@pytest.mark.parametrize(
    ("name", "inferred"),
    [
        *((name, True) for name in ("low", "effect_low", "lower", "ci_low", "p", "p_holm", "flip_p")),
        *((name, True) for name in ("pvalue", "p_value", "x_stderr", "confidence")),
        *((name, False) for name in ("spread_low", "slow", "strength_p05", "parameters", "per_param")),
    ],
)
def test_names_of_columns_that_infer(name, inferred):
    assert bool(INFERRED.search(name) and not SPREAD.search(name)) is inferred


def test_every_interval_of_a_landscape_is_calibrated():
    found = set()

    def collect(part):
        if isinstance(part, dict):
            for name, value in part.items():
                if name == "statistics":
                    found.update(key for key, one in value.items() if one["low"] is not None)
                collect(value)

    golden = json.loads(GOLDEN.read_text())
    collect({key: golden[key] for key in golden if key.startswith("landscape")})
    assert len(found) > 10
    assert found <= set(STATISTICS)


def test_every_claim_has_a_simulation_and_every_simulation_a_claim():
    assert claimed() == set(cases())


def test_verdicts_on_both_sides():
    interval = Interval("", "", lambda: 0.0, lambda _: (0.0, 0.0))
    assert verdict(interval, {"n": 5000, "hits": 4750}) == "ok"
    assert verdict(interval, {"n": 5000, "hits": 4640}) == "misses"  # 0.928 +- 0.009 does not reach 0.94
    assert verdict(interval, {"n": 300, "hits": 282}) == "ok so far"
    test = ChanceTest("", "", lambda _: None, lambda _: None, "")
    fair = {"n": 5000, "at_0.05": 250, "at_0.01": 50}
    assert verdict(test, fair) == "ok"
    assert verdict(test, fair | {"at_0.05": 320}) == "too often at 0.05"
    assert verdict(test, fair | {"at_0.01": 90}) == "too often at 0.01"


def test_limits_are_the_binomials():
    assert limits(95, 100) == pytest.approx((0.867, 0.989), abs=0.003)


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    state = tmp_path / "state.jsonl"
    monkeypatch.setattr("calibrate.SIMULATIONS", 100)
    run(state, hours=1, only="Student's t over seeds")
    whole = state.read_text()
    first, _ = whole.splitlines()
    state.write_text(first + '\n{"case": "Stud')
    run(state, hours=1, only="Student's t over seeds")
    assert totals(state)["Student's t over seeds"]["n"] == 100
    assert "| Student's t over seeds |" in page(totals(state))
    assert "Not simulated yet: student" in page(totals(state))


def test_what_was_simulated_by_other_code_does_not_count(tmp_path, monkeypatch):
    state = tmp_path / "state.jsonl"
    monkeypatch.setattr("calibrate.SIMULATIONS", 100)
    run(state, hours=1, only="Student's t over seeds")
    first, second = (json.loads(line) for line in state.read_text().splitlines())
    state.write_text("".join(json.dumps(one | {"counts": {"n": 7}}) + "\n" for one in (first, second)))
    run(state, hours=1, only="Student's t over seeds")
    assert totals(state)["Student's t over seeds"] == {"n": 14}  # the same code: nothing is done again
    state.write_text("".join(json.dumps(one | {"drawn": 1}) + "\n" for one in (first, second)))
    run(state, hours=1, only="Student's t over seeds")
    assert [json.loads(line)["drawn"] for line in state.read_text().splitlines()] == [
        first["drawn"],
        second["drawn"],
    ]


def test_the_page_has_every_case_and_none_that_misses():
    text = PAGE.read_text()
    rows = {
        line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")
    }
    assert set(cases()) <= set(rows), "make calibrate"
    assert not [row for row in rows.values() if "misses" in row or "too often" in row]
    assert "Not simulated" not in text


def test_the_same_block_is_the_same_numbers():
    case = cases()["student"]
    assert simulate(case, 20, block=3) == simulate(case, 20, block=3)
