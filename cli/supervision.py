"""The process above a command: whatever becomes of the command, there is one line and a documented code.

Native libraries end a process in ways that no handler sees: they abort when memory runs out, crash on a
damaged file, or wait for a thread that never started; and what they write to stderr is not for users. So a
command runs in a child, whose own lines go to stderr as ever, while the descriptor that libraries write to
leads to a bounded buffer in memory. The parent waits, passes signals on, and says what happened where the
child could not. It holds no library and no file.
"""

import atexit
import contextlib
import ctypes
import io
import mmap
import os
import re
import resource
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TextIO

from emergraph.cli.output import say
from emergraph.errors import ExitCode
from emergraph.leftovers import remove_leftovers
from emergraph.memory import OUT_OF_MEMORY, mebibytes, want_of_memory
from emergraph.processes import CHECK_SECONDS, family, held_memory, read_status

# Whether a command has stalled because memory ran out.
#
# Where memory runs out, some libraries try again for ever, and others wait for a thread that could not be
# started. From outside, both look alike: no process of the command reads, writes, computes or is given a page
# of memory any more, while one of them is at its limit on memory, or a library has said that there was none.

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


GRACE_SECONDS = 15.0
"""Seconds after its limit on wall time at which a command that has not exited is terminated."""
MEMORY_GRACE_SECONDS = 3.0
"""Seconds after it is told that it holds too much memory at which a command that goes on is terminated."""
MEMORY_SHARE = 0.7
"""Share of its limit on memory that a command must have held for its crash to count as lack of memory."""

_NOISE_BYTES = 1 << 20
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_PDEATHSIG = 1


class _Shared:
    """What the child tells its parent: until when it may run, its limit on memory, whether it has ended.

    And what the parent tells its child: the memory that the command holds, when it is too much.
    """

    _FORM = struct.Struct("dd?")
    _HELD = struct.Struct("q")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._FORM.size + self._HELD.size)
        self.put()

    def put(self, *, deadline: float = 0.0, memory_bytes: float = 0.0, ended: bool = False) -> None:
        self._FORM.pack_into(self._memory, 0, deadline, memory_bytes, ended)

    def get(self) -> tuple[float, float, bool]:
        deadline, memory_bytes, ended = self._FORM.unpack_from(self._memory, 0)
        return deadline, memory_bytes, ended

    def put_held(self, held: int) -> None:
        self._HELD.pack_into(self._memory, self._FORM.size, held)

    def get_held(self) -> int:
        return int(self._HELD.unpack_from(self._memory, self._FORM.size)[0])


@dataclass
class _State:
    """Of this process; both are None where no one supervises it."""

    shared: _Shared | None = None
    noise: int | None = None
    """Descriptor of the buffer that libraries' output goes to."""


_state = _State()


def announce_limits(deadline: float, memory_bytes: float) -> None:
    """Let the parent know what the command may take, in case that it cannot stop itself.

    Args:
        deadline: On the clock of `time.monotonic`; 0 for none.
        memory_bytes: 0 for no limit.
    """
    if _state.shared is not None:
        _state.shared.put(deadline=deadline, memory_bytes=memory_bytes)


def announced_limits() -> tuple[float, float]:
    """Return the deadline and the memory that were announced; zeros where none were."""
    return (0.0, 0.0) if _state.shared is None else _state.shared.get()[:2]


def is_supervised() -> bool:
    """Whether a process above this one looks at its memory, and sends SIGALRM when it is too much."""
    return _state.shared is not None


def memory_found() -> int:
    """The bytes that the process above found to be too much; 0 where it has found none."""
    return 0 if _state.shared is None else _state.shared.get_held()


def library_output() -> str:
    """What libraries wrote to stderr so far, where that is kept from the user."""
    if _state.noise is None:
        return ""
    length = os.lseek(_state.noise, 0, os.SEEK_CUR)
    return os.pread(_state.noise, length, 0).decode("utf-8", "replace")


def supervised(command: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command in a child process; return its exit code, or one that says how it ended.

    Returns in the parent only.

    Args:
        command: What to run.
        debug: Show what libraries wrote.
    """
    if not hasattr(signal, "sigtimedwait") or not hasattr(os, "memfd_create"):
        return command()  # macOS
    _state.shared, _state.noise = _Shared(), _buffer()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, no status of a child is kept
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_PASSED_ON})
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _leave_with(parent)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # by which the parent tells, perhaps too late
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _divert(_state.noise)
        code = command()
        _state.shared.put(ended=True)
        leave_at_once(code)
    status, ended = _wait(child, _state.shared)
    if status:
        remove_leftovers()  # a child that was ended could not
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if debug:
        sys.stderr.write(library_output())
    return _code(status, _state.shared, ended)


def leave_at_once(code: int) -> NoReturn:
    """End this process without taking the libraries down, which takes longer than many a command."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what was registered for the end is done all the same
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that has left; what is printed was flushed
            stream.flush()
    os._exit(code)


def _buffer() -> int:
    """A buffer that takes so many bytes and no more."""
    import fcntl

    descriptor = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]  # which holds for files in memory, too
    os.ftruncate(
        descriptor, _NOISE_BYTES if largest == resource.RLIM_INFINITY else min(_NOISE_BYTES, largest)
    )
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor


def _divert(buffer: int) -> None:
    """Keep stderr for this program's own lines; what else is written to its descriptor goes to the buffer."""
    own = os.dup(2)
    os.dup2(buffer, 2)
    sys.stderr = io.TextIOWrapper(
        os.fdopen(own, "wb", 0), encoding=sys.stderr.encoding, errors="backslashreplace", write_through=True
    )
    warnings.showwarning = _keep_warning
    threading.excepthook = _keep_error


def _keep_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning where libraries write: it is about this program's code, not for its users."""
    del file
    _keep(warnings.formatwarning(message, category, filename, lineno, line))


def _keep_error(args: threading.ExceptHookArgs) -> None:
    """Write where libraries write how a thread of theirs ended: the main thread tells the user."""
    _keep("".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)))


def _keep(text: str) -> None:
    with contextlib.suppress(OSError):  # the buffer may be full
        os.write(2, text.encode("utf-8", "replace"))


def _leave_with(parent: int) -> None:
    """End this process when its parent is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ExitCode.INTERRUPTED)


def _wait(child: int, shared: _Shared) -> tuple[int, str]:
    """Wait for a child, passing signals on; return its status, and why it had to be ended, "" if not."""
    ended, standstill, memory = "", Standstill(child, _lacks_memory), _Memory(child, shared)
    looked = time.monotonic()
    while True:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            return status, ended
        now, deadline = time.monotonic(), shared.get()[0]
        if not ended and 0 < deadline < now - GRACE_SECONDS:
            ended = "terminated at the limit of --time-limit: nothing was changed"
            _end(child)
        if not ended and (ended := memory.too_much()):
            _end(child)
        came = signal.sigtimedwait({signal.SIGCHLD, *_PASSED_ON}, CHECK_SECONDS)
        if came is None and now - looked > 1:
            looked = now
            if standstill.reached():
                _end(child)
        # a terminal sends to both processes, and the kernel says so by a positive code
        if came is not None and came.si_signo in _PASSED_ON and came.si_code <= 0:
            os.kill(child, came.si_signo)


class _Memory:
    """Looks at what a child and all that it has started hold, and tells it when that is too much."""

    def __init__(self, child: int, shared: _Shared) -> None:
        self._child, self._shared = child, shared
        self._told: float | None = None

    def too_much(self) -> str:
        """Look once; why the child must be ended, "" as long as it may go on."""
        limit = self._shared.get()[1]
        held = held_memory(self._child) if limit else 0
        if held <= limit:
            self._told = None
            return ""
        if self._told is None:
            self._told = time.monotonic()
            self._shared.put_held(held)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGALRM)
        if time.monotonic() - self._told < MEMORY_GRACE_SECONDS:
            return ""
        taken = f"{mebibytes(held)} were taken of the limit of {mebibytes(limit)}"
        return f"out of memory, {taken}: nothing was changed; raise it with --memory-limit"


def _end(child: int) -> None:
    """End a child and what it has started, which would keep the caller's pipes open."""
    for process in list(family(child)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def out_of_memory_line() -> str:
    """What a command says where memory ran out, and no limit of this program is known to be the reason."""
    return f"out of memory: {want_of_memory()}"


def _code(status: int, shared: _Shared, ended: str) -> int:
    """Say what became of a child that could not, and return the exit code."""
    code = os.waitstatus_to_exitcode(status)
    _, memory_bytes, by_itself = shared.get()
    if by_itself and code >= 0:
        return code
    if ended:
        say(f"Error: {ended}")
        return ExitCode.LIMIT
    if -code in _PASSED_ON:  # as asked for
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if code == -signal.SIGKILL or _wanted_memory(memory_bytes):
        say(f"Error: {out_of_memory_line()}")
        return ExitCode.LIMIT
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    say(
        f"Error: a library ended the command ({how}): the input is damaged, or more than the library can "
        "take; --debug shows its last words"
    )
    return ExitCode.INVALID_INPUT


def _lacks_memory() -> bool:
    """Whether a library has said that memory ran out."""
    return OUT_OF_MEMORY.search(library_output()) is not None


def _wanted_memory(memory_bytes: float) -> bool:
    """Whether a crash has to do with memory: by what was said, what was held, or a limit from outside."""
    held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    from_outside = any(
        resource.getrlimit(kind)[0] != resource.RLIM_INFINITY
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    )
    return _lacks_memory() or from_outside or 0 < memory_bytes * MEMORY_SHARE < held
