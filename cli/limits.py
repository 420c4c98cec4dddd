"""Limits of wall clock and memory for commands that read or run a stranger's file."""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Annotated

import typer

from emergraph.cli.parsing import parse_bytes, parse_seconds
from emergraph.cli.supervision import announce_limits, withdraw_limits
from emergraph.errors import LimitError
from emergraph.memory import ran_out_of_memory

_AGAIN_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a command may take before it stops with exit code 6."""

    time_limit: Annotated[
        str, typer.Option(metavar="TIME", help="Wall clock that it may take, such as 90s or 10m.")
    ] = "10m"
    memory_limit: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory that it may take, such as 8GiB.")
    ] = "8GiB"

    @property
    def seconds(self) -> float:
        """The wall clock in seconds."""
        return parse_seconds(self.time_limit)

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return parse_bytes(self.memory_limit)


@contextmanager
def held_to(limits: Limits) -> Iterator[None]:
    """Run the body under limits of wall clock and of memory that is not backed by a file.

    Raises:
        LimitError: A limit was hit.
    """
    expired = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        expired.set()
        raise _out_of_time(limits)

    before = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # again after a while: what a handler raises in a finalizer or a callback is only reported, and lost
    signal.setitimer(signal.ITIMER_REAL, limits.seconds, _AGAIN_SECONDS)
    announce_limits(limits.seconds, limits.memory_bytes)
    try:
        _set_data_limit(_lowest(limits.memory_bytes, soft, hard), hard)
        yield
    except LimitError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if expired.is_set():  # some libraries turn what a signal handler raises into an error of theirs
            raise _out_of_time(limits) from None
        if ran_out_of_memory(error):
            raise _out_of_memory(limits) from None
        raise
    finally:
        withdraw_limits()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _set_data_limit(soft, hard)


def _out_of_time(limits: Limits) -> LimitError:
    return LimitError(
        f"not done within the limit of {limits.time_limit}: nothing was changed; raise it with --time-limit"
    )


def _out_of_memory(limits: Limits) -> LimitError:
    return LimitError(
        f"more memory needed than the limit of {limits.memory_limit}: nothing was changed; raise it with"
        " --memory-limit"
    )


def _lowest(*values: int) -> int:
    return min((value for value in values if value != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)


def _set_data_limit(soft: int, hard: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    except (ValueError, OSError):  # macOS refuses some values; the clock still holds
        return
