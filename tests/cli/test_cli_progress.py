"""Progress bars: on stderr, for terminals only, and names in them are text."""

import io
import sys

import pytest

from emergraph.cli.output import Output
from emergraph.cli.progress import progress_bar


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self):
        return True


def steps(output):
    with progress_bar("tracing \x1b[2J[bold]x", output) as progress:
        for done in range(3):
            progress(done + 1, 3)


def test_a_terminal_shows_a_bar_without_obeying_names(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    steps(Output())
    shown = terminal.getvalue()
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J[bold]x" in shown
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_pipes_and_quiet_show_nothing(monkeypatch, capsys, quiet):
    if quiet:
        monkeypatch.setattr(sys, "stderr", Terminal())
    steps(Output(quiet=quiet))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
