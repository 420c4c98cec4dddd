"""What every command does with its result: five formats of a `View`, stdout for data and stderr for talk."""

import inspect
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, TextIO

import typer

from emergraph.analysis.view import View
from emergraph.atomic import write_atomically
from emergraph.choices import unknown
from emergraph.cli.streams import stdout_is_closed
from emergraph.errors import ExitCode, UsageError
from emergraph.options import FileRole
from emergraph.safetext import escape_controls

TERMINAL_ROWS = 200
"""Rows of a table that a terminal shows; pipes and files get all of them."""


class OutputFormat(StrEnum):
    """How a result is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    PARQUET = "parquet"
    HTML = "html"
    SARIF = "sarif"
    CYCLONEDX = "cyclonedx"


TABLES = (
    OutputFormat.TABLE,
    OutputFormat.JSON,
    OutputFormat.CSV,
    OutputFormat.MARKDOWN,
    OutputFormat.PARQUET,
)
"""What every `View` can be written as."""
_ENDINGS = {
    ".cdx.json": OutputFormat.CYCLONEDX,
    ".sarif.json": OutputFormat.SARIF,
    ".sarif": OutputFormat.SARIF,
    ".html": OutputFormat.HTML,
    ".htm": OutputFormat.HTML,
    ".json": OutputFormat.JSON,
    ".csv": OutputFormat.CSV,
    ".md": OutputFormat.MARKDOWN,
    ".parquet": OutputFormat.PARQUET,
}
"""What names of files ask for, the longest first."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """Where a result goes and in which format; a subclass says which formats its command has."""

    HEADING: ClassVar = "Output"

    formats: ClassVar[tuple[OutputFormat, ...]] = TABLES
    """The formats, of which the first is the default."""

    format: Annotated[OutputFormat | None, typer.Option()] = None
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the result to FILE instead of stdout."),
        FileRole.WRITES,
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bar on stderr.")] = (
        False
    )
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False

    def __init_subclass__(cls) -> None:
        """Let the option --format have the formats of the class."""
        choices = StrEnum("choices", {form.name: form.value for form in cls.formats})  # type: ignore[misc]
        told = f"Format of the result.  [default: {cls.formats[0]}, or what the name of --out says]"
        cls.__annotations__ = {
            **inspect.get_annotations(cls),
            "format": Annotated[choices | None, typer.Option(help=told)],
        }

    def __post_init__(self) -> None:
        """Refuse, before any work, a result that has nowhere to go."""
        if self.format is not None:
            object.__setattr__(self, "format", OutputFormat(self.format))
        if self.out is None and stdout_is_closed():
            raise UsageError("stdout is closed, where the result would go: give --out FILE")

    @property
    def resolved_format(self) -> OutputFormat:
        """The format asked for, else the one that the name of --out says, else the default."""
        if self.format is not None:
            return self.format
        name = "" if self.out is None else self.out.name.lower()
        asked = (form for end, form in _ENDINGS.items() if name.endswith(end) and form in self.formats)
        return next(asked, self.formats[0])


@dataclass(frozen=True, kw_only=True)
class Output(Writing):
    """The options of a command whose result is a `View`."""

    full: Annotated[
        bool, typer.Option("--full", help="Show all rows and columns, not only those that matter.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class FolderOutput(Output):
    """The same options of a command that makes a folder, which may be there already."""

    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE|LAKE", help="The lake; of other formats, FILE for the result on stdout."
        ),
        FileRole.MAKES,
    ] = None


def say(message: str, output: Writing | None = None) -> None:
    """Print one line of talk on stderr, unless --quiet."""
    if output is None or not output.quiet:
        sys.stderr.write(f"{escape_controls(message)}\n")


def emit(view: View, output: Output) -> None:
    """Write a result to stdout or to the file of --out, and its notes to stderr.

    Raises:
        UsageError: Parquet was asked for on a terminal, or the folder of --out does not exist.
        LimitError: The disk is full.
    """
    if output.out is not None:
        _write(_encoded(view, output), output.out, output)
    else:
        with reader_may_leave():
            _print(view, output)
    people = output.resolved_format in (OutputFormat.TABLE, OutputFormat.MARKDOWN)
    for note in view.said(full=output.full, people=people):
        say(f"Note: {note}", output)


def emit_text(text: str, output: Writing) -> None:
    """Write a text that is complete in itself, such as a page, to stdout or to the file of --out.

    Raises:
        UsageError: The folder of --out does not exist.
        LimitError: The disk is full.
    """
    if output.out is not None:
        _write(text.encode(), output.out, output)
        return
    with reader_may_leave():
        sys.stdout.write(text)


def _write(data: bytes, path: Path, output: Writing) -> None:
    write_atomically(path, data, then=lambda: say(f"Wrote {path}", output))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print to stdout; end the command well where `| head` has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_closed_pipe()
        raise typer.Exit(ExitCode.OK) from None


def _print(view: View, output: Output) -> None:
    chosen = output.resolved_format
    if chosen is OutputFormat.PARQUET:
        if sys.stdout.isatty():
            raise UsageError("Parquet is binary and stdout is a terminal: add --out FILE.parquet")
        sys.stdout.buffer.write(_encoded(view, output))
    elif chosen is OutputFormat.TABLE and chosen not in view.texts and sys.stdout.isatty():
        _print_rich(view, output)
    else:
        sys.stdout.write(_encoded(view, output).decode())


def _encoded(view: View, output: Output) -> bytes:
    from emergraph.cli import jsonform, tables

    if (text := view.texts.get(output.resolved_format)) is not None:
        return text().encode()
    match output.resolved_format:
        case OutputFormat.PARQUET:
            buffer = io.BytesIO()
            view.table().write_parquet(buffer)
            return buffer.getvalue()
        case OutputFormat.JSON:
            document = view.table() if view.document is None else view.document
            return jsonform.json_text(document).encode()
        case OutputFormat.CSV:
            return tables.csv_text(view.table()).encode()
        case OutputFormat.MARKDOWN:
            return tables.markdown_text(
                view.facts, view.shown(full=output.full), finding=view.finding
            ).encode()
        case OutputFormat.TABLE:
            return tables.plain_text(view.facts, view.shown(full=output.full), finding=view.finding).encode()
        case other:
            raise UsageError(unknown("--format", other, TABLES))


def _print_rich(view: View, output: Output) -> None:
    from rich.console import Console

    from emergraph.cli.tables import rich_parts

    console = Console(markup=False, highlight=False, emoji=False)
    frames = view.shown(full=output.full)
    shortened = [frame.head(TERMINAL_ROWS) for frame in frames]
    for part in rich_parts(view.facts, shortened, finding=view.finding):
        console.print(part)
    longest = max((frame.height for frame in frames), default=0)
    if longest > TERMINAL_ROWS:
        say(f"Note: {TERMINAL_ROWS} of {longest} rows shown; --format json or --out FILE gives all", output)


def _silence_closed_pipe() -> None:
    """Let stdout go nowhere after its reader has left, so that the last flush does not complain."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


def use_tolerant_streams(*streams: TextIO) -> None:
    """Make characters that the terminal's encoding lacks appear as escapes instead of failing the command."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
