"""Limits of wall time and memory, which every command has: `app` puts them on its command line."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, ClassVar

import typer

from emergraph.cli.supervision import announce_limits, announced_limits, is_supervised, memory_found
from emergraph.errors import LimitError
from emergraph.memory import bounded, mebibytes, outside_limit, ran_out_of_memory
from emergraph.optionforms import parse_bytes, parse_seconds
from emergraph.processes import held_memory, watched_memory
from emergraph.safetext import escape_controls

_AGAIN_SECONDS = 3.0
_MOST_SECONDS = 1e8
"""What the system's clock takes."""
_MOST_BYTES = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a command may take before it stops with exit code 6."""

    HEADING: ClassVar = "Limits"

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


@dataclass
class _Watch:
    """What has become of limits that hold."""

    limits: Limits
    expired: bool = False
    held: int = 0
    """Bytes, when they were found to be more than the limit."""


_watches: list[_Watch] = []
"""Of the limits that hold, outermost first."""


@contextmanager
def held_to(limits: Limits) -> Iterator[None]:
    """Run the body under limits of wall time and of memory that is not backed by a file.

    The memory is that of this process and of all that it has started. Within another such body, the tighter
    limits hold.

    Raises:
        LimitError: A limit was hit.
    """
    watch = _Watch(limits)
    with _clock(watch), bounded(limits.memory_bytes) as allowed, _announced(limits.seconds, allowed):
        try:
            with _memory(watch):
                yield
        except (LimitError, typer.Exit):  # a command within this one has said it
            raise
        except (Exception, KeyboardInterrupt) as error:
            if watch.held or watch.expired:  # some libraries turn what a signal handler raises into an error
                raise _hit(watch, error) from None
            if ran_out_of_memory(error):
                raise _out_of_memory(limits, error) from None
            raise


@contextmanager
def _clock(watch: _Watch) -> Iterator[None]:
    """Raise LimitError in the body when its time is over, or when its memory is found to be too much."""
    left, again = signal.getitimer(signal.ITIMER_REAL)
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    seconds = watch.limits.seconds
    begun, outer_is_tighter = time.monotonic(), 0 < left <= seconds
    before = signal.signal(signal.SIGALRM, _stop)
    _watches.append(watch)
    if not outer_is_tighter:
        # again after a while: what a handler raises in a finalizer or a callback is only reported, and lost
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        if not outer_is_tighter:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _watches.remove(watch)
        signal.signal(signal.SIGALRM, before)
        if left and not outer_is_tighter:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 0.01), again)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """End what has hit a limit: too much memory where that was found, else the clock of the tightest."""
    if not _watches:
        return
    if found := memory_found():
        min(_watches, key=lambda each: each.limits.memory_bytes).held = found
    watch = next((each for each in reversed(_watches) if each.held), None)
    if watch is None:
        watch = min(_watches, key=lambda each: each.limits.seconds)
        watch.expired = True
    raise _hit(watch)


@contextmanager
def _memory(watch: _Watch) -> Iterator[None]:
    """Have the body ended where this process and what it has started hold more than the limit."""
    asked = 0.0

    def exceeded(held: int) -> None:
        nonlocal asked
        watch.held = held
        if time.monotonic() - asked > _AGAIN_SECONDS:
            asked = time.monotonic()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    if is_supervised() or threading.current_thread() is not threading.main_thread():
        yield  # the process above looks; elsewhere only the main thread gets signals
        return
    with watched_memory(os.getpid(), watch.limits.memory_bytes, exceeded):
        yield


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


def what_goes_on() -> str:
    """What goes on now, outermost first; "" for nothing."""
    return ", ".join(_running)


def _where(error: BaseException | None = None) -> str:
    """What went on when the error was raised, or goes on now."""
    names = _ended.get(id(error), tuple(_running))
    return f"{escape_controls(', '.join(names))}: " if names else ""


def _hit(watch: _Watch, error: BaseException | None = None) -> LimitError:
    return _too_much_memory(watch, error) if watch.held else _out_of_time(watch.limits, error)


def _out_of_time(limits: Limits, error: BaseException | None = None) -> LimitError:
    return LimitError(
        f"{_where(error)}terminated at the limit of {limits.time_limit}: nothing was changed; raise it with"
        f" --time-limit, such as --time-limit {2 * limits.seconds:g}s"
    )


def _too_much_memory(watch: _Watch, error: BaseException | None) -> LimitError:
    return LimitError(
        f"{_where(error)}out of memory, {mebibytes(watch.held)} were taken of the limit of"
        f" {watch.limits.memory_limit}: {_more(max(watch.held, watch.limits.memory_bytes))}"
    )


def _out_of_memory(limits: Limits, error: BaseException) -> LimitError:
    """The error where the system refused memory that was asked for."""
    taken = mebibytes(held_memory(os.getpid()))
    begin = f"{_where(error)}out of memory, {taken} were taken, and more is needed than the limit"
    if outside := outside_limit():
        return LimitError(f"{begin} from outside ({outside}): nothing was changed; raise that")
    return LimitError(f"{begin} of {limits.memory_limit}: {_more(limits.memory_bytes)}")


def _more(memory_bytes: int) -> str:
    more = mebibytes(2 * memory_bytes).replace(" ", "")
    return f"nothing was changed; raise it with --memory-limit, such as --memory-limit {more}"
