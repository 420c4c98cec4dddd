"""The headline numbers of each study's page, computed again from its stored results."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from blockinformation.page import write_page as write_information
from functional.page import page_text as functional_page
from lineagenets.experiment import auroc
from lineagenets.page import write_page as write_lineage
from pathcounts.claims import CLAIMS, VERDICTS, judged, training_effects
from pathcounts.page import read_tables
from ruggedness.correlate import correlations
from ruggedness.page import page as ruggedness_page
from skills_study import FULL, SEEDS, analyse
from skillsmodel.page import write_page as write_skills

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies" / "results"
DOCS = ROOT / "docs"


def test_the_page_of_skills_is_what_its_results_say(tmp_path):
    for name in ("curves", "snapshots"):
        (tmp_path / f"{name}.parquet").symlink_to(RESULTS / "skills" / f"{name}.parquet")
    analyse(FULL, SEEDS, tmp_path)
    write_skills(tmp_path, tmp_path / "skills-study.md")
    assert (tmp_path / "skills-study.md").read_text() == (DOCS / "skills-study.md").read_text()


def test_the_page_of_structure_and_function_is_what_its_results_say():
    rows = [json.loads(row) for row in (RESULTS / "functional" / "files.jsonl").read_text().splitlines()]
    text = (DOCS / "functional-study.md").read_text()
    assert functional_page(rows) == text
    done = [row for row in rows if "refused" not in row]
    assert f"{len(done)} of which were measured" in text
    assert sum(row["units"] for row in done) > 100
    for row in done:
        shares = [1.0, *(row[f"share_{share}"] for share in ("0.001", "0.01", "0.1"))]
        assert shares == sorted(shares, reverse=True), "fewer paths along stronger edges"


def test_the_page_of_lineage_is_what_its_results_say(tmp_path):
    shutil.copy(DOCS / "lineage.md", tmp_path / "lineage.md")
    write_lineage(RESULTS / "lineage", tmp_path / "lineage.md")
    assert (tmp_path / "lineage.md").read_text() == (DOCS / "lineage.md").read_text()
    pairs = pl.read_parquet(RESULTS / "lineage" / "pairs.parquet")
    assert pairs["architecture"].n_unique() == 6
    for _, own in pairs.group_by("architecture"):
        assert auroc(own) >= 0.99
        assert not own.filter(pl.col("related") & (pl.col("truth") == "independent")).height
        known = own.filter(pl.col("truth").is_not_null() & (pl.col("truth") != "independent"))
        assert known.height >= 50
        assert (known["truth"] == known["kind"]).mean() >= 0.9


def test_the_counts_of_path_count_claims_are_those_of_the_stored_nets():
    """Of one group: what it adds to the page is in the stored table of claims, which the page counts."""
    plan, counts, metrics = read_tables(RESULTS / "pathcounts")["digits"]
    again = judged(list(training_effects(plan.name, counts, metrics)))
    stored = pl.read_parquet(RESULTS / "pathcounts" / "claims.parquet").filter(group="digits")
    keys = ["claim", "form", "rule", "interior", "detail"]
    both = again.join(stored, on=keys, suffix="_stored")
    assert both.height == again.height > 100
    for name in ("mean", "low", "high", "p"):
        left, right = (both[column].cast(pl.Float64).to_numpy() for column in (name, f"{name}_stored"))
        assert left == pytest.approx(right, rel=1e-6, nan_ok=True)


def test_the_page_of_path_counts_counts_its_claims():
    claims = pl.read_parquet(RESULTS / "pathcounts" / "claims.parquet")
    text = (DOCS / "study.md").read_text()
    for claim, words in CLAIMS.items():
        own = claims.filter(claim=claim)
        found = [str((own["verdict"] == verdict).sum()) for verdict in VERDICTS]
        assert f"| {words} | {own.height} | {' | '.join(found)} |" in text


def test_the_page_of_ruggedness_is_what_its_correlations_say():
    nets = pl.read_parquet(RESULTS / "ruggedness" / "networks.parquet")
    stored = pl.read_parquet(RESULTS / "ruggedness" / "correlations.parquet")
    assert ruggedness_page(nets, stored) == (DOCS / "ruggedness-study.md").read_text()
    again = correlations(nets, only=("filter_rise", "hessian_trace"), permutations=99)
    keys = ["measure", "statistic", "control"]
    both = again.join(stored, on=keys, suffix="_stored")
    assert both.height == again.height == 2 * (3 * 4 + 1)
    for name in ("rho", "low", "high"):
        left, right = (both[column].cast(pl.Float64).to_numpy() for column in (name, f"{name}_stored"))
        assert left == pytest.approx(right, nan_ok=True)


def test_the_page_of_percolation_has_its_exponents():
    exponents = pl.read_parquet(RESULTS / "grammar" / "exponents.parquet").filter(method="collapse")
    text = (DOCS / "percolation-study.md").read_text()
    shown = exponents.filter(pl.col("capability").is_in(["descriptive types", "unseen pairs"]))
    assert shown.height >= 8
    for row in shown.iter_rows(named=True):
        cells = f"| {row['exponent']:.2f} | {row['low']:.2f} to {row['high']:.2f} | {row['verdict']} |"
        assert cells in text, row


def test_the_page_of_information_is_what_its_results_say(tmp_path):
    for file in (RESULTS / "information").iterdir():
        shutil.copy(file, tmp_path)
    write_information(tmp_path, tmp_path / "information-study.md")
    for written, kept in (
        ("information-study.md", DOCS / "information-study.md"),
        ("tables.md", RESULTS / "information" / "tables.md"),
    ):
        assert (tmp_path / written).read_text() == kept.read_text()
