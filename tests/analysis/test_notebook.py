"""What notebooks show of graphs, stores and results."""

from html.parser import HTMLParser

import pytest
from reportstores import HOSTILE, hostile_model

from emergraph import api
from emergraph.analysis.comparison.difference import Difference, compare
from emergraph.analysis.emergence.fullreport import EmergenceReport
from emergraph.analysis.emergence.intervals import BootstrapResult
from emergraph.analysis.emergence.result import EmergenceResult
from emergraph.analysis.emergence.thresholds import ThresholdSweep
from emergraph.analysis.landscape.surveyresult import Survey
from emergraph.analysis.notebook import ROWS, ShownInNotebooks, html_of
from emergraph.analysis.percolation.percolate import PercolationResult
from emergraph.analysis.pruning.whatif import PruningResult
from emergraph.analysis.report.collect import collect_report
from emergraph.analysis.report.document import Report
from emergraph.analysis.topology.topology import TopologyResult
from emergraph.graphstore.store import open_store

RESULTS = (
    *(EmergenceResult, EmergenceReport, ThresholdSweep, BootstrapResult, PercolationResult, PruningResult),
    *(TopologyResult, Survey, Difference, Report),
)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        assert attrs == []


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.__name__)
def test_every_result_has_a_table_form(result):
    assert result._repr_html_ is ShownInNotebooks._repr_html_
    assert result.to_dict is not ShownInNotebooks.to_dict


def test_a_graph_and_its_results(analysed_store):
    store = api.open_store(analysed_store)
    graph = store.graph()
    assert "dense" in store._repr_html_()
    shown = graph._repr_html_()
    assert "hidden1" in shown
    assert "5,018" in shown
    result = graph.emergence(save=False)
    assert f"{result.any.exact:,}" in result._repr_html_()
    assert "equal" in graph.diff(graph)._repr_html_()
    assert "Percolation" in graph.report()._repr_html_()


def test_what_people_look_at_is_what_the_commands_make(analysed_store, tmp_path):
    graph = api.open_store(analysed_store).graph()
    with open_store(analysed_store) as opened:
        collected = collect_report(opened.graph())
        found = compare(opened.graph(), opened.graph())
    made = graph.report(tmp_path / "page.html")
    assert made.section("emergence").facts == collected.section("emergence").facts
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(f'<section id="{section.id}"' in page for section in collected.sections)
    assert graph.diff(graph).verdict == found.verdict


def test_names_are_text(tmp_path):
    graph = api.export(hostile_model(tmp_path / "h.onnx"), tmp_path / "net.duckdb", name=HOSTILE[0])
    for shown in (graph._repr_html_(), api.open_store(tmp_path / "net.duckdb")._repr_html_()):
        assert Tags(shown).found <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
        assert "\x1b" not in shown
        assert "\u202e" not in shown


def test_long_tables_are_cut_and_say_how_long_they_are():
    shown = html_of("T", {"rows": [{"x": i} for i in range(50)]})
    assert shown.count("<tr>") == ROWS + 1
    assert "rows (50)" in shown
