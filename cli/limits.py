"""Limits of wall time and memory, which every command has: `app` puts them on its command line."""

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Annotated

import typer

from emergraph.cli.supervision import announce_limits, announced_limits
from emergraph.errors import LimitError
from emergraph.memory import ran_out_of_memory
from emergraph.optionforms import parse_bytes, parse_seconds
from emergraph.safetext import escape_controls

_AGAIN_SECONDS = 3.0
_MOST_SECONDS = 1e8
"""What the system's clock takes."""
_MOST_BYTES = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a command may take before it stops with exit code 6."""

    time_limit: Annotated[
        str, typer.Option(metavar="TIME", help="Limit on wall time, such as 90s or 10m.")
    ] = "10m"
    memory_limit: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Limit on memory, mapped files not counted, such as 8GiB."),
    ] = "8GiB"

    def __post_init__(self) -> None:
        """Refuse, before any work, what is not a limit."""
        parse_seconds(self.time_limit), parse_bytes(self.memory_limit)

    @property
    def seconds(self) -> float:
        """The wall time in seconds."""
        return min(parse_seconds(self.time_limit), _MOST_SECONDS)

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return min(parse_bytes(self.memory_limit), _MOST_BYTES)


LONG = Limits(time_limit="1h")
"""Of commands that analyse what is the user's own and may be large."""

_running: list[str] = []
"""What goes on, outermost first; a limit that is hit names it."""
_ended: dict[int, tuple[str, ...]] = {}
"""What went on when an exception was raised that still travels, by its identity."""


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Name what the body does, for the line that tells of a limit."""
    _running.append(what)
    try:
        yield
    except BaseException as error:
        _ended.setdefault(id(error), tuple(_running))
        raise
    finally:
        _running.pop()
        if not _running:
            _ended.clear()


@contextmanager
def held_to(limits: Limits) -> Iterator[None]:
    """Run the body under limits of wall time and of memory that is not backed by a file.

    Within another such body, the tighter limits hold.

    Raises:
        LimitError: A limit was hit.
    """
    expired = threading.Event()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    memory_bytes = _lowest(limits.memory_bytes, soft, hard)
    with _clock(limits, expired), _announced(limits.seconds, memory_bytes):
        try:
            _set_data_limit(memory_bytes, hard)
            yield
        except LimitError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if expired.is_set():  # some libraries turn what a signal handler raises into an error of theirs
                raise _out_of_time(limits, error) from None
            if ran_out_of_memory(error):
                raise _out_of_memory(limits, error) from None
            raise
        finally:
            _set_data_limit(soft, hard)


@contextmanager
def _clock(limits: Limits, expired: threading.Event) -> Iterator[None]:
    """Raise LimitError in the body when its time is over, and set `expired`."""
    left, again = signal.getitimer(signal.ITIMER_REAL)
    outer_is_tighter = 0 < left <= limits.seconds
    if outer_is_tighter or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        expired.set()
        raise _out_of_time(limits)

    before = signal.signal(signal.SIGALRM, stop)
    begun = time.monotonic()
    # again after a while: what a handler raises in a finalizer or a callback is only reported, and lost
    signal.setitimer(signal.ITIMER_REAL, limits.seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 0.01), again)


@contextmanager
def _announced(seconds: float, memory_bytes: int) -> Iterator[None]:
    """Let the process above know of limits that are tighter than those it knows."""
    before = announced_limits()
    deadline = time.monotonic() + seconds
    announce_limits(min(deadline, before[0] or deadline), memory_bytes)
    try:
        yield
    finally:
        announce_limits(*before)


def _where(error: BaseException | None = None) -> str:
    """What went on when the error was raised, or goes on now."""
    names = _ended.get(id(error), tuple(_running))
    return f"{escape_controls(', '.join(names))}: " if names else ""


def _out_of_time(limits: Limits, error: BaseException | None = None) -> LimitError:
    return LimitError(
        f"{_where(error)}terminated at the limit of {limits.time_limit}: nothing was changed; raise it with"
        f" --time-limit, such as --time-limit {2 * limits.seconds:g}s"
    )


def _out_of_memory(limits: Limits, error: BaseException) -> LimitError:
    twice = -(-2 * limits.memory_bytes // (1 << 20))
    return LimitError(
        f"{_where(error)}out of memory, more is needed than the limit of {limits.memory_limit}: nothing was"
        f" changed; raise it with --memory-limit, such as --memory-limit {twice}MiB"
    )


def _lowest(*values: int) -> int:
    return min((value for value in values if value != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)


def _set_data_limit(soft: int, hard: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    except (ValueError, OSError):  # macOS refuses some values; the clock still holds
        return
