"""The page on emergence shows what its script prints, and its claims hold."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "emergence.md"
SCRIPT = ROOT / "examples" / "convention_sensitivity.py"


@pytest.fixture(scope="module")
def printed():
    spec = importlib.util.spec_from_file_location("convention_sensitivity", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.report()


def numbers(line):
    return [float(n) for n in re.findall(r"(?<![\w.])-?\d+\.?\d*", line)]


def line_of(printed, start):
    return next(line for line in printed.splitlines() if line.startswith(start))


def test_the_page_holds_the_literal_output(printed):
    assert f"```text\n{printed}```\n" in PAGE.read_text(encoding="utf-8")


def test_rules_differ(printed):
    counts = {
        rule: numbers(line_of(printed, rule))[-2:] for rule in ("mean ", "mean_abs", "any ", "majority")
    }
    active, anyway = zip(*counts.values(), strict=True)
    assert max(active) / min(active) > 2
    assert max(anyway) / min(anyway) > 5


def test_rescaling_moves_the_published_rule_and_not_the_contribution(printed):
    rows = [numbers(line_of(printed, c)) for c in ("0.01", "0.1 ", "1.0 ", "10.0")]
    assert all("below 1e-12" in line_of(printed, c) for c in ("0.01", "0.1 ", "1.0 ", "10.0"))
    means = [row[-4] for row in rows]
    assert round(max(means) / min(means)) == 31
    assert len({tuple(row[-2:]) for row in rows}) == 1


def test_the_dense_formula_overstates(printed):
    formula, real = (
        numbers(line_of(printed, start)) for start in ("formula for dense", "count on the pruned")
    )
    assert [round(f / r) for f, r in zip(formula, real, strict=True)] == [15, 16]


def test_the_null_of_the_dense_network_is_degenerate(printed):
    assert line_of(printed, "dense   activity_in_layers").endswith("degenerate")
    assert not line_of(printed, "pruned  activity_in_layers").endswith("degenerate")
