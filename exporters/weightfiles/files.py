"""Opening the files that a user named: regular files only, mapped read-only."""

import os
from pathlib import Path

from emergraph.exporters.mappedfile import MappedFile, map_descriptor
from emergraph.exporters.weightfiles.registry import refusal
from emergraph.paths import NotRegularError, open_descriptor


def map_file(path: Path, where: str = "") -> MappedFile:
    """Map a file read-only.

    The file is opened without blocking and looked at through its descriptor, so that a pipe or a device
    neither hangs nor changes under the check. A file that another process cuts short while it is mapped is
    beyond this protection.

    Args:
        path: The file.
        where: How to name it in messages, where they do not start with its name anyway.

    Raises:
        InvalidInputError: it is missing, unreadable, no regular file (WEIGHTS-FILE-MISSING), or empty.
    """
    try:
        descriptor, status = open_descriptor(path)
    except NotRegularError as error:
        raise refusal("WEIGHTS-FILE-MISSING", f"expected a regular file, found {error.kind}", where) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise refusal(
            "WEIGHTS-FILE-MISSING", f"cannot open the file: {reason}; check the path", where
        ) from None
    if status.st_size == 0:
        os.close(descriptor)
        raise refusal("FILE-EMPTY", "the file is empty; fetch it again", where)
    return map_descriptor(descriptor, path, status)
