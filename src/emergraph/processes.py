"""What the system says about processes of this program: who descends from whom, and what memory they hold."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECK_SECONDS = 0.1
"""Time between two looks at the memory of processes that have a limit."""

_HELD = re.compile(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", re.MULTILINE)


def family(process: int) -> Iterator[int]:
    """The ids of a process and of all that descend from it."""
    yield process
    with contextlib.suppress(OSError):  # the process may end while the system's folder of it is listed
        for children in list(Path(f"/proc/{process}/task").glob("*/children")):
            with contextlib.suppress(OSError):  # a thread of it may end
                for child in children.read_text().split():
                    yield from family(int(child))


def read_status(process: int, name: str = "status") -> str:
    """A file about a process; nothing where it is gone, or where the system has no such files."""
    try:
        return Path(f"/proc/{process}/{name}").read_text()
    except OSError:
        return ""


def held_memory(process: int) -> int:
    """Bytes that no file backs, in memory or swapped out, of a process and of all that descend from it.

    Mapped files do not count: the system drops their pages where it needs room.
    """
    return sum(
        int(number) * 1024 for member in family(process) for number in _HELD.findall(read_status(member))
    )


@contextmanager
def watched_memory(process: int, limit: int, exceeded: Callable[[int], None]) -> Iterator[None]:
    """Look at the memory of a process and its descendants while the body runs.

    Args:
        process: Its id.
        limit: In bytes.
        exceeded: Called in another thread with the bytes that are held, at every look that finds more.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(CHECK_SECONDS):
            held = held_memory(process)
            if held > limit:
                exceeded(held)

    watch = threading.Thread(target=look, name="memory", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
