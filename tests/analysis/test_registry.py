"""Every analysis is declared once, its declaration is cheap to import, and it is run by its name."""

import subprocess
import sys

import pytest
from clifiles import DEMO

from emergraph import api
from emergraph.analysis.access import chosen_options
from emergraph.analysis.declaration import Analysis, Subject
from emergraph.analysis.percolation.options import OrderOptions, PercolationOptions
from emergraph.analysis.registry import BUILT_IN, analysis_named, built_in
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.cli.commands import COMMANDS
from emergraph.errors import UsageError


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return api.export(DEMO / "digits_dense.onnx", tmp_path_factory.mktemp("registry") / "net.duckdb")


def test_declarations_load_nothing_heavy():
    program = (
        "import sys\n"
        "from emergraph.analysis.registry import built_in\n"
        "built_in()\n"
        "heavy = {'numpy', 'polars', 'duckdb', 'onnx', 'onnxruntime', 'torch', 'igraph', 'altair', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_names_are_those_of_the_commands():
    assert [one.name for one in built_in()] == list(BUILT_IN)
    assert {name.split()[0] for name in BUILT_IN} <= COMMANDS.keys()
    for one in built_in():
        assert COMMANDS.get(one.name, one.summary) == one.summary


def test_no_two_analyses_share_a_table_and_figures_have_names_of_their_own():
    tables = [table.name for one in built_in() for table in one.tables]
    figures = [figure.name for one in built_in() for figure in one.figures()]
    assert len(set(tables)) == len(tables)
    assert len(set(figures)) == len(figures)


def test_an_analysis_runs_by_its_name(graph):
    found = graph.analyse("topology", TopologyOptions(nulls=0, spectra=False, motifs=False), save=False)
    assert found.spectra is None
    kept = graph.analyse("percolate", PercolationOptions(seeds=1, nulls=0))
    assert kept.observed.threshold == graph.percolate(kept.options, save=False).observed.threshold
    runs = api.open_store(graph.path).runs
    assert runs["command"].to_list() == ["percolate"]
    assert runs["duration"][0] > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("toplogy", (), "unknown analysis 'toplogy'; available: "),
        ("landscape", (), "landscape is not about a graph of a store"),
        ("concepts", (), "concepts is not about a graph of a store"),
        ("trajectory", (), "trajectory is not about a graph of a store"),
        ("topology", (OrderOptions(),), "expected at most one each of TopologyOptions; found OrderOptions"),
        ("topology", (TopologyOptions(), TopologyOptions()), "at most one each of TopologyOptions"),
    ],
)
def test_what_cannot_be_run_is_said(graph, name, options, message):
    with pytest.raises(UsageError, match=message):
        graph.analyse(name, *options)


def test_options_that_are_not_given_are_at_their_defaults():
    chosen = chosen_options(analysis_named("percolate"), [PercolationOptions(seed=4)])
    assert chosen == [OrderOptions(), PercolationOptions(seed=4)]


def test_the_command_that_repeats_a_run_of_a_file_names_it():
    about = Analysis(name="skills fit", summary="", of=Subject.FILE)
    words = about.repeat({"source": "my curves.csv"}, None, store="a.duckdb", graph="g")
    assert words == "emergraph skills fit 'my curves.csv' --store a.duckdb"
