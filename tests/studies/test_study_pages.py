"""The headline numbers of each study's page, computed again from its stored results."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from blockinformation.page import write_page as write_information
from functional.page import page_text as functional_page
from functional_study import listed
from lineagenets.experiment import auroc
from lineagenets.page import write_page as write_lineage
from pathcounts.claims import CLAIMS, initialisation_effects, judged, primary, training_effects
from pathcounts.page import read_tables
from percolation_study import PLANS, RECORDED
from percolation_study import write_page as write_percolation
from planned import VERDICTS, answers, read_plan
from ruggedness.correlate import correlations
from ruggedness.findings import primary as ruggedness_primary
from ruggedness.page import page as ruggedness_page
from skills_study import FULL, analyse
from skillsmodel.page import write_page as write_skills
from smallnets.page import write_page as write_smallnets
from transfer.page import write_page as write_transfer

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies" / "results"
DOCS = ROOT / "docs"


def test_the_page_of_skills_is_what_its_results_say(tmp_path):
    for name in ("curves", "snapshots"):
        (tmp_path / f"{name}.parquet").symlink_to(RESULTS / "skills" / f"{name}.parquet")
    analyse(FULL, tmp_path)
    write_skills(tmp_path, tmp_path / "skills-study.md")
    assert (tmp_path / "skills-study.md").read_text() == (DOCS / "skills-study.md").read_text()


def test_the_page_of_structure_and_function_is_what_its_results_say():
    rows = [json.loads(row) for row in (RESULTS / "functional" / "files.jsonl").read_text().splitlines()]
    text = (DOCS / "functional-study.md").read_text()
    assert functional_page(rows, listed()[1]) == text
    done = [row for row in rows if "refused" not in row]
    assert f"onnxruntime runs: {len(done)}." in text
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


def same_rows(again, stored, keys, names):
    """The same tests, and the same figures to rounding."""
    both = again.join(stored, on=keys, suffix="_stored", nulls_equal=True)
    assert both.height == again.height > 0
    for name in names:
        left, right = (both[column].cast(pl.Float64).to_numpy() for column in (name, f"{name}_stored"))
        assert left == pytest.approx(right, rel=1e-6, nan_ok=True), name


KEYS, FOUND = ["claim", "setting", "count"], ("n", "mean", "low", "high", "p", "p_holm")


def test_the_answers_about_path_counts_are_those_of_the_stored_nets():
    """The plan's tests again, from the networks that they are about; and each stands on the page."""
    groups = read_tables(RESULTS / "pathcounts")
    paper = (pl.col("rule") == "mean") & (pl.col("threshold") == 0.05)
    effects = []
    for name in {claim["group"] for claim in read_plan("pathcounts")["claims"].values()}:
        plan, counts, metrics = groups[name]
        found = initialisation_effects if plan.arms else training_effects
        effects += found(name, counts.filter(paper), metrics)
    again, stored = primary(judged(effects)), pl.read_parquet(RESULTS / "pathcounts" / "primary.parquet")
    same_rows(again, stored, KEYS, FOUND)
    assert stored.height == 3 * len(read_plan("pathcounts")["claims"])
    assert answers("pathcounts", again) in (DOCS / "study.md").read_text()


def test_the_exploratory_claims_are_those_of_the_stored_nets():
    """Of one group and rule; the page counts the stored table of claims."""
    plan, counts, metrics = read_tables(RESULTS / "pathcounts")["digits"]
    again = judged(list(training_effects(plan.name, counts.filter(rule="any"), metrics)))
    stored = pl.read_parquet(RESULTS / "pathcounts" / "claims.parquet").filter(group="digits")
    same_rows(again, stored, ["claim", "form", "rule", "interior", "detail"], ("mean", "low", "high", "p"))


def test_the_page_of_path_counts_counts_its_claims():
    claims = pl.read_parquet(RESULTS / "pathcounts" / "claims.parquet")
    text = (DOCS / "study.md").read_text()
    for claim, words in CLAIMS.items():
        own = claims.filter(claim=claim)
        found = [str((own["verdict"] == verdict).sum()) for verdict in VERDICTS]
        assert f"| {words} | {own.height} | {' | '.join(found)} |" in text


def test_the_page_of_ruggedness_is_what_its_results_say():
    folder = RESULTS / "ruggedness"
    tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("networks", "seeds")}
    stored = pl.read_parquet(folder / "correlations.parquet")
    tested = ruggedness_primary(tables)
    assert tested["claim"].to_list() == list(read_plan("ruggedness")["claims"])
    assert ruggedness_page(*tables.values(), stored, tested) == (DOCS / "ruggedness-study.md").read_text()
    again = correlations(tables["networks"], only=("filter_rise", "hessian_trace"), permutations=99)
    assert again.height == 2 * (3 * 4 + 1)
    same_rows(again, stored, ["measure", "statistic", "control"], ("rho", "low", "high"))


def test_the_page_of_percolation_is_what_its_results_say(tmp_path):
    for file in (RESULTS / "grammar").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "tables.md").unlink()
    write_percolation(PLANS, RECORDED, tmp_path, tmp_path)
    for written, kept in (
        ("percolation-study.md", DOCS / "percolation-study.md"),
        ("tables.md", RESULTS / "grammar" / "tables.md"),
    ):
        assert (tmp_path / written).read_text() == kept.read_text()


def test_the_page_of_small_networks_is_what_its_results_say(tmp_path):
    for name in ("networks", "noise"):
        (tmp_path / f"{name}.parquet").symlink_to(RESULTS / "smallnets" / f"{name}.parquet")
    write_smallnets(tmp_path, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (DOCS / "smallnets-study.md").read_text()
    assert (tmp_path / "tables.md").read_text() == (RESULTS / "smallnets" / "tables.md").read_text()


def test_the_page_of_transfer_is_what_its_results_say(tmp_path):
    for name in ("tasks", "vgg"):
        (tmp_path / f"{name}.parquet").symlink_to(RESULTS / "transfer" / f"{name}.parquet")
    write_transfer(tmp_path, RESULTS / "pathcounts", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (DOCS / "transfer-study.md").read_text()


def test_the_page_of_information_is_what_its_results_say(tmp_path):
    for file in (RESULTS / "information").iterdir():
        shutil.copy(file, tmp_path)
    write_information(tmp_path, tmp_path / "information-study.md")
    for written, kept in (
        ("information-study.md", DOCS / "information-study.md"),
        ("tables.md", RESULTS / "information" / "tables.md"),
    ):
        assert (tmp_path / written).read_text() == kept.read_text()
