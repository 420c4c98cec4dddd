"""What goes on and how far it is: one line on stderr, for people at a terminal only."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from emergraph.cli.limits import doing, what_goes_on
from emergraph.cli.output import Output
from emergraph.safetext import escape_controls
from emergraph.steps import listening


class Update(Protocol):
    """Moves a bar."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Say the work done and the work there is, in the same unit, and what else there is to say."""


PATIENCE_SECONDS = 2.0
"""A command that is done sooner shows nothing."""
_REDRAW_SECONDS = 0.25
_BAR = 20
_CLEAR = "\r\x1b[K"


class _Line:
    """A line at the bottom of a terminal, which leaves when anything else is printed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._drawn = False
        self._at_start = True
        self._begun = time.monotonic()
        self.count: tuple[str, float, float | None] | None = None
        """What is counted, how many are done, and how many there are."""

    def draw(self) -> None:
        """Show the line, or show it anew."""
        with self._lock:
            if self._at_start:
                width = shutil.get_terminal_size().columns - 1
                self._stream.write(_CLEAR + self._text()[:width])
                self._stream.flush()
                self._drawn = True

    def clear(self) -> None:
        """Take the line away."""
        with self._lock:
            if self._drawn:
                self._stream.write(_CLEAR)
                self._stream.flush()
                self._drawn = False

    def note(self, text: str) -> None:
        """Note what else is printed: in the middle of a line, nothing is drawn."""
        if text:
            self._at_start = text.endswith("\n")

    def _text(self) -> str:
        seconds = int(time.monotonic() - self._begun)
        parts = [what_goes_on()]
        if self.count is not None:
            what, done, total = self.count
            parts.append(what)
            if total:
                full = min(_BAR, int(_BAR * done / total))
                parts.append(f"{'=' * full}{'.' * (_BAR - full)} {min(1.0, done / total):.0%}")
            elif done:
                parts.append(f"{done:g}")
        parts.append(f"{seconds // 60}:{seconds % 60:02d}")
        return escape_controls("  ".join(part for part in parts if part))


class _Beside:
    """A stream that takes the line away before anything is written to it."""

    def __init__(self, stream: TextIO, line: _Line) -> None:
        self._stream, self._line = stream, line

    def write(self, text: str) -> int:
        self._line.clear()
        self._line.note(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)


_lines: list[_Line] = []
"""The line that is shown, if any."""


@contextmanager
def progress_line(*, quiet: bool, after: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Say on one line what goes on while the body runs, and how far the library's loops are.

    Nothing is shown where stderr is not a terminal, or within another such body.

    Args:
        quiet: Show nothing.
        after: Seconds until the line appears.
    """
    if quiet or _lines or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield
        return
    line, over = _Line(sys.stderr), threading.Event()

    def redraw() -> None:
        if not over.wait(after):
            line.draw()
        while not over.wait(_REDRAW_SECONDS):
            line.draw()

    def count(what: str, done: int, total: int | None) -> None:
        line.count = None if done == total else (what, done, total)

    _lines.append(line)
    if not after:
        line.draw()
    drawing = threading.Thread(target=redraw, name="progress", daemon=True)
    drawing.start()
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        if stream.isatty():
            setattr(sys, name, _Beside(stream, line))
    try:
        with listening(count):
            yield
    finally:
        over.set()
        drawing.join()
        line.clear()
        _lines.remove(line)
        for name, stream in streams.items():
            setattr(sys, name, stream)


@contextmanager
def progress_bar(label: str, output: Output) -> Iterator[Update]:
    """Show how far the body is; nothing with --quiet or where stderr is not a terminal.

    Args:
        label: What is being done; names from files may be part of it.
        output: The options of the command.

    Yields:
        The function that moves the bar.
    """
    with doing(label), progress_line(quiet=output.quiet, after=0):

        def update(done: float, total: float, note: str = "") -> None:
            for line in _lines:
                line.count = (note, done, total)

        yield update
        for line in _lines:
            line.count = None
