"""The three standard streams, also where the caller has closed one of them."""

import os
import sys

_closed: set[int] = set()


def open_closed_streams() -> None:
    """Lead streams that the caller closed (`>&-`) nowhere.

    A file that is opened later would get the number of a closed stream, and what is printed would land in it.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            _closed.add(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor has no path, and it stays open
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def stdout_is_closed() -> bool:
    """Whether the caller closed stdout: what is printed there is lost."""
    return 1 in _closed
