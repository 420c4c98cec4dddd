"""Every recipe on every third-party model file: it runs, and no row says nan."""

import re

import making
import polars as pl
import pytest

from emergraph.analysis.resultpage import command_filling
from emergraph.cli.main import main
from emergraph.errors import StoreError
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.recipes import recipes
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.models
LARGE = 4_000_000
"""Edges of graphs whose activations would take a minute."""


@pytest.mark.parametrize(
    ("path", "options"), [pytest.param(path, words, id=name) for name, path, words in making.third_party()]
)
def test_every_recipe_runs(path, options, tmp_path, capsys):
    store = str(tmp_path / "net.duckdb")
    code = main(["export", str(path), store, *options, "--quiet"])
    if code in (3, 4):
        pytest.skip(capsys.readouterr().err)
    assert code == 0
    with open_store(store) as opened:
        large = int(str(opened.graph().summary["n_edges"])) > LARGE
    if not large:  # weight files have nothing to run
        main(["trace", store, "--random", "4", "--model", str(path), *options, "--quiet"])
    with open_store(store) as opened:
        for each in recipes():
            try:
                frame = fetch_frame(opened.connection, each.sql)
            except StoreError as error:  # what no command has filled yet is said in words, see `sql`
                missing = re.search(r"Table with name (\w+) does not exist", str(error))
                assert missing is not None, each.name
                assert command_filling(missing[1]) is not None, each.name
                continue
            numbers = frame.select(pl.col(pl.Float32, pl.Float64))
            nan = [name for name in numbers.columns if numbers[name].is_nan().any()]
            assert not nan, f"{each.name}: {nan}"
