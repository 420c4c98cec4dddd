"""Result files that are either complete or not there."""

import errno
import os
import stat
from pathlib import Path

from emergraph.errors import LimitError, UsageError
from emergraph.outputs import check_output
from emergraph.paths import own_descriptor
from emergraph.safetext import escape_controls

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a new file beside `path`, and move it there when it is complete.

    A link is followed, the permissions of an existing file stay. The caller's own streams (/dev/stdout) and
    the null device are written to directly.

    Raises:
        UsageError: The folder does not exist or cannot be written to, or `path` must not be replaced: a file
            that the command reads, a store, a folder, a FIFO, a device.
        LimitError: The disk is full; a file that was there before is unchanged.
    """
    check_output(path)
    target = Path(os.path.realpath(path))
    shown = escape_controls(str(path))
    try:
        own = own_descriptor(path)
        if own is not None:
            with os.fdopen(os.dup(own), "wb") as stream:
                stream.write(data)
        elif target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
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
