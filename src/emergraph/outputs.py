"""Where results may be written: never over what the command reads, never over a store, never to a device."""

import os
import stat
from pathlib import Path

from emergraph.commandfiles import noted_as
from emergraph.errors import UsageError
from emergraph.paths import DUCKDB_MAGIC, LOG_SUFFIXES, NotRegularError, kind_of, own_descriptor, read_head
from emergraph.safetext import escape_controls


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse to write a result to a place where it would destroy something or hang.

    A file that is there already is replaced as a whole, unless the command reads it, by whatever name, or it
    is a store. The caller's own streams and the null device are allowed.

    Raises:
        UsageError: The place must not be written to; the message says why.
    """
    shown = escape_controls(os.fspath(path))
    if own_descriptor(path) is not None:
        return
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # not there yet, or the writer will say what is wrong
        if _is_log_of_store(Path(path)):
            raise _refused(shown, "belongs to a store") from None
        return
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{shown} is a folder: give the name of a file")
    if not stat.S_ISREG(status.st_mode):
        if _is_null_device(status):
            return
        raise UsageError(
            f"{shown} is {kind_of(status.st_mode)}: give the name of a file; pipes take what goes to stdout"
        )
    if (source := noted_as(status)) is not None:
        same = "" if source == shown else f" as {source}"
        raise _refused(shown, f"is a file that this command reads{same}")
    if holds_database(path) or _is_log_of_store(Path(path)):
        raise _refused(shown, "is a store, or belongs to one, and is never replaced")


def holds_database(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a DuckDB file that can be read."""
    at, magic = DUCKDB_MAGIC
    try:
        return read_head(path, at + len(magic))[at:] == magic
    except (OSError, ValueError, NotRegularError):
        return False


def _is_log_of_store(path: Path) -> bool:
    """Whether a path is where DuckDB would look for changes of a store that are not in its file yet."""
    return any(
        path.name.endswith(suffix)
        and path.name != suffix
        and holds_database(path.with_name(path.name.removesuffix(suffix)))
        for suffix in LOG_SUFFIXES
    )


def _is_null_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev


def _refused(shown: str, why: str) -> UsageError:
    return UsageError(f"{shown} {why}: give another name for the output")
