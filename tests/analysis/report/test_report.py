"""A report shows everything that is there, says what is not, and takes names as text."""

import html
import json
import re
import shlex
import shutil
from decimal import Decimal
from pathlib import Path

import duckdb
import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx import helper as oh
from pagereader import Reader
from reportstores import HOSTILE, analysed, dense_demo, hostile_model

from emergraph import api
from emergraph.analysis.registry import Known, built_in
from emergraph.analysis.report.collect import collect_report, without
from emergraph.analysis.report.document import Attempt, Section
from emergraph.analysis.report.html import report_page
from emergraph.analysis.report.texts import cell, number
from emergraph.cli.jsonform import json_text
from emergraph.exporters.export import export_onnx
from emergraph.exporters.traces.record import record_trace
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.store import open_store

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
FULL = {"map", "emergence", "pruning", "landscape", "percolation", "topology"}


@pytest.fixture(scope="module")
def report(analysed_store):
    with open_store(analysed_store) as opened:
        return collect_report(opened.graph())


@pytest.fixture(scope="module")
def page(report):
    return report_page(report)


def test_every_section_is_there_and_filled_where_there_is_data(report, page):
    assert {section.id for section in report.sections} == {
        one.section.id for one in built_in() if one.section
    } | {
        *("summary", "map", "provenance"),
    }
    for section in report.sections:
        assert f'<section id="{section.id}"' in page
        empty = section.id not in FULL | {"summary", "provenance"}
        assert (section.missing is not None or section.why_missing is not None) == empty, section.id
    information = report.section("information")  # of sequences, which this network does not read
    assert (information.missing, "embedding" in str(information.why_missing)) == (None, True)


def test_an_empty_section_names_its_command(tmp_path):
    path = tmp_path / "net.duckdb"
    api.export(dense_demo(), path, name="dense")
    attempt = Attempt(command="emergraph prune net.duckdb", state="out of time", seconds=3.0)
    command = "emergraph landscape m.onnx --store net.duckdb --input-shape=x=1,3,8,8 --seed 0"
    cut = Attempt(command=command, held_to="--budget 6s", state="failed", seconds=3.0, message="too large")
    with open_store(path) as opened:
        report = collect_report(opened.graph(), attempts=[attempt, cut], budget=10.0)
    assert report.section("percolation").missing == "emergraph percolate net.duckdb --graph dense"
    assert report.section("percolation").why_missing is None
    assert report.section("pruning").why_missing == "out of time"
    assert report.section("landscape").missing == command
    assert report.section("landscape").why_missing == "failed: too large"
    page = html.unescape(report_page(report))
    assert "emergraph percolate net.duckdb --graph dense" in page
    assert "Not finished in the budget of 10 s, or failed: prune, landscape." in page
    assert "No activation trace" in page


def test_every_figure_has_definition_seed_command_and_sql(report, page, analysed_store):
    text = html.unescape(page)
    lines = re.findall(r"<code>(emergraph sql .*?)</code>", page, re.DOTALL)
    asked = {shlex.split(html.unescape(line))[3].strip() for line in lines}
    assert len(asked) > 12
    with open_store(analysed_store) as opened:
        for sql in asked:
            opened.connection.execute(sql).fetchall()
    for section in report.sections:
        for data in section.figures:
            assert data.figure.definition in text
            for sql in data.sql.values():
                assert sql.strip() in asked
            for run in data.runs:
                assert report.commands[run.id] in text
    assert "Run " in text
    assert "seed 0" in text


def test_numbers_that_mean_nothing_alone_stand_beside_what_chance_gives(report, tmp_path, analysed_store):
    said = report.section("emergence").finding
    assert "With the active units of each layer chosen at random it is" in said
    assert "on average of 10 draws" in said
    assert "; by chance at" in report.section("percolation").finding
    alone = shutil.copy(analysed_store, tmp_path / "alone.duckdb")
    with duckdb.connect(str(alone)) as connection:
        connection.execute("DROP TABLE emergence_nulls")
        connection.execute(
            "UPDATE runs SET result_tables = list_filter(result_tables, lambda t: t <> 'emergence_nulls')"
        )
    with open_store(alone) as opened:
        assert (
            "The number alone says little: --full"
            in collect_report(opened.graph()).section("emergence").finding
        )


def test_a_note_of_the_summary_is_not_said_again_in_sections():
    sections = [Section(id=name, title="", lead="", notes=("sizes are free", name)) for name in "ab"]
    kept = [without(section, ["Sizes are free."]).notes for section in sections]
    assert kept == [("a",), ("b",)]


def test_random_inputs_are_said_to_be_random(page):
    assert "12 random inputs (seed 3), not on real ones" in page


def test_sizes_that_nobody_decided_are_told(tmp_path):
    weights = numpy_helper.from_array(np.ones((2, 1, 3, 3), dtype=np.float32), "w")
    graph = oh.make_graph(
        [oh.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        "g",
        [oh.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "Height", "Width"])],
        [oh.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    onnx.save(
        oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=9), tmp_path / "m.onnx"
    )
    with open_store(tmp_path / "m.duckdb", mode="create") as store:
        export_onnx(tmp_path / "m.onnx", store)
        record_trace(store, None, tmp_path / "m.onnx", RandomInputs(2))
    with open_store(tmp_path / "m.duckdb") as opened:
        page = report_page(collect_report(opened.graph()))
    assert "Input &#39;x&#39; has free sizes and ran at [1, 1, 2, 3], perhaps far from real ones" in page


def test_the_page_can_load_and_run_nothing(page):
    reader = Reader(page)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & set(reader.tags)
    for name, value in reader.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "data:,")), value
        assert name != "style"
    policy = next(value for name, value in reader.attributes if name == "content" and "default" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert len(page.encode()) < 5_000_000


def test_hostile_names_are_text(tmp_path, page):
    path = tmp_path / "'<b>\" net.duckdb"
    analysed(path, hostile_model(tmp_path / "hostile.onnx"), name="<i>\x1b[0m\u202e{{1}}", survey=False)
    with open_store(path) as opened:
        report = collect_report(opened.graph())
    hostile = report_page(report)
    reader = Reader(hostile)
    assert set(reader.tags) <= set(Reader(page).tags) | {"p"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", hostile)
    text = "".join(reader.texts)
    assert "<script>document.title='pwned'</script>" in text
    assert "\\x1b[31mred" in text
    assert "safe\\u202egnp.exe\\u2066" in text
    assert "{{7*7}}" in text
    rows = report.section("map").tables[0].frame["name"].to_list()
    assert set(HOSTILE) <= set(rows)


def test_the_json_form_follows_its_schema(report, tmp_path):
    document = json.loads(json_text(report))
    jsonschema.validate(document, SCHEMA)
    layers = next(section for section in document["sections"] if section["id"] == "map")
    assert layers["figures"][0]["data"]["layers"][0]["name"] == "pixels"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "form": "something else"}, SCHEMA)


def test_command_lines_are_quoted_for_a_shell(report):
    run = report.section("percolation").figures[0].runs[0]
    line = Known(analyses=built_in()).repeat(run, store="my net.duckdb", graph="$(rm -rf ~)\x1b[0m")
    assert "'my net.duckdb'" in line
    assert "'$(rm -rf ~)\\x1b[0m'" in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (Decimal(104168), "104,168"),
        ([], "–"),
        ([1, "a\x00"], "1, a\\x00"),
        ({"a": 1}, '{"a": 1}'),
    ],
)
def test_cells(value, shown):
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (12345.678, "12,350"), (1e-9, "1e-09"), (float("nan"), "nan")]
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_results_of_an_older_version_are_shown_without_the_columns_that_it_lacked(analysed_store, tmp_path):
    older = tmp_path / "older.duckdb"
    shutil.copy(analysed_store, older)
    with duckdb.connect(older) as connection:
        for column in ("giant_spread_low", "giant_spread_high"):
            connection.execute(f'ALTER TABLE percolation_curve DROP COLUMN "{column}"')
    before = older.read_bytes()
    with open_store(older) as opened:
        report = collect_report(opened.graph())
    assert report.section("percolation").missing is None
    assert "Percolation" in report_page(report)
    assert older.read_bytes() == before
