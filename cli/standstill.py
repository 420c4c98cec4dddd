"""Whether a command has stalled because memory ran out.

Where memory runs out, some libraries try again for ever, and others wait for a thread that could not be
started. From outside, both look alike: no process of the command reads, writes, computes or is given a page
of memory any more, while one of them is at its limit on memory, or a library has said that there was none.
"""

import re
import resource
from collections.abc import Callable
from dataclasses import dataclass

from emergraph.processes import family, read_status

CHECKS = 6
"""Looks in turn, each a second of this process's own life, without progress."""
ROOM_BYTES = 160 << 20
"""A process with less room below its limit is at it: what libraries reserve at a time is up to 128 MiB."""

_LIMITS = ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize"))


@dataclass(frozen=True)
class _Progress:
    """What the processes of a command have done so far."""

    events: int
    """Pages of memory, and calls to read or write."""
    computed: int
    """Ticks of processor time outside of the kernel."""
    waited: int
    """Ticks within."""
    waits_for_disk: bool


class Standstill:
    """Watches a child and all that it has started.

    Args:
        child: Its id.
        lacks_memory: Whether a library of the command has said that memory ran out.
    """

    def __init__(self, child: int, lacks_memory: Callable[[], bool]) -> None:
        self._child = child
        self._lacks_memory = lacks_memory
        self._last: _Progress | None = None
        self._checks = 0

    def reached(self) -> bool:
        """Look once; True when the last `CHECKS` looks have seen no progress."""
        processes = list(family(self._child))
        if not (any(map(_at_limit, processes)) or self._lacks_memory()):
            self._last, self._checks = None, 0
            return False
        now, last = _progress(processes), self._last
        self._last = now
        still = last is not None and _nothing_done(last, now)
        self._checks = self._checks + 1 if still else 0
        return self._checks >= CHECKS


def _nothing_done(before: _Progress, after: _Progress) -> bool:
    """Whether nothing was done between two looks but calling the kernel in vain."""
    computed, waited = after.computed - before.computed, after.waited - before.waited
    return after.events == before.events and not after.waits_for_disk and computed <= waited / 2


def _at_limit(process: int) -> bool:
    status = read_status(process)
    for kind, name in _LIMITS:
        try:
            limit = resource.prlimit(process, kind)[0]
        except OSError:
            return False
        held = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        if limit != resource.RLIM_INFINITY and held and limit - int(held[1]) * 1024 < ROOM_BYTES:
            return True
    return False


def _progress(processes: list[int]) -> _Progress:
    events = computed = waited = 0
    disk = False
    for process in processes:
        # behind the name, which may hold anything: state, ..., minflt, cminflt, majflt, cmajflt, utime, stime
        fields = read_status(process, "stat").rpartition(")")[2].split()
        if len(fields) > 12:
            disk |= fields[0] == "D"
            events += int(fields[7]) + int(fields[9])
            computed += int(fields[11])
            waited += int(fields[12])
        events += sum(
            int(n) for n in re.findall(r"^sysc[rw]: (\d+)$", read_status(process, "io"), re.MULTILINE)
        )
    return _Progress(events, computed, waited, disk)
