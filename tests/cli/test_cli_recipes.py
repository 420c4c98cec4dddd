"""Recipes: every question has an answer, and the page has it literally."""

import contextlib
import io
from pathlib import Path

import pytest

from emergraph.cli.main import main
from emergraph.cli.recipepage import recipe_page
from emergraph.cli.tables import plain_text
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.query import _plain_integers
from emergraph.graphstore.recipes import _FOLDER, recipe, recipes
from emergraph.graphstore.store import open_store

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"


@pytest.fixture(scope="module")
def demo_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["demo", "--dir", str(folder)]) == 0
    return folder / "digits.duckdb"


def test_there_are_at_least_twelve_and_every_file_is_listed():
    assert len(recipes()) >= 12
    assert {path.stem for path in _FOLDER.glob("*.sql")} == {each.name for each in recipes()}
    assert all(each.question.endswith("?") for each in recipes())


def test_the_page_holds_the_literal_answers(demo_store):
    with open_store(demo_store) as store:
        page = recipe_page(lambda sql: plain_text({}, [_plain_integers(fetch_frame(store.connection, sql))]))
    assert PAGE.read_text(encoding="utf-8") == page, (
        "python -m emergraph.cli.recipepage STORE > docs/recipes.md"
    )


def test_the_command_asks_a_recipe(demo_store, capfd):
    assert main(["sql", str(demo_store), "--recipe", "coverage"]) == 0
    out, err = capfd.readouterr()
    assert out in PAGE.read_text(encoding="utf-8")
    assert recipe("coverage").question in err


def test_recipes_are_listed(demo_store, capfd):
    assert main(["sql", str(demo_store), "--recipe", "list"]) == 0
    out, _ = capfd.readouterr()
    assert all(each.name in out for each in recipes())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "hups"], "hubs"),
        ([], "--recipe NAME"),
        (["SELECT 1", "--recipe", "hubs"], "--recipe NAME"),
    ],
)
def test_what_cannot_be_asked(demo_store, capfd, words, told):
    assert main(["sql", str(demo_store), *words]) == 2
    assert told in capfd.readouterr().err
