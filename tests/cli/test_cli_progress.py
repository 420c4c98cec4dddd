"""Progress: one line on stderr, for terminals only, which leaves no trace; names in it are text."""

import io
import re
import sys
import time

import pytest

from emergraph.cli.limits import doing
from emergraph.cli.output import Output
from emergraph.cli.progress import progress_bar, progress_line
from emergraph.steps import steps


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def at_terminal(monkeypatch):
    """A terminal instead of stdout and stderr; within a test, since pytest sets both before it."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(sys, "stdout", found)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return found


def left_on_screen(text):
    """What a terminal shows in the end."""
    return re.sub(r"[^\n]*\r\x1b\[K", "", text)


def count(n, seconds):
    for _ in steps(range(n), "null models"):
        time.sleep(seconds)


def test_a_terminal_shows_a_bar_without_obeying_names(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with progress_bar("tracing \x1b[2J[bold]x", Output()) as update:
        update(1, 3)
        time.sleep(0.4)
    shown = terminal.getvalue()
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J[bold]x" in shown
    assert "======.............. 33%" in shown
    assert left_on_screen(shown) == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_pipes_and_quiet_show_nothing(monkeypatch, capsys, quiet):
    if quiet:
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv("TERM", "xterm")
    with progress_bar("tracing", Output(quiet=quiet)) as update, progress_line(quiet=quiet, after=0):
        update(1, 3)
        count(2, 0.3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert not quiet or sys.stderr.getvalue() == ""


def test_loops_of_the_library_are_counted_after_a_while(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with doing("topology"), progress_line(quiet=False, after=0.3):
        count(2, 0.01)
        assert terminal.getvalue() == ""
        count(4, 0.3)
    shown = terminal.getvalue()
    assert "topology  null models  =====............... 25%  0:0" in shown
    assert left_on_screen(shown) == ""
    assert sys.stderr is terminal


def test_what_is_printed_meanwhile_stays_whole(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with doing("export"), progress_line(quiet=False, after=0):
        time.sleep(0.3)
        sys.stderr.write("Note: odd\n")
        time.sleep(0.6)
        sys.stdout.write("a table, ")
        time.sleep(0.6)  # nothing may be drawn behind half a line
        sys.stdout.write("whole\n")
    assert left_on_screen(terminal.getvalue()) == "Note: odd\na table, whole\n"
    assert terminal.getvalue().count("export") >= 2


def test_a_line_is_no_longer_than_the_terminal(monkeypatch):
    terminal = at_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "20")
    with doing("a" * 500), progress_line(quiet=False, after=0):
        pass
    assert max(len(line) for line in terminal.getvalue().split("\r\x1b[K")) == 19


def test_within_a_command_that_shows_one_there_is_no_second(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with (
        doing("demo"),
        progress_line(quiet=False, after=0),
        doing("export"),
        progress_line(quiet=False, after=0),
    ):
        time.sleep(0.4)
    assert "demo, export" in terminal.getvalue()
    assert left_on_screen(terminal.getvalue()) == ""


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_terminal_that_cannot_clear_a_line_shows_nothing(monkeypatch, name):
    terminal = at_terminal(monkeypatch)
    monkeypatch.setenv("TERM", name) if name else monkeypatch.delenv("TERM")
    with progress_line(quiet=False, after=0):
        time.sleep(0.3)
    assert terminal.getvalue() == ""
