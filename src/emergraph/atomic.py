"""Result files that are either complete or not there."""

import errno
import os
import stat
from pathlib import Path

from emergraph.errors import LimitError, UsageError
from emergraph.safetext import escape_controls

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a new file beside `path`, and move it there when it is complete.

    A link is followed, the permissions of an existing file stay, and what is not a regular file (a pipe,
    /dev/stdout) is written to directly.

    Raises:
        UsageError: The folder does not exist or cannot be written to, or `path` is a folder.
        LimitError: The disk is full; a file that was there before is unchanged.
    """
    target = Path(os.path.realpath(path))
    shown = escape_controls(str(path))
    try:
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise UsageError(f"{shown} is a folder: give the name of a file")
            target.write_bytes(data)
            return
        _replace(target, data)
    except FileNotFoundError:
        raise UsageError(f"no folder {escape_controls(str(path.parent))}: create it first") from None
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise LimitError(f"no room to write {shown}: {error.strerror}") from error
        raise UsageError(f"cannot write {shown}: {error.strerror}") from error


def _replace(target: Path, data: bytes) -> None:
    part = target.with_name(f".{target.name[:100]}.{os.getpid()}.part")
    try:
        with part.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
