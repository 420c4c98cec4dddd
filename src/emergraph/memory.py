"""Limits of memory, and whether an error of another library means that memory ran out.

A limit means one thing everywhere: memory that no file backs (see `processes.held_memory`) of a process and
of all that it starts. Whoever sets a limit looks at that number now and then. Between two looks the system
stands in: `bound_data` lets each process reserve a little more than the limit, and no more.

Each library has its own way to say that memory ran out: `MemoryError`, a runtime error with `bad_alloc` in
its text, an import error because a shared object could not be mapped, a thread that could not be started.
"""

import contextlib
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from emergraph.errors import EmergraphError, chain_of
from emergraph.processes import read_status

OUT_OF_MEMORY = re.compile(
    r"bad_alloc|out of memory|MemoryError|alloc\w* of (size )?\d+( bytes)? failed|allocation (still )?failed"
    r"|(cannot|can't|unable to|failed to|could not) allocate|(not enough|insufficient) memory|<jemalloc>"
    r"|failed to map segment|static TLS block|cannot map zero-fill pages|cannot change memory protections"
    r"|error while initializing the extension"  # of a library whose import throws: here memory is what lacks
    r"|can't start new thread|could not spawn threads|pthread_create failed|ThreadPoolBuildError",
    re.IGNORECASE,
)
"""What DuckDB, numpy, OpenBLAS, onnxruntime, Arrow, polars, torch, igraph and the dynamic linker say."""

RESERVED_BYTES = 1 << 30
"""What a process may reserve anew beyond its limit without touching it, such as stacks of threads."""


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that there was too little memory.

    Example:
        >>> ran_out_of_memory(RuntimeError("std::bad_alloc")), ran_out_of_memory(RuntimeError("bad shape"))
        (True, False)
    """
    for one in chain_of(error):
        if isinstance(one, MemoryError):
            return True
        # names from files may hold such words, and messages of this project hold names
        if not isinstance(one, EmergraphError) and OUT_OF_MEMORY.search(str(one)):
            return True
    return False


@dataclass
class _State:
    """Of this process."""

    allowed: int | None = None
    """The lowest limit that holds, in bytes; None for none."""
    data: int | None = None
    """What may be reserved under it."""


_state = _State()


@contextmanager
def bounded(memory_bytes: int) -> Iterator[int]:
    """Let the system refuse what is far beyond a limit while the body runs; yields the limit that holds.

    Within another such body, or under a bound from outside, the lowest holds.
    """
    before, (soft, hard) = (_state.allowed, _state.data), resource.getrlimit(resource.RLIMIT_DATA)
    try:
        yield bound(memory_bytes)
    finally:
        _state.allowed, _state.data = before
        _set_data_limit(soft, hard)


def bound(memory_bytes: int) -> int:
    """Let the system refuse what is far beyond a limit, from now on; return the limit that holds."""
    allowed = min(memory_bytes, memory_bytes if _state.allowed is None else _state.allowed)
    status = read_status(os.getpid())
    untouched = max(0, _field(status, "VmData") - _field(status, "RssAnon"))
    _state.allowed, _state.data = allowed, allowed + untouched + RESERVED_BYTES
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    _set_data_limit(_lowest(_state.data, soft, hard), hard)
    return allowed


def allowance() -> int | None:
    """The memory that this process may take, by its own limit or one from outside; None for no limit."""
    outside = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    own = resource.RLIM_INFINITY if _state.allowed is None else _state.allowed
    lowest = _lowest(own, *outside)
    return None if lowest == resource.RLIM_INFINITY else lowest


def outside_limit() -> str:
    """The bound from outside that holds before the limit of this program does; "" for none."""
    status = read_status(os.getpid())
    mapped = _field(status, "VmSize") - _field(status, "VmData")  # which counts for `ulimit -v` alone
    for kind, option, beside in ((resource.RLIMIT_AS, "-v", mapped), (resource.RLIMIT_DATA, "-d", 0)):
        limit = resource.getrlimit(kind)[0]
        own = None if _state.data is None else _state.data + beside
        if limit != resource.RLIM_INFINITY and (own is None or limit < own):
            return f"ulimit {option} {limit >> 10}"
    return ""


def want_of_memory(option: str = "--memory-limit") -> str:
    """What to do where memory ran out below the limit of this program."""
    outside = outside_limit()
    if outside:
        return f"raise the limit from outside ({outside}), or take a smaller model"
    return f"close other programs, raise {option}, or take a smaller model"


def mebibytes(size: float) -> str:
    """A size as messages say it.

    Example:
        >>> mebibytes(3 << 29)
        '1536 MiB'
    """
    return f"{-(-int(size) // (1 << 20))} MiB"


def _field(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _lowest(*values: int) -> int:
    return min((value for value in values if value != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)


def _set_data_limit(soft: int, hard: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some values; the clock still holds
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
