"""Percolation from a store: SQL orders, result tables, the command."""

import json

import numpy as np
import pytest
from storegraphs import make_store, random_chain

import emergraph
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import contribution_key, percolate, sql_keys
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.cli.main import main
from emergraph.errors import UsageError
from emergraph.graphstore.store import open_store


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "net.duckdb")


def test_an_expression_orders_like_the_same_numbers(path):
    keys = sql_keys(path, 0, "abs(weight)", kinds=["weight"])
    expected = np.concatenate([np.abs(matrix).ravel() for matrix in random_chain([3, 4, 2])])
    assert keys == pytest.approx(expected)
    graph = emergraph.open(path).graph()
    by_sql, by_name = graph.percolate(order="abs(weight)"), graph.percolate()
    assert by_sql.order == "abs(weight)"
    assert by_sql.summary().equals(by_name.summary())


@pytest.mark.parametrize(
    "expression", ["nothing", "weight) FROM edges; (SELECT 1", "weight, weight", "(DELETE FROM edges)"]
)
def test_what_is_no_number_per_edge_is_refused(path, expression):
    before = path.read_bytes()
    with pytest.raises(UsageError, match="order"):
        sql_keys(path, 0, expression, kinds=["weight"])
    assert path.read_bytes() == before


def test_results_are_kept(path):
    graph = emergraph.open(path).graph()
    result = graph.percolate(PercolationOptions(seeds=2, nulls=2))
    with open_store(path) as store:
        stored = store.results("percolation")
        assert stored["threshold"].to_list() == result.summary()["threshold"].to_list()
        assert store.results("percolation_curve").height == result.curve().height
        assert store.results("percolation_blocks")["predicted"].to_list() == pytest.approx([12**0.5, 8**0.5])
        assert store.runs("percolate").height == 1
        in_memory = percolate(read_unit_graph(store.graph()))
    assert in_memory.observed.threshold == result.observed.threshold
    graph.percolate(save=False)
    assert emergraph.open(path).runs.height == 1


def test_the_command_shows_thresholds_and_the_curve(path, capfd):
    assert main(["percolate", str(path), "--format", "json", "--nulls", "2"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert [row["series"] for row in shown["thresholds"]] == ["observed", "shuffled within blocks", "random"]
    assert shown["curve"][0]["edges"] == 0
    assert main(["percolate", str(path), "--structure", "absent", "--kinds", "weight", "--no-save"]) == 0
    assert "expected from layers" in capfd.readouterr().out
    assert main(["percolate", str(path), "--order", "activity"]) == 2


def test_contributions_have_to_be_measured_first(path):
    with pytest.raises(UsageError, match="contributions were not measured; `emergraph contributions"):
        contribution_key(path, 1)
