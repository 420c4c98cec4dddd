"""The entry point: runs a command, and turns whatever goes wrong into one line and an exit code."""

import errno
import sys
import traceback
from collections.abc import Sequence

import typer

from emergraph.cli import commands
from emergraph.cli.app import app
from emergraph.cli.output import say, use_tolerant_streams
from emergraph.errors import EmergraphError, ExitCode

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; `sys.argv[1:]` by default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    use_tolerant_streams(sys.stdout, sys.stderr)
    try:
        commands.register_all()
        status = typer.main.get_command(app).main(
            arguments or ["--help"], prog_name="emergraph", standalone_mode=False
        )
    except BaseException as error:  # noqa: BLE001 - the one place where everything ends as a line and a code
        if "--debug" in arguments:
            traceback.print_exc()
        if isinstance(error, SystemExit):
            return int(error.code or 0)
        return _report(error)
    if status == ExitCode.INTERRUPTED:  # typer has caught the KeyboardInterrupt
        say("Interrupted; the store is as it was before the command.")
    return int(status or 0)


def _help_of(error: typer.TyperException) -> str:
    """The help of the command that was called wrongly."""
    context = getattr(error, "ctx", None)
    return f"{'emergraph' if context is None else context.command_path} --help"


def _report(error: BaseException) -> ExitCode:
    """Say on one line what went wrong, and return the exit code for it."""
    match error:
        case EmergraphError():
            message, code = str(error), error.exit_code
        case typer.TyperException():
            message, code = f"{error.format_message()} (see {_help_of(error)})", ExitCode.USAGE
        case KeyboardInterrupt() | typer.Abort():
            message, code = "interrupted", ExitCode.INTERRUPTED
        case MemoryError():
            message, code = "out of memory: close other programs, or take a smaller model", ExitCode.LIMIT
        case OSError(errno=number) if number in _NO_ROOM:
            message, code = f"{error.strerror}: {error.filename or 'no room left'}", ExitCode.LIMIT
        case OSError(filename=name) if name is not None:
            message, code = f"{name}: {error.strerror}", ExitCode.INVALID_INPUT
        case _:
            detail = " ".join(str(error).split())
            message = f"unexpected {type(error).__name__}: {detail} (--debug shows where; please report it)"
            code = ExitCode.INVALID_INPUT
    say(f"Error: {' '.join(message.splitlines())}")
    return code
