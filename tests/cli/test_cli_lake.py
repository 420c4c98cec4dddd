"""`convert --to lake` and `sql LAKE`: as on a store."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from lockedsql import ask

from emergraph.graphstore.recipes import recipes


@pytest.fixture
def lake(run, traced, tmp_path):
    """A store with traces and a run, and its lake."""
    words = ["emergence", traced, "--graph", "digits_dense", "--thresholds", "0.1,0.5", "--out", "/dev/null"]
    assert run(*words).code == 0
    made = run("convert", traced, "--to", "lake", "--out", tmp_path / "lake", "--format", "json")
    assert made.code == 0, made.err
    assert [row["name"] for row in json.loads(made.out)["graphs"]] == ["digits_conv", "digits_dense"]
    return tmp_path / "lake"


def test_every_recipe_answers_as_on_the_store(lake, traced):
    for recipe in recipes():
        expected, found = ask(traced, recipe.sql), ask(lake, recipe.sql)
        assert found.equals(expected), recipe.name
        assert expected.height or recipe.name in ("unused-inputs", "shared-tensors", "dead-units"), (
            recipe.name
        )


def test_the_command_asks_a_lake_as_a_store(run, lake, traced, tmp_path):
    for words in (["--recipe", "layers"], ["SELECT count(*) AS n FROM unit_activations", "--format", "csv"]):
        asked, expected = run("sql", lake, *words), run("sql", traced, *words)
        assert (asked.code, asked.out) == (0, expected.out)
    assert run("sql", lake, "FROM layers", "--out", tmp_path / "layers.parquet").code == 0
    assert (tmp_path / "layers.parquet").exists()
    refused = run("sql", lake, "SELECT * FROM read_text('/etc/passwd')")
    assert refused.code == 2
    (next(lake.glob("graph=*/units")) / "more.parquet").symlink_to("/etc/passwd")
    refused = run("sql", lake, "FROM units")
    assert refused.code == 4
    assert "is a link" in refused.err
    assert refused.err.count("\n") == 1


def test_one_graph_of_a_store(run, traced, tmp_path):
    words = ["--to", "lake", "--graph", "digits_conv", "--target", tmp_path / "lake"]
    assert run("convert", traced, *words).code == 0
    assert len(list((tmp_path / "lake").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "lake"], "--out FOLDER"),
        (["--to", "lake", "--out", "lake", "--max-edges", "3"], "--max-edges"),
        (["--to", "parquet", "--edges"], "--to lake"),
        (["--to", "lake", "--out", "nowhere/lake"], "name another one"),
        (["--to", "graphml", "--target", "x.graphml", "--out", "."], "is a folder"),
    ],
)
def test_what_does_not_go_together(run, traced, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    refused = run("convert", traced, *words)
    assert refused.code == 2
    assert told in refused.err
    assert not (tmp_path / "lake").exists()


def test_a_lake_that_is_a_file_is_refused(run, traced, tmp_path):
    (tmp_path / "lake").write_text("notes")
    assert run("convert", traced, "--to", "lake", "--out", tmp_path / "lake").code == 2
    assert (tmp_path / "lake").read_text() == "notes"


EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "lake"


@pytest.mark.parametrize(
    ("engine", "package"),
    [
        ("polars", "polars"),
        ("datafusion", "datafusion"),
        pytest.param("spark", "pyspark", marks=pytest.mark.slow),
    ],
)
def test_every_engine_gives_the_same_answers(run, exported, tmp_path, monkeypatch, engine, package):
    """DataFusion and Spark in an environment of their own: make test-lake."""
    pytest.importorskip(package)
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    assert run("convert", exported, "--to", "lake", "--out", tmp_path / "lake").code == 0
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "questions", raising=False)
    assert example(engine)(str(tmp_path / "lake")) == example("duckdb")(str(tmp_path / "lake"))


def example(engine):
    spec = importlib.util.spec_from_file_location(f"in_{engine}", EXAMPLES / f"in_{engine}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main
