"""Calls of a function in a child process that has no network: for libraries that fetch what a file names."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO, Any, TypeVar

from emergraph import errors
from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.runtime.frames import FrameError, exact_reader, receive
from emergraph.exporters.runtime.limits import RunLimits, too_large, too_slow
from emergraph.exporters.runtime.refusals import one_line
from emergraph.leftovers import Scratch
from emergraph.memory import OUT_OF_MEMORY
from emergraph.processes import watched_memory
from emergraph.quiet import offline_environment

T = TypeVar("T")
ReportProgress = Callable[[int, int], None]


_MODULE = "emergraph.exporters.runtime.offlineworker"
_MAX_REPLY_BYTES = 1 << 40
_MAX_PLAIN_BYTES = 1 << 20
_LAST_SECONDS = 10.0
"""That a child which has closed its pipe may take to say why."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a child does."""

    doing: str = "building the model"
    """For messages."""
    advice: str = "use --wire none"
    """What to do where it wants to reach the network."""
    plain: bool = False
    """The function returns what JSON can hold, and nothing else is taken from the child: for code of others,
    which must not decide what is made of its answer here."""


def call_offline(
    function: Callable[..., T],
    *arguments: object,
    limits: RunLimits | None = None,
    progress: ReportProgress | None = None,
    task: "Task | None" = None,
) -> T:
    """Call a function in a child process: no network, caches in a folder of its own, limits.

    Args:
        function: Of a module; called with the arguments, and with `progress` if that is given.
        arguments: Can be pickled, as can what the function returns.
        limits: Of the child.
        progress: Called here whenever the function calls its own.
        task: What the child does; building a model by default.

    Raises:
        EmergraphError: What the function raised.
        UnsafeInputError: It tried to reach the network.
        LimitError: It took too long or too much memory.
        InvalidInputError: It crashed or raised something else.
    """
    limits, task = limits or RunLimits(), task or Task()
    request = pickle.dumps((function, arguments, progress is not None))
    with Scratch() as scratch, tempfile.TemporaryFile(dir=scratch.path) as talk:
        about = {
            "limits": asdict(limits),
            "parent": os.getpid(),
            **asdict(task),
        }
        # -P: a model's folder may be the current one, and must not be where modules are imported from
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no word from outside
            [sys.executable, "-P", "-m", _MODULE, json.dumps(about)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=talk,
            env=offline_environment(str(scratch.path)),
            start_new_session=True,
        )
        late = threading.Event()
        taken: list[int] = []

        def end() -> None:
            late.set()
            _kill(child)

        def stop(held: int) -> None:
            taken.append(held)
            _kill(child)

        clock = threading.Timer(limits.wall_seconds, end)
        clock.daemon = True
        clock.start()
        try:
            with watched_memory(child.pid, limits.memory_bytes, stop):
                value: T = _answer(child, request, progress, task)
        except (EOFError, BrokenPipeError, FrameError) as error:
            # its end of the pipe is closed, so it has ended or is about to
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_LAST_SECONDS)
            _kill(child)
            if taken:
                raise too_large(task.doing, limits, max(taken)) from error
            raise _death(child.wait(), talk, task, limits, late=late.is_set()) from error
        else:
            return value
        finally:
            clock.cancel()
            _kill(child)
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


def _answer(
    child: "subprocess.Popen[bytes]", request: bytes, progress: ReportProgress | None, task: Task
) -> Any:  # noqa: ANN401 - what the function returns
    if child.stdin is None or child.stdout is None:
        raise EOFError
    child.stdin.write(request)
    child.stdin.close()
    most = _MAX_PLAIN_BYTES if task.plain else _MAX_REPLY_BYTES
    while True:
        found, buffers = receive(exact_reader(child.stdout), most)
        reply: dict[str, Any] = found
        if "progress" in reply:
            done, total = reply["progress"]
            if progress is not None:
                progress(done, total)
        elif reply["ok"] and task.plain:
            return json.loads(bytes(buffers[0]))
        elif reply["ok"]:
            return pickle.loads(buffers[0])  # noqa: S301 - made by this program's own child
        else:
            raise _raised(reply)


def _raised(reply: dict[str, Any]) -> EmergraphError:
    kind = getattr(errors, str(reply["kind"]), InvalidInputError)
    return kind(str(reply["message"])) if issubclass(kind, EmergraphError) else InvalidInputError()


def _death(code: int, talk: IO[bytes], task: Task, limits: RunLimits, *, late: bool) -> EmergraphError:
    """The error for a child that ended without an answer."""
    if late:
        return too_slow(task.doing, limits)
    talk.seek(0)
    said = talk.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
    if OUT_OF_MEMORY.search("\n".join(said)):
        return too_large(task.doing, limits)
    if code < 0:
        return InvalidInputError(f"{task.doing} crashed ({signal.Signals(-code).name}); nothing was changed")
    return InvalidInputError(f"{task.doing} ended: {one_line(said[-1]) if said else f'exit code {code}'}")


def _kill(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
