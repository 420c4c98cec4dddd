"""`report`, `plot` and `diff` from the command line."""

import html
import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
from clifiles import DEMO
from reportstores import hostile_model

from emergraph import api
from emergraph.cli import reportsteps
from emergraph.cli.commands.audit import AuditOutput
from emergraph.cli.commands.diff import DiffOutput
from emergraph.cli.output import TABLES, Output
from emergraph.cli.reportterminal import WIDTH, sparkline
from emergraph.errors import ExitCode
from emergraph.exporters.traces.samples import RandomInputs

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def counted(traced):
    """The store with a path count of the newest graph."""
    api.open_store(traced).graph().emergence()
    return traced


def test_a_report_of_a_store(run, counted, tmp_path):
    out = tmp_path / "r.html"
    told = run("report", counted, "--out", out)
    assert told.code == 0
    assert f"Wrote {out}" in told.err
    page = out.read_text(encoding="utf-8")
    assert "<h1>digits_dense</h1>" in page
    assert "emergraph percolate traced.duckdb --graph digits_dense" in page
    assert run("report", counted, "--graph", "digits_conv", "--out", out, "--quiet").err == ""
    assert "<h1>digits_conv</h1>" in out.read_text(encoding="utf-8")


def test_a_report_as_data(run, counted, tmp_path):
    jsonschema.validate(json.loads(run("report", counted, "--format", "json").out), SCHEMA)
    assert run("report", counted, "--out", tmp_path / "r.json").code == 0
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["form"] == SCHEMA["title"]


def test_a_report_for_a_terminal_is_plain_and_narrow_when_piped(run, tmp_path):
    path = tmp_path / "h.duckdb"
    model = hostile_model(tmp_path / "h.onnx")
    graph = api.export(model, path, name="\x1b[31mred")
    graph.trace(RandomInputs(4, 0), model=model)
    graph.emergence(full=True)
    told = run("report", path, "--terminal")
    assert told.code == 0
    assert "random inputs" in told.out
    assert "\\x1b[31mred" in told.out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", told.out)
    assert max(map(len, told.out.splitlines())) <= WIDTH


def test_a_report_of_a_model_says_what_the_budget_left_out(run, tmp_path):
    store, out = tmp_path / "net.duckdb", tmp_path / "r.json"
    told = run("report", DEMO / "digits_dense.onnx", "--store", store, "--out", out, "--budget", "6s")
    assert told.code == 0, told.err
    report = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(report, SCHEMA)
    states = [attempt["state"] for attempt in report["attempts"]]
    assert states[0] == "done"
    assert len(states) == 9
    assert report["budget_seconds"] == 6
    assert sum(attempt["seconds"] or 0 for attempt in report["attempts"]) < 6 + 2
    for attempt in report["attempts"]:
        assert "/" not in attempt["command"].replace("emergraph-", "")
    assert api.open_store(store).graphs.height == 1


@pytest.mark.parametrize(
    ("cores", "asked", "threads"), [(1, None, "1"), (2, None, "1"), (9, None, "4"), (9, "7", "7")]
)
def test_the_commands_of_a_report_leave_half_of_the_cores_to_others(monkeypatch, cores, asked, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", asked)
    assert reportsteps.surroundings()["OPENBLAS_NUM_THREADS"] == threads


def test_a_report_begins_with_what_an_audit_found(run, store, tmp_path):
    def asked():
        assert run("report", store, "--out", tmp_path / "r.json").code == 0
        return json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["sections"]

    summary, audit = asked()[:2]
    assert (summary["points"], audit["id"]) == ([], "audit")
    assert "not audited" in summary["finding"]
    told = run("audit", DEMO / "digits_dense.onnx", "--store", store, "--quiet")
    assert told.code == ExitCode.FINDINGS
    summary, audit = asked()[:2]
    assert summary["points"][0]["severity"] == "warning"
    assert "hidden1" in summary["points"][0]["sentence"]
    assert "emergraph audit digits_dense.onnx --write" in summary["points"][0]["action"]
    assert "warnings" in summary["finding"]
    assert len(summary["points"]) <= 7
    assert audit["missing"] is None
    assert [table["name"] for table in summary["tables"]] == ["graphs"]  # two: the pictures' and this one
    page = tmp_path / "r.html"
    assert run("report", store, "--out", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert text.index("hidden1") < text.index("SHA-256")
    assert "for want of time" not in summary["finding"]
    run("audit", DEMO / "digits_dense.onnx", "--store", store, "--budget", "0.01s", "--quiet")
    assert "Not looked at to the end, for want of time: dead" in asked()[0]["finding"]


@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        (DEMO / "digits_dense.onnx", ["--budget", "0.2s"], ExitCode.LIMIT),
        (DEMO / "digits.npz", [], ExitCode.INVALID_INPUT),
        ("missing.onnx", [], ExitCode.INVALID_INPUT),
    ],
    ids=["no time", "no model", "no file"],
)
def test_what_cannot_be_reported(run, tmp_path, source, options, code):
    store = tmp_path / "net.duckdb"
    told = run("report", source, "--store", store, "--out", tmp_path / "r.html", *options)
    assert told.code == code
    assert len([line for line in told.err.splitlines() if line.startswith("Error: ")]) == 1
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("ending", ["svg", "png", "html"])
def test_plot(run, counted, tmp_path, ending):
    out = tmp_path / f"map.{ending}"
    assert run("plot", counted, "layers", "--out", out).code == 0
    assert out.stat().st_size > 1000


def test_plot_lists_figures_and_refuses_others(run, counted):
    told = run("plot", counted)
    assert re.search(r"layers .* ready", told.out)
    assert re.search(r"percolation .* needs emergraph percolate", told.out)
    assert run("plot", counted, "percolation").code == ExitCode.USAGE
    assert run("plot", counted, "nothing").code == ExitCode.USAGE
    assert run("plot", counted, "layers", "--out", "map.pdf").code == ExitCode.USAGE


@pytest.mark.parametrize("view", ["tensors", "layers", "units", "measures"])
def test_diff(run, exported, view):
    told = run("diff", f"{exported}:digits_conv", f"{exported}:digits_dense", "--view", view)
    assert told.code == 0
    assert "verdict         different" in told.out or re.search(r"verdict +different", told.out)


def test_diff_of_a_file_and_its_graph(run, exported):
    told = run("diff", DEMO / "digits_dense.onnx", f"{exported}:digits_dense", "--format", "json")
    assert json.loads(told.out)["verdict"] == "equal"
    assert run("diff", exported, f"{exported}:nothing").code == ExitCode.USAGE
    assert run("diff", exported, exported, "--view", "nothing").code == ExitCode.USAGE
    assert run("diff", exported, "missing.onnx").code == ExitCode.INVALID_INPUT


@pytest.mark.parametrize("options", [("--format", "html"), ()])
def test_diff_as_a_page(run, exported, tmp_path, options):
    out = tmp_path / "diff.html"
    sides = (f"{exported}:digits_conv", f"{exported}:digits_dense")
    told = run("diff", *sides, "--seed", 3, "--out", out, *options)
    assert (told.code, told.out) == (0, "")
    assert told.err.endswith("diff.html\n")
    page = html.unescape(out.read_text(encoding="utf-8"))
    line = (
        "emergraph diff net.duckdb:digits_conv net.duckdb:digits_dense --seed 3 --format html --out diff.html"
    )
    assert line in page
    assert str(exported.parent) not in page


def test_diff_page_on_stdout_and_other_formats(run, exported):
    told = run("diff", f"{exported}:digits_dense", f"{exported}:digits_dense", "--format", "html")
    assert told.out.startswith("<!doctype html>")
    told = run("diff", f"{exported}:digits_dense", f"{exported}:digits_dense", "--format", "csv")
    assert told.out.startswith("tensor_a,tensor_b")


def test_diff_has_every_format_of_other_results():
    assert set(DiffOutput.formats) > set(TABLES)
    assert set(AuditOutput.formats) > set(DiffOutput.formats)
    assert Output.formats == TABLES


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert len(sparkline(list(range(100)))) == 24
