"""The entry point: runs a command, and turns whatever goes wrong into one line and an exit code."""

import errno
import gc
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from emergraph.atomic import together
from emergraph.cli.app import program
from emergraph.cli.links import note_arguments, refusal_text
from emergraph.cli.output import reader_may_leave, say, use_tolerant_streams
from emergraph.cli.streams import open_closed_streams
from emergraph.cli.supervision import library_output, out_of_memory_line, supervised
from emergraph.errors import EmergraphError, ExitCode, LimitError, NotAStoreError, StoreError, UsageError
from emergraph.leftovers import remove_leftovers
from emergraph.memory import OUT_OF_MEMORY, ran_out_of_memory
from emergraph.plugins import switch_off
from emergraph.safetext import escape_controls, shorten

_PACKAGES = re.compile(r"/[^\s'\"]*/(?:site|dist)-packages/")
_CHARACTERS = 1000
"""Of an error's line: names from files, such as those of columns, may be of any length."""
_NO_PLUGINS = "--no-plugins"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_OBJECTS = 20_000
"""New objects after which Python looks for cycles; with 700, its default, it looks at every import often."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name. `sys.argv[1:]` by default, in a child process of its own
            (see `supervision`).
    """
    open_closed_streams()
    if arguments is not None:
        return _run(list(arguments))
    own = sys.argv[1:]
    gc.set_threshold(_OBJECTS)
    return supervised(lambda: _run(own), debug="--debug" in own)


def _run(given: list[str]) -> int:
    arguments = _without_switch(given)
    note_arguments(arguments)
    use_tolerant_streams(sys.stdout, sys.stderr)
    try:
        remove_leftovers()
        with together() as results:
            status = program().main(arguments or ["--help"], prog_name="emergraph", standalone_mode=False)
            if status == ExitCode.INTERRUPTED:
                results.discard()
        with reader_may_leave():  # help and version are printed by typer
            pass
    except BaseException as error:  # noqa: BLE001 - the one place where everything ends as a line and a code
        if "--debug" in arguments:
            traceback.print_exc()
        if isinstance(error, SystemExit):
            return int(error.code or 0)
        return _report(error)
    if status == ExitCode.INTERRUPTED:  # typer has caught the KeyboardInterrupt
        if OUT_OF_MEMORY.search(library_output()):
            return _report(KeyboardInterrupt())
        say("Interrupted; the store is as it was before the command.")
    return int(status or 0)


def _without_switch(arguments: list[str]) -> list[str]:
    """The words without --no-plugins, which may stand anywhere, since it decides which commands there are."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own = [word for word in arguments[:end] if word != _NO_PLUGINS]
    if len(own) < end:
        switch_off()
    return [*own, *arguments[end:]]


def _help_of(error: typer.TyperException) -> str:
    """The help of the command that was called wrongly."""
    context = getattr(error, "ctx", None)
    return f"{'emergraph' if context is None else context.command_path} --help"


def _report(error: BaseException) -> ExitCode:
    """Say on one line what went wrong, and return the exit code for it."""
    message, code = _line_and_code(error)
    say(f"Error: {shorten(' '.join(message.splitlines()), _CHARACTERS)}")
    return code


def _line_and_code(error: BaseException) -> tuple[str, ExitCode]:
    match error:
        case NotAStoreError():
            message, code = _what_it_is(error), error.exit_code
        case LimitError() | UsageError():
            message, code = str(error), error.exit_code
        case EmergraphError() if not ran_out_of_memory(error.__cause__):
            message, code = _without_installation(refusal_text(error)), error.exit_code
        case typer.TyperException():
            message, code = f"{error.format_message()} (see {_help_of(error)})", ExitCode.USAGE
        case KeyboardInterrupt() | typer.Abort() if not OUT_OF_MEMORY.search(library_output()):
            message, code = "interrupted", ExitCode.INTERRUPTED
        case KeyboardInterrupt():  # what OpenBLAS raises in its own process when it can start no thread
            message, code = out_of_memory_line(), ExitCode.LIMIT
        case _:
            message, code = _of_others(error)
    return message, code


def _what_it_is(error: NotAStoreError) -> str:
    """The line about a file that is no store: what it is, and the command that makes a store of a model."""
    from emergraph.exporters.formats import Reader, format_of
    from emergraph.exporters.weightfiles.files import map_file

    name = escape_controls(str(error.path))
    try:
        found = format_of(error.path.name, map_file(error.path, name).content)
    except (OSError, ValueError, EmergraphError):
        return str(error)
    if found.reader not in (Reader.ONNX, Reader.WEIGHTS):
        return str(error)
    words = f"emergraph export {shlex.quote(name)} {shlex.quote(error.path.stem + '.duckdb')}"
    return (
        f"{name}: {found.title}, where a store is expected; make one with: {words} (or a page of everything: "
        f"emergraph report {shlex.quote(name)})"
    )


def _of_others(error: BaseException) -> tuple[str, ExitCode]:
    """The line and the code for what a library or the system raised."""
    match error:
        case OSError(errno=number) if number in _NO_ROOM:
            message, code = f"{error.strerror}: {error.filename or 'no space left'}", ExitCode.LIMIT
        case OSError(filename=name) if name is not None:
            message, code = f"{name}: {error.strerror}", ExitCode.INVALID_INPUT
        case _ if ran_out_of_memory(error):
            message, code = out_of_memory_line(), ExitCode.LIMIT
        case _ if _is_of_duckdb(error):
            found = _store_error(error)
            message, code = str(found), found.exit_code
        case OSError():
            message, code = f"cannot read or write: {error.strerror or error}", ExitCode.INVALID_INPUT
        case _:
            detail = _without_installation(" ".join(str(error).split()))
            line = f"unexpected {type(error).__name__}: {detail} (--debug shows where; please report it)"
            message, code = line, ExitCode.INVALID_INPUT
    return message, code


def _is_of_duckdb(error: BaseException) -> bool:
    """Whether DuckDB raised it, without importing DuckDB."""
    return any(kind.__module__ in ("duckdb", "_duckdb") for kind in type(error).__mro__)


def _store_error(error: BaseException) -> EmergraphError:
    """What a query on a store says that the check on opening could not foresee."""
    import duckdb

    from emergraph.graphstore.connection import translate

    return translate(error, Path("the store")) if isinstance(error, duckdb.Error) else StoreError(str(error))


def _without_installation(text: str) -> str:
    """A message without the folders that Python's packages lie in: they say nothing to a user."""
    return _PACKAGES.sub("", text)
