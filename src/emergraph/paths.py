"""Opening what a user or a file names: regular files only, looked at first, and without ever blocking.

To open a FIFO waits for its other end, to read a device may never end, and to open some does something.
So nothing is opened that is not a regular file. The caller's own streams (`/dev/stdin`, `/dev/fd/63` of a
shell's process substitution) are open already: they can be read and written where a stream will do.
"""

import contextlib
import io
import os
import stat
import sys
from pathlib import Path

from emergraph.commandfiles import note_input
from emergraph.errors import InvalidInputError
from emergraph.safetext import escape_controls

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (a pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OWN_STREAMS = "/dev/fd"
_MOST_LINKS = 40
_STDERR = 2
DUCKDB_MAGIC = (8, b"DUCK")
"""Where in a DuckDB file stands what."""
LOG_SUFFIXES = (".wal", ".wal.checkpoint", ".wal.recovery")
"""What DuckDB adds to the name of a file for changes that are not in it yet; read whenever it is opened."""


class NotRegularError(InvalidInputError):
    """A path leads to something that is not a regular file; `kind` says to what, such as "a folder"."""

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        super().__init__(f"{escape_controls(os.fspath(path))} is {kind}; expected a regular file")
        self.kind = kind


def kind_of(mode: int) -> str:
    """Return what a file is, from its `st_mode`, with an article."""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a regular file")


def open_descriptor(
    path: str | os.PathLike[str], *, follow: bool = True, dir_fd: int | None = None, noted: bool = True
) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, without blocking; every input of a command comes through here.

    What a path leads to is looked at before it is opened, since opening alone can wait or do something, and
    again through the descriptor, since it may have changed in between.

    Args:
        path: The file.
        follow: Whether the last part of the path may be a link.
        dir_fd: Folder that a relative path starts at.
        noted: Whether it is an input; not so a file that the command itself keeps, to go on from.

    Returns:
        A descriptor, which the caller closes, and the state of the file.

    Raises:
        NotRegularError: It leads to a folder, FIFO, socket or device.
        OSError: There is nothing, it may not be read, or it is a link that is not to be followed.
        ValueError: The path has a NUL in it.
    """
    status = os.stat(path, dir_fd=dir_fd, follow_symlinks=follow)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        raise NotRegularError(path, kind_of(status.st_mode))
    descriptor = os.open(path, _READ | (0 if follow else os.O_NOFOLLOW), dir_fd=dir_fd)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise NotRegularError(path, kind_of(status.st_mode))
    if noted:
        note_input(status, path)
    return descriptor, status


def open_file(path: str | os.PathLike[str], *, stream: bool = False, noted: bool = True) -> io.BufferedReader:
    """Open a regular file for reading; use it in a `with` statement.

    Args:
        path: The file.
        stream: Whether the caller's own streams will do, such as `/dev/stdin`.
        noted: As for `open_descriptor`.

    Raises:
        InvalidInputError: There is no such file, it may not be read, or it is not a regular file.
    """
    shown = escape_controls(os.fspath(path))
    try:
        own = own_descriptor(path) if stream else None
        if own is not None:
            return os.fdopen(os.dup(own), "rb")
        return os.fdopen(open_descriptor(path, noted=noted)[0], "rb")
    except FileNotFoundError:
        raise InvalidInputError(f"{shown}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(f"{shown}: cannot be read: {reason}") from None


def read_file(path: str | os.PathLike[str], *, limit: int, stream: bool = False) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises:
        InvalidInputError: As `open_file`, or it is larger.
    """
    with open_file(path, stream=stream) as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        shown = escape_controls(os.fspath(path))
        raise InvalidInputError(f"{shown}: larger than {limit} bytes; take a part of it")
    return content


def read_head(path: str | os.PathLike[str], count: int) -> bytes:
    """Return the first bytes of a regular file, without noting it as an input.

    Closing any descriptor of a file gives up all locks that the process has on it, those of an open database
    included. So a file that is open already is read through the descriptor that is there.

    Raises:
        NotRegularError: It is not a regular file.
        OSError: There is nothing, or it may not be read.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(path, kind_of(status.st_mode))
    for descriptor in _open_descriptors():
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), status):
                return os.pread(descriptor, count, 0)
    descriptor, _ = open_descriptor(path, noted=False)
    try:
        return os.pread(descriptor, count, 0)
    finally:
        os.close(descriptor)


def own_descriptor(path: str | os.PathLike[str]) -> int | None:
    """Return the descriptor that a path such as `/dev/stdout` or `/dev/fd/63` stands for; None for others."""
    current = os.path.abspath(path)  # noqa: PTH100 - links are followed one by one below
    streams = os.path.realpath(_OWN_STREAMS)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(current)
        if name.isdecimal() and os.path.realpath(folder) == streams:
            return _callers(int(name))
        try:
            current = os.path.normpath(os.path.join(folder, Path(current).readlink()))  # noqa: PTH118
        except (OSError, ValueError):  # no link, or none that may be read
            return None
    return None


def _callers(number: int) -> int:
    """The descriptor that the caller means: what libraries write to 2 may be kept from the user."""
    if number == _STDERR:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return sys.stderr.fileno()
    return number


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir(_OWN_STREAMS)]  # noqa: PTH208 - numbers, not paths
    except (OSError, ValueError):
        return []
