"""Whoever infers anything from repetitions is listed, with the calibration that stands behind it."""

import ast
import re
from pathlib import Path

import pytest
from claims import CALLS, cases

ROOT = Path(__file__).parents[2]
ROOMS = ("analysis", "studies", "cli", "graphstore", "exporters", "src/emergraph")
STATISTICS = ROOT / "analysis" / "statistics"
DISTRIBUTIONS = {
    *("ppf", "isf", "cdf", "sf", "logcdf", "logsf", "percentile", "quantile", "nanquantile"),
    *("nanpercentile", "ndtr", "ndtri", "erf", "erfc", "erfinv", "stdtr", "stdtrit"),
    *("fdtrc", "fdtri", "chdtrc", "chdtri", "bdtri", "bdtrik", "betainc", "betaincinv", "gammaincc", "sem"),
}
"""What an interval or a p value by hand is made of."""
BY_HAND = {1.96, 1.959964, 1.645, 2.576}
"""Numbers that only an interval is made of, where no distribution is called."""
TESTS = {
    *("ttest_1samp", "ttest_ind", "ttest_rel", "pearsonr", "spearmanr", "kendalltau", "linregress"),
    *("mannwhitneyu", "wilcoxon", "kstest", "ks_2samp", "chi2_contingency", "fisher_exact", "binomtest"),
    *("permutation_test", "bootstrap", "monte_carlo_test", "proportion_ci", "false_discovery_control"),
}
NO_INFERENCE = {
    *("plain", "check_level", "checked_columns", "group_numbers", "known_ends", "all_equal"),
    *("normal_scores", "detrended_scores", "surrogates", "drift", "kpss", "least_p", "around"),
    "pair_correlations",
    *("order_distance", "order_correlation", "least_log_p"),
}
"""Functions of the house's statistics that give neither an interval nor a p value, or share their name."""


def house() -> set[str]:
    """Public functions of the room of statistics that give an interval, a p value or draws for one."""
    return {
        node.name
        for file in STATISTICS.glob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    } - NO_INFERENCE


def calls(text: str, names: set[str]) -> set[tuple[str, str]]:
    """Functions and methods of a module by qualified name, and which of the names each calls or passes on."""
    found = set()

    def walk(node: ast.AST, where: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                walk(child, (*where, child.name))
                continue
            if name := _inferring(child, names):
                found.add((".".join(where) or "module", name))
            walk(child, where)

    walk(ast.parse(text), ())
    return found


def _inferring(node: ast.AST, names: set[str]) -> str | None:
    """What of inference a node is, if anything."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "interval":
        return "interval"  # of a distribution: those of the house are properties
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
    if name in names and isinstance(getattr(node, "ctx", None), ast.Load):
        return name
    if isinstance(node, ast.keyword) and node.arg and re.fullmatch(r"p_value|p_two_sided", node.arg):
        return node.arg if not isinstance(node.value, ast.Attribute | ast.Constant) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and (level := _level(node.left)):
        return f"{level} **"
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value in BY_HAND:
        return str(node.value)
    return None


def _level(node: ast.AST) -> float | None:
    """The level that something is a power of, itself or divided among several."""
    values = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return next((value for value in values if value in (0.05, 0.01, 0.1)), None)


def call_sites() -> set[str]:
    names = house() | DISTRIBUTIONS | TESTS
    found = set()
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            if STATISTICS in file.parents or "emergraph/analysis" in file.as_posix().replace(
                ROOT.as_posix(), ""
            ):
                continue
            for function, name in calls(file.read_text(encoding="utf-8"), names):
                found.add(f"{file.relative_to(ROOT).with_suffix('')}:{function} {name}")
    return found


def test_every_place_that_infers_is_listed():
    found = call_sites()
    assert len(found) > 40
    assert sorted(found - set(CALLS)) == [], "an interval or p value without a calibration: see claims.py"
    assert sorted(set(CALLS) - found) == [], "an entry of claims.py that nothing needs any more"


def test_every_entry_names_a_simulation_or_says_why_not():
    for place, entry in CALLS.items():
        for name in (entry,) if isinstance(entry, str) else entry:
            assert name in cases() or name.startswith("none: "), f"{place}: {name}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from x import student\ndef f(v):\n    return student(v)", {("f", "student")}),
        ("class A:\n    def f(self):\n        return stats.t.ppf(0.9, 3)", {("A.f", "ppf")}),
        ("def f(v):\n    return partial(student, level=0.9)", {("f", "student")}),
        ("LIMIT = np.quantile(x, 0.9)", {("module", "quantile")}),
        ("def f(student):\n    return student_of(3)", set()),
        ("def f(m, e):\n    return m + 1.96 * e", {("f", "1.96")}),
        ("def f(n):\n    return 1 - 0.05 ** (1 / n)", {("f", "0.05 **")}),
        ("def f(n, m):\n    return 1 - (0.05 / m) ** (1 / n)", {("f", "0.05 **")}),
        ("def f(n):\n    return 1 - n ** 0.05", set()),
        ("def f(v):\n    return stats.norm.sf(v)", {("f", "sf")}),
        ("def f(v):\n    return stats.t.interval(0.95, 3)", {("f", "interval")}),
        ("def f(n):\n    return Found(p_value=min(1.0, 2 * n))", {("f", "p_value")}),
    ],
)
def test_a_new_call_is_seen(text, expected):
    assert calls(text, {"student"} | DISTRIBUTIONS) == expected
