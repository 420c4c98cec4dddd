"""The shared output helper: formats, streams, hostile names, files that are complete or absent."""

import csv
import io
import json
import math
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from emergraph.analysis.view import View, beside, evenly, first_and_last
from emergraph.cli import jsonform, tables
from emergraph.cli.commands.audit import AuditOutput
from emergraph.cli.commands.report import ReportOutput
from emergraph.cli.output import TABLES, Output, OutputFormat, emit
from emergraph.errors import LimitError, UsageError

EVIL = [
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x9b31m",
    "fc\u202e1",
    "[bold]x[/bold]",
    "[/bold]",
    "[link=http://x]y[/link]",
    ":smile:",
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE edges;--",
    "<script>alert(1)</script>",
    "a\nb",
    "a|b`c`*d*",
    "f\u0441" + "1",
    "fc1",
    "x" * 100_000,
]


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def frame():
    return pl.DataFrame({"name": EVIL, "value": [float(i) for i in range(len(EVIL))]})


@pytest.fixture
def view(frame):
    return View(rows=frame, facts={"graph": EVIL[0], "edges": 1234567}, notes=[f"from {EVIL[1]}"])


def assert_harmless(text):
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c == "\u202e" for c in text)


def test_plain_tables_show_hostile_names_as_text(view, capsys):
    emit(view, Output())
    captured = capsys.readouterr()
    assert_harmless(captured.out)
    assert_harmless(captured.err)
    assert captured.err == "Note: from \\x1b[2J\n"
    lines = captured.out.splitlines()
    assert lines[0] == "graph  \\x1b]0;owned\\x07"
    assert lines[1] == "edges  1,234,567"
    assert len(lines) == 2 + 1 + 1 + len(EVIL)
    assert "[/bold]" in captured.out
    assert "f\\u04411" in captured.out
    assert max(map(len, lines)) < 200


def test_terminal_tables_show_hostile_names_as_text(view, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERM", "dumb")
    emit(view, Output())
    shown = terminal.getvalue()
    assert_harmless(shown)
    for name in ("[bold]x[/bold]", "[/bold]", "[link=http://x]y[/link]", ":smile:", "\\x1b[2J", "\\u202e"):
        assert name in shown


def test_terminals_show_the_first_rows_and_say_so(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    emit(View(rows=pl.DataFrame({"n": range(1000)})), Output())
    assert "200 of 1000 rows shown" in capsys.readouterr().err
    assert len(terminal.getvalue().splitlines()) < 210


def test_json_gives_every_name_back_exactly(view, capsys):
    emit(view, Output(format=OutputFormat.JSON))
    out = capsys.readouterr().out
    assert out.isascii()
    assert [row["name"] for row in json.loads(out)] == EVIL


def test_json_of_unusual_values_is_strict():
    value = {
        "nan": math.nan,
        "inf": [math.inf, -math.inf],
        "array": np.array([1.5, np.nan]),
        "scalar": np.float32(0.5),
        "flag": np.bool_(True),
        "bytes": b"\x00\xff",
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "decimal": Decimal("1.5"),
        "big": 10**40,
        OutputFormat.CSV: OutputFormat.JSON,
        "frame": pl.DataFrame({"a": [1, None]}),
    }
    text = jsonform.json_text(value)

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == {
        "nan": None,
        "inf": [None, None],
        "array": [1.5, None],
        "scalar": 0.5,
        "flag": True,
        "bytes": "00ff",
        "when": "2026-01-02T00:00:00+00:00",
        "decimal": 1.5,
        "big": 10**40,
        "csv": "json",
        "frame": [{"a": 1}, {"a": None}],
    }


def test_json_refuses_what_it_cannot_say():
    with pytest.raises(TypeError, match="object has no JSON form"):
        jsonform.json_text(object())


def test_csv_guards_formulas_and_escapes_controls(view, capsys):
    emit(view, Output(format=OutputFormat.CSV))
    out = capsys.readouterr().out
    assert_harmless(out)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert rows[8]["name"] == "'=cmd|' /C calc'!A0"
    assert rows[9]["name"] == "'; DROP TABLE edges;--"
    assert len(rows[-1]["name"]) == 100_000
    assert [float(row["value"]) for row in rows] == list(range(len(EVIL)))


def test_csv_of_lists_bytes_nulls_and_negative_numbers():
    frame = pl.DataFrame({"=h": [[1, 2], None], "b": [b"\x01", None], "n": [-1.5, None]})
    assert tables.csv_text(frame).splitlines() == ["'=h,b,n", '"[1, 2]",01,-1.5', ",,"]


def test_markdown_rows_stay_rows(view):
    text = tables.markdown_text(view.facts, view.shown())
    assert_harmless(text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(EVIL)
    assert "<script>" not in text
    assert "a\\|b\\`c\\`\\*d\\*" in text


def test_parquet_keeps_names_and_types(view, tmp_path):
    emit(view, Output(out=tmp_path / "r.parquet", quiet=True))
    assert pl.read_parquet(tmp_path / "r.parquet").equals(view.rows)


def test_parquet_is_not_written_to_a_terminal(view, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(UsageError, match="--out"):
        emit(view, Output(format=OutputFormat.PARQUET))


@pytest.mark.parametrize("chosen", TABLES)
def test_every_format_writes_a_file(view, tmp_path, chosen, capsys):
    path = tmp_path / "result"
    emit(view, Output(format=chosen, out=path))
    assert path.stat().st_size > 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Wrote" in captured.err


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("a.JSON", OutputFormat.JSON),
        ("a.csv", OutputFormat.CSV),
        ("a.md", OutputFormat.MARKDOWN),
        ("a.txt", OutputFormat.TABLE),
    ],
)
def test_the_name_of_the_file_chooses_the_format(name, chosen, tmp_path):
    assert Output(out=tmp_path / name).resolved_format is chosen
    assert Output(out=tmp_path / name, format=OutputFormat.CSV).resolved_format is OutputFormat.CSV


def test_quiet_leaves_only_the_data(view, capsys):
    emit(view, Output(quiet=True))
    assert capsys.readouterr().err == ""


def test_a_failed_write_leaves_the_old_file(tmp_path, view, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("old")
    path.chmod(0o640)

    def no_room(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(LimitError, match="No space left"):
        emit(view, Output(out=path))
    assert path.read_text() == "old"
    monkeypatch.undo()
    emit(view, Output(out=path, quiet=True))
    assert json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_links_are_followed_and_stay(tmp_path, view):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("real.csv")
    emit(view, Output(out=tmp_path / "link.csv", quiet=True))
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("name,value")


def test_devices_are_written_to_and_not_replaced(view):
    device = Path("/dev/null")
    emit(view, Output(out=device, quiet=True))
    assert stat.S_ISCHR(device.stat().st_mode)


@pytest.mark.parametrize("target", ["missing/r.csv", ""])
def test_a_target_that_cannot_be_written_is_a_usage_error(tmp_path, view, target):
    with pytest.raises(UsageError):
        emit(view, Output(out=tmp_path / target))


def test_a_closed_pipe_is_no_error():
    program = (
        "import polars as pl, sys, typer\n"
        "from emergraph.analysis.view import View, evenly, first_and_last\n"
        "from emergraph.cli.output import Output, emit\n"
        "try:\n"
        "    emit(View(rows=pl.DataFrame({'n': range(200000)})), Output())\n"
        "except typer.Exit as done:\n"
        "    sys.exit(done.exit_code)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_the_finding_comes_first_and_the_rows_that_matter_with_it(capsys):
    rows = pl.DataFrame({"n": range(21), "other": range(21)})
    view = View(finding="Seven is the answer.", rows=rows, brief=[evenly(rows).select("n")], facts={"of": 21})
    emit(view, Output())
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "Seven is the answer."
    assert lines[-10:] == [f"{n:>2}" for n in (0, 2, 4, 7, 9, 11, 13, 16, 18, 20)]
    assert "--full shows everything: 21 rows, 2 columns" in shown.err
    emit(view, Output(full=True))
    shown = capsys.readouterr()
    assert shown.err == ""
    assert len(shown.out.splitlines()) == 1 + 1 + 1 + 1 + 22
    emit(view, Output(format=OutputFormat.CSV))
    shown = capsys.readouterr()
    assert (shown.err, len(shown.out.splitlines())) == ("", 22)


@pytest.mark.parametrize(("n", "left"), [(10, 10), (11, 10)])
def test_tables_of_ten_rows_are_whole(n, left):
    rows = pl.DataFrame({"n": range(n)})
    for shorten in (evenly, first_and_last):
        short = shorten(rows)
        assert (short.height, short["n"][0], short["n"][-1]) == (left, 0, n - 1)
    assert not View(rows=rows, brief=[rows]).left_out()


def test_a_flag_of_two_groups_of_options_is_one(run, traced):
    shown = run("emergence", "--help").out
    assert shown.count("  --full") == 1
    whole = run("emergence", traced, "--full", "--draws", "5")
    assert "null_model" in whole.out
    assert "--full shows" not in whole.err


@pytest.mark.parametrize(
    ("kind", "name", "chosen"),
    [
        (AuditOutput, "a.sarif", OutputFormat.SARIF),
        (AuditOutput, "a.sarif.json", OutputFormat.SARIF),
        (AuditOutput, "a.cdx.json", OutputFormat.CYCLONEDX),
        (AuditOutput, "a.HTML", OutputFormat.HTML),
        (AuditOutput, "a", OutputFormat.TABLE),
        (Output, "a.html", OutputFormat.TABLE),
        (Output, "a.cdx.json", OutputFormat.JSON),
        (ReportOutput, "a.txt", OutputFormat.HTML),
        (ReportOutput, "a.json", OutputFormat.JSON),
    ],
)
def test_a_name_asks_for_a_format_that_the_command_has(kind, name, chosen, tmp_path):
    assert kind(out=tmp_path / name).resolved_format is chosen


@pytest.mark.parametrize(("value", "clear", "said"), [(2.0, True, "a"), (-2.0, True, "b"), (2.0, False, "n")])
def test_a_value_lies_above_below_or_on_no_side(value, clear, said):
    assert beside(value, clear=clear, above="a", below="b", neither="n") == said
