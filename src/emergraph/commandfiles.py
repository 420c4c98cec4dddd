"""The files of one command: what it reads is never what it writes, and a store is never replaced.

Whatever is opened for reading is noted here, by device and inode, so that links, hard links and other
spellings of a path are the same file; before anything is written, its place is compared with what was noted.
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

from emergraph.safetext import escape_controls

_Identity = tuple[int, int]
_INPUTS: ContextVar[dict[_Identity, str] | None] = ContextVar("emergraph_inputs", default=None)


@contextlib.contextmanager
def one_command(*, joining: bool = True) -> Iterator[None]:
    """Note the files that are read in this block, as those of one command.

    Args:
        joining: Within another block, be a part of it; else this one knows nothing of the files outside.
    """
    if joining and _INPUTS.get() is not None:
        yield
        return
    token = _INPUTS.set({})
    try:
        yield
    finally:
        _INPUTS.reset(token)


def note_input(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Note a file that the command reads; outside of commands nothing is noted."""
    noted = _INPUTS.get()
    if noted is not None:
        noted.setdefault(_identity(status), escape_controls(os.fspath(path)))


def noted_as(status: os.stat_result) -> str | None:
    """Return the name under which a file was noted as an input, if it was."""
    return (_INPUTS.get() or {}).get(_identity(status))


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
